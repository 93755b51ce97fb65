package fabric_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

var roles = map[string]func() int{"returns": litter, "waits": func() int {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	if code := litter(); code != 7 {
		return code
	}
	<-interrupted
	return 3
}}

// litter leaves around what a run has: a fabric with a cut, a mount, an interface's
// address, processes that take no notice of signals. It tells when it is ready.
func litter() int {
	f, err := fabric.Open(context.Background(), fabric.Kernel, []fabric.Node{"a", "b"}, nil)
	if err == nil {
		err = f.Cut(fabric.Between([]fabric.Node{"a"}, []fabric.Node{"b"}))
	}
	if err == nil {
		err = unix.Mount("tmpfs", os.TempDir(), "tmpfs", 0, "size=1m")
	}
	for _, detached := range []bool{false, true} {
		if err != nil {
			fmt.Println(err)
			return 1
		}
		cmd := exec.Command("sh", "-c", "trap '' INT TERM HUP; sleep 1000; sleep 1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: detached}
		err = cmd.Start()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	return 7
}

// machine is what must be as before: processes, mounts, interfaces, rules.
func machine(t *testing.T) []string {
	t.Helper()
	var all []string
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	do(t, err)
	for _, stat := range stats {
		cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		all = append(all, filepath.Dir(stat)+" "+string(cmd))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	do(t, err)
	all = append(all, strings.Split(string(mounts), "\n")...)
	interfaces, err := net.Interfaces()
	do(t, err)
	for _, i := range interfaces {
		all = append(all, "interface "+i.Name)
	}
	conn, err := nftables.New()
	do(t, err)
	tables, err := conn.ListTables()
	do(t, err)
	for _, table := range tables {
		all = append(all, "table "+table.Name)
	}
	return all
}

// The namespaces that these tests run in are the machine of another run, so that
// nothing else happens on it.
func TestNothingIsLeft(t *testing.T) {
	if !fabric.Entered() {
		t.Skip("needs namespaces")
	}
	for _, c := range []struct {
		name, role string
		signal     syscall.Signal
		exit       int
	}{
		{"by itself", "returns", 0, 7},
		{"Ctrl-C", "waits", syscall.SIGINT, 3},
		{"parent killed", "waits", syscall.SIGKILL, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			before := machine(t)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = slices.DeleteFunc(append(os.Environ(), roleEnv+"="+c.role), func(v string) bool {
				return strings.HasPrefix(v, "JEPSEN_NAMESPACES=")
			})
			out, err := cmd.StdoutPipe()
			do(t, err)
			do(t, cmd.Start())
			lines := bufio.NewScanner(out)
			if lines.Scan(); lines.Text() != "ready" {
				t.Fatalf("it says %q", lines.Text())
			}
			if c.signal != 0 {
				if got := machine(t); len(got) < len(before)+4 {
					t.Errorf("only %d things more are there while it runs", len(got)-len(before))
				}
				do(t, cmd.Process.Signal(c.signal))
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.exit {
				t.Errorf("exit code %d, want %d", got, c.exit)
			}
			gone(t, before)
		})
	}
}

func gone(t *testing.T, before []string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); ; <-tick.C {
		// We are the first process: orphans are ours to bury.
		_, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		after := machine(t)
		if slices.Equal(before, after) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("before: %q\nafter: %q", before, after)
		}
	}
}
