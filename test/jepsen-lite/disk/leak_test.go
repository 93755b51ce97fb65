package disk_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
)

// run has a process hang on a broken disk, tells it, and does nothing more.
func run(dir string) {
	d, err := disk.Open(dir)
	if err == nil {
		err = d.Break(disk.Fault{Kind: disk.Hang, Ops: disk.Fsync})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimEnv+"="+filepath.Join(d.Dir(), "f"))
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for d.Bites() == 0 {
		runtime.Gosched()
	}
	fmt.Println("ready")
	select {}
}

// The kernel keeps a process that waits for a disk. When whoever serves that disk is
// killed, nothing may be left: no process that waits forever, no mount.
func TestHangingProcessesDieWithTheRun(t *testing.T) {
	open(t) // or skip
	before, mounts := processes(t), mounted(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = slices.DeleteFunc(append(os.Environ(), runEnv+"="+t.TempDir()), func(v string) bool {
		return strings.HasPrefix(v, "JEPSEN_NAMESPACES=")
	})
	out, err := cmd.StdoutPipe()
	do(t, err)
	do(t, cmd.Start())
	lines := bufio.NewScanner(out)
	if lines.Scan(); lines.Text() != "ready" {
		t.Fatalf("it says %q", lines.Text())
	}
	if n := len(processes(t)) - len(before); n < 3 {
		t.Errorf("%d processes of the run, want 3", n)
	}
	do(t, cmd.Process.Kill())
	_ = cmd.Wait()
	until(t, "all processes are gone", func() bool {
		// We are the first process here: orphans are ours to bury.
		_, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		return slices.Equal(processes(t), before)
	})
	if now := mounted(t); now != mounts {
		t.Errorf("mounts before:\n%s\nafter:\n%s", mounts, now)
	}
}

func processes(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	do(t, err)
	return all
}

func mounted(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	do(t, err)
	return string(data)
}
