package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDemo plays the demo's script with real processes on loopback: customers,
// services and servers, each failure that the README describes, and what must hold
// then. internal/demo/script.go says what that is.
func TestDemo(t *testing.T) {
	bin, dir := build(t), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "shop"), "demo", "--script", "--port-base", "0", "--dir", dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the script failed: %v\n%s", err, logs(t, dir))
	}
	noneLeft(t, bin)
	written, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(written) != 13 {
		t.Errorf("%d processes have written logs, want 13; %v", len(written), err)
	}
	for _, log := range written {
		if text := read(t, log); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic: ") {
			t.Errorf("%s:\n%s", log, text)
		}
	}
}

// TestCtrlC ends the demo while it starts and while it runs: no process and no
// directory stays.
func TestCtrlC(t *testing.T) {
	bin := build(t)
	for _, when := range []string{"starting 2 instances", "Ctrl-C ends everything"} {
		t.Run(when, func(t *testing.T) {
			tmp := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "shop"), "demo", "--port-base", "0")
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			out := &waiting{text: when, seen: make(chan struct{})}
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-out.seen:
			case err := <-ended:
				t.Fatalf("ended before it said %q: %v\n%s", when, err, out.all.String())
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				// In the middle of its start there is nothing that it could have done.
				if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != exitFailed || when == "Ctrl-C ends everything" {
					t.Errorf("ended with %v\n%s", err, out.all.String())
				}
			}
			noneLeft(t, bin)
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left in the temporary directory: %v, %v", left, err)
			}
		})
	}
}

// waiting is output that tells when a text has been written.
type waiting struct {
	text string
	seen chan struct{}
	all  bytes.Buffer // to be read after the process has ended
	said bool
}

func (w *waiting) Write(p []byte) (int, error) {
	w.all.Write(p)
	if !w.said && strings.Contains(w.all.String(), w.text) {
		w.said = true
		close(w.seen)
	}
	return len(p), nil
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"", "no role given"},
		{"sing", `no role "sing"`},
		{"kill", "kill takes 1 arguments beside its flags, not 0"},
		{"orders extra", "orders takes 0 arguments beside its flags, not 1"},
		{"demo --rate -1", "--rate must be more than 0"},
		{"load", "load needs --storefront"},
		{"orders --nonsense", "not defined"},
	} {
		var out, errOut bytes.Buffer
		err := run(t.Context(), strings.Fields(c.args), &out, &errOut)
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("shop %s: %v, want %q", c.args, err, c.want)
		}
	}
	var out, errOut bytes.Buffer
	if err := run(t.Context(), []string{"kill", "--help"}, &out, &errOut); !errors.Is(err, flag.ErrHelp) || !strings.Contains(errOut.String(), "SHOP_DEMO") {
		t.Errorf("help: %v\n%s", err, &errOut)
	}
	err := run(t.Context(), []string{"demo", "--programs", t.TempDir()}, &out, &errOut)
	if err == nil || !strings.Contains(err.Error(), "make demo") {
		t.Errorf("without programs: %v", err)
	}
}

// programs is where the first test that needs them builds the programs.
var programs struct {
	dir  string
	once sync.Once
	err  error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "holdfast-shop-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs.dir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build builds the programs once.
func build(t *testing.T) (dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not with -short")
	}
	if runtime.GOOS == "windows" {
		t.Skip("processes cannot be asked to end here")
	}
	programs.once.Do(func() {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", programs.dir+"/", "./cmd/controlplane", "./cmd/holdfast", "./examples/shop")
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			programs.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.dir
}

// noneLeft looks for processes of the programs, where the system shows them.
func noneLeft(t *testing.T, bin string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		line, err := os.ReadFile(file)
		if err == nil && bytes.HasPrefix(line, []byte(bin)) {
			t.Errorf("still runs: %s", bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
}

// logs returns the ends of all logs, for a failure.
func logs(t *testing.T, dir string) string {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	var all strings.Builder
	for _, file := range files {
		text := read(t, file)
		all.WriteString("=== " + filepath.Base(file) + "\n" + text[max(0, len(text)-2000):] + "\n")
	}
	return all.String()
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}
