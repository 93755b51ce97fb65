package command

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/node"
)

func TestMainReportsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	removed := filepath.Join(dir, "removed")
	if err := os.MkdirAll(removed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(removed, "removed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"version"}, ExitOK, "controlplane 0.", ""},
		{[]string{"--help"}, ExitOK, "--raft-addr host:port", ""},
		{[]string{"help"}, ExitOK, "controlplane recover", ""},
		{[]string{"config", "print", "--expect=3", "--join=a"}, ExitOK, "flag --expect", ""},
		{[]string{"config", "example"}, ExitOK, "# raft-addr: \"\"", ""},
		{[]string{"config"}, ExitUsage, "", "config print or config example"},
		{[]string{"config", "prnt"}, ExitUsage, "", "there are print and example"},
		{[]string{"config", "print", "--exepct=3"}, ExitUsage, "", "did you mean --expect?"},
		{[]string{"serv"}, ExitUsage, "", "unknown command"},
		{[]string{"--bnd=x"}, ExitUsage, "", "did you mean --bind?"},
		{[]string{"recover", "--data-dir=" + dir}, ExitUsage, "", "recover needs --peers"},
		{[]string{"recover", "--data-dir=" + dir, "--peers", "x"}, ExitUsage, "", "must be id=host:port"},
		{[]string{"recover", "--data-dir=" + dir, "--peers=x=127.0.0.1:1"}, ExitFailed, "", "not among the peers"},
		{[]string{"--port-base=0", "--data-dir=" + removed}, ExitFatal, "", "was removed from the cluster; delete"},
	} {
		var stdout, stderr bytes.Buffer
		code := Main(t.Context(), test.args, nil, &stdout, &stderr)
		if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%v: exit %d, want %d\nstdout: %s\nstderr: %s", test.args, code, test.code, stdout.String(), stderr.String())
		}
	}
}

// The example is a file that the program reads, and every line of it works when
// it is uncommented.
func TestExampleIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "example.yaml")
	var uncommented strings.Builder
	for line := range strings.Lines(node.Example()) {
		if key, _, ok := strings.Cut(strings.TrimPrefix(line, "# "), ": "); ok && !strings.Contains(key, " ") {
			line = strings.TrimPrefix(line, "# ")
		}
		uncommented.WriteString(line)
	}
	for _, text := range []string{node.Example(), uncommented.String()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := node.Load([]string{"--config", path}, nil); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

// lines is a buffer that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestDevServesAndLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	killed := filepath.Join(temp, "holdfast-dev-1") // what a server left that was killed
	if err := os.Mkdir(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{"lock", "throw-away", "."} {
		file := filepath.Join(killed, name)
		if name != "." {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(file, long, long); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stdout, stderr lines
	done := make(chan int)
	go func() {
		done <- Main(ctx, []string{"--dev", "--port-base=0", "--drain-jitter=0s"}, nil, &stdout, &stderr)
	}()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(stdout.String(), "export HOLDFAST_ADDR=127.0.0.1:") {
		select {
		case <-deadline:
			t.Fatalf("no banner\n%s\n%s", stdout.String(), stderr.String())
		case code := <-done:
			t.Fatalf("exit %d\n%s", code, stderr.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	if !strings.Contains(stdout.String(), "remove their cache directory") {
		t.Errorf("the banner:\n%s", stdout.String())
	}
	cancel()
	if code := <-done; code != ExitOK {
		t.Fatalf("exit %d\n%s", code, stderr.String())
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}
