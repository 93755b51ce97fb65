package clock_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/clock"
)

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// teller is a process that tells the time.
type teller struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func start(t *testing.T, program string, env ...string) *teller {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	in, err := cmd.StdinPipe()
	do(t, err)
	out, err := cmd.StdoutPipe()
	do(t, err)
	do(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return &teller{t: t, in: in, out: bufio.NewReader(out)}
}

// off checks that its clock is off by so much, and that its monotonic one is right.
func (p *teller) off(want time.Duration) {
	p.t.Helper()
	var told, passed int64
	before := time.Now().UnixNano()
	_, err := fmt.Fprintln(p.in)
	do(p.t, err)
	_, err = fmt.Fscanln(p.out, &told, &passed)
	do(p.t, err)
	if least, most := time.Duration(told-time.Now().UnixNano()), time.Duration(told-before); want < least || want > most {
		p.t.Errorf("off by %v to %v, want %v", least, most, want)
	}
	const slack = 30 * time.Second
	if d := time.Duration(passed); d < 0 || d > slack {
		p.t.Errorf("it says that %v have passed", d)
	}
}

func TestJumps(t *testing.T) {
	overlay, err := clock.Overlay(t.Context(), t.TempDir())
	do(t, err)
	program := filepath.Join(t.TempDir(), "teller")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", program, "./testdata/teller").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	c, err := clock.New(filepath.Join(t.TempDir(), "clock"))
	do(t, err)
	t.Cleanup(func() { do(t, c.Close()) })
	wrong, right := start(t, program, c.Env()), start(t, program)
	wrong.off(0)
	if offset, n := c.Seen(); offset != 0 || n != 0 {
		t.Errorf("saw %v %d times", offset, n)
	}
	total := time.Duration(0)
	for i, d := range []time.Duration{time.Hour, -25 * time.Hour, 24*time.Hour + 999_999_999, -5*time.Second + 2} {
		c.Jump(d)
		total += d
		wrong.off(total)
		right.off(0)
		if offset, n := c.Seen(); offset != total || n != int64(i)+1 {
			t.Errorf("saw %v, %d times, want %v, %d", offset, n, total, i+1)
		}
	}
	start(t, program, c.Env()).off(total) // the next process has the same clock
	if got := time.Until(c.Now()); (got - total).Abs() > time.Second {
		t.Errorf("Now is off by %v, want %v", got, total)
	}
	c.Set(0)
	wrong.off(0)
}
