package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// output is what a program has printed so far.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// A run that is interrupted says so, and leaves nothing behind.
func TestInterruptedRunLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers; not with -short")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "jepsen-lite")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out := &output{}
	artefacts := filepath.Join(dir, "runs")
	cmd := exec.CommandContext(ctx, program, "run", "-scenario", "kill-all,leader-kill", "-profile", "short", "-out", artefacts)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(out.String(), "everybody has started") && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	if left := holders(t, artefacts); len(left) < 4 {
		t.Errorf("only %d processes know %s while it runs: the look for what is left would find nothing", len(left), artefacts)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("ended with %v, want exit code %d:\n%s", err, exitInterrupted, out)
	}
	if n := strings.Count(out.String(), "\n=== "); n != 1 {
		t.Errorf("%d runs were begun, want the one that was interrupted", n)
	}
	if left := holders(t, artefacts); len(left) > 0 {
		t.Errorf("still there: %q", left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), artefacts) {
		t.Errorf("mounts are left, or cannot be told (%v)", err)
	}
}

// holders are the command lines of all processes that name a directory.
func holders(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(paths) == 0 {
		t.Fatalf("list processes: %v", err)
	}
	var found []string
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), dir) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}
