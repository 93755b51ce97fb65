package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

const (
	// victimEnv makes this binary write and fsync a file forever.
	victimEnv = "DISK_TEST_VICTIM"
	// runEnv makes it hang such a process on a disk, and wait.
	runEnv = "DISK_TEST_RUN"
)

func TestMain(m *testing.M) {
	inside, exit, err := fabric.Enter(os.Args[1:])
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "most tests of disks are skipped:", err)
	case !inside:
		os.Exit(exit)
	}
	if path := os.Getenv(victimEnv); path != "" {
		victim(path)
	}
	if dir := os.Getenv(runEnv); dir != "" {
		run(dir)
	}
	os.Exit(m.Run())
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openAt(t *testing.T, dir string) *disk.Disk {
	t.Helper()
	d, err := disk.Open(dir)
	do(t, err)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func open(t *testing.T) *disk.Disk {
	t.Helper()
	d := openAt(t, t.TempDir())
	if caps := d.Caps(); !caps.PowerLoss {
		t.Skip(caps.Why)
	}
	return d
}

func write(t *testing.T, d *disk.Disk, name, content string, sync bool) {
	t.Helper()
	f, err := os.Create(filepath.Join(d.Dir(), name))
	do(t, err)
	defer f.Close()
	_, err = f.WriteString(content)
	do(t, err)
	if sync {
		do(t, f.Sync())
	}
}

func content(t *testing.T, d *disk.Disk, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(d.Dir(), name))
	if errors.Is(err, os.ErrNotExist) {
		return "(absent)"
	}
	do(t, err)
	return string(data)
}

func TestFailedFsyncIsNotMadeUpFor(t *testing.T) {
	d := open(t)
	f, err := os.Create(filepath.Join(d.Dir(), "f"))
	do(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("a"), 1024), 0)
	do(t, err)
	do(t, f.Sync())
	do(t, d.Break(disk.Fault{Kind: disk.EIO, Ops: disk.Fsync, Over: 1}))
	do(t, f.Sync()) // one more succeeds
	_, err = f.WriteAt(bytes.Repeat([]byte("b"), 512), 0)
	do(t, err)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fsync on the broken disk: %v", err)
	}
	if n := d.Bites(); n != 1 {
		t.Errorf("%d operations were hit, want 1", n)
	}
	do(t, d.Heal())
	_, err = f.WriteAt(bytes.Repeat([]byte("c"), 512), 512)
	do(t, err)
	do(t, f.Sync()) // of the second sector only
	do(t, f.Close())
	if got := content(t, d, "f"); got != strings.Repeat("b", 512)+strings.Repeat("c", 512) {
		t.Errorf("before the loss of power: %q", got)
	}
	_, err = d.PowerLoss(1, false)
	do(t, err)
	if got := content(t, d, "f"); got != strings.Repeat("a", 512)+strings.Repeat("c", 512) {
		t.Errorf("after it: %.8s… %.8s…", got, got[min(512, len(got)):])
	}
}

func TestLyingFsync(t *testing.T) {
	d := open(t)
	do(t, d.Break(disk.Fault{Kind: disk.Lie}))
	write(t, d, "f", "x", true)
	if n := d.Bites(); n != 1 {
		t.Errorf("%d operations were hit, want 1", n)
	}
	loss, err := d.PowerLoss(1, false)
	do(t, err)
	if loss != (disk.Loss{Sectors: 1, Names: 1}) {
		t.Errorf("lost %+v", loss)
	}
	if got := content(t, d, "f"); got != "(absent)" {
		t.Errorf("after the loss of power: %q", got)
	}
}

func TestFullDisk(t *testing.T) {
	d := openAt(t, t.TempDir())
	if !d.Caps().Full {
		t.Skip(d.Caps().Why)
	}
	const room = 256 << 10
	do(t, d.Break(disk.Fault{Kind: disk.Full, Room: room}))
	if n := d.Bites(); n != 0 {
		t.Errorf("%d operations were hit before there was any", n)
	}
	f, err := os.Create(filepath.Join(d.Dir(), "f"))
	do(t, err)
	defer f.Close()
	n, err := f.Write(make([]byte, 2*room))
	if !errors.Is(err, syscall.ENOSPC) || n > room || n < room/2 {
		t.Errorf("wrote %d bytes into %d: %v", n, room, err)
	}
	if d.Bites() == 0 {
		t.Error("no operation was hit")
	}
	do(t, d.Heal())
	_, err = f.Write(make([]byte, 2*room))
	do(t, err)
}

func TestSlowDisk(t *testing.T) {
	d := open(t)
	const slow = 150 * time.Millisecond
	do(t, d.Break(disk.Fault{Kind: disk.Slow, Ops: disk.Fsync, Wait: slow}))
	began := time.Now()
	write(t, d, "f", "x", true)
	if took := time.Since(began); took < slow {
		t.Errorf("fsync took %v", took)
	}
	began = time.Now()
	write(t, d, "f", "y", false)
	if took := time.Since(began); took > slow {
		t.Errorf("a write took %v, though only fsync is slow", took)
	}
}

func victim(path string) {
	for i := 0; ; i++ {
		f, err := os.Create(path)
		if err == nil {
			_, err = fmt.Fprint(f, i)
		}
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

func start(t *testing.T, d *disk.Disk) (cmd *exec.Cmd, said *strings.Builder) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimEnv+"="+filepath.Join(d.Dir(), "f"))
	said = &strings.Builder{}
	cmd.Stdout = said
	do(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, said
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestHangingDisk(t *testing.T) {
	d := open(t)
	cmd, said := start(t, d)
	until(t, "the process writes", func() bool { return content(t, d, "f") > "3" })
	do(t, d.Break(disk.Fault{Kind: disk.Hang, Ops: disk.Fsync}))
	until(t, "the process hangs", func() bool { return d.Bites() == 1 })
	stood := content(t, d, "f")
	// The runtime of Go sends itself this signal; it must not end the operation.
	for range 20 {
		do(t, cmd.Process.Signal(syscall.SIGURG))
		wait, _ := time.ParseDuration("5ms")
		<-time.After(wait)
	}
	if got := content(t, d, "f"); got != stood || d.Bites() != 1 {
		t.Errorf("it went on: %s, then %s (%d operations hit): %s", stood, got, d.Bites(), said)
	}
	do(t, d.Heal())
	until(t, "the process goes on", func() bool { return content(t, d, "f") != stood })

	do(t, d.Break(disk.Fault{Kind: disk.Hang, Ops: disk.All &^ disk.Read}))
	until(t, "the process hangs again", func() bool { return d.Bites() == 1 })
	do(t, cmd.Process.Kill())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("a killed process hangs on")
		do(t, d.Heal())
		<-ended
	}
}

func TestDataIsThereAgain(t *testing.T) {
	dir := t.TempDir()
	d, err := disk.Open(dir)
	do(t, err)
	write(t, d, "f", "x", false)
	do(t, os.Mkdir(filepath.Join(d.Dir(), "sub"), 0o700))
	do(t, d.Close())
	if _, err := os.Stat(filepath.Join(dir, "files", "sub")); err != nil {
		t.Error(err)
	}
	again := openAt(t, dir)
	if got := content(t, again, "f"); got != "x" {
		t.Errorf("after opening again: %q", got)
	}
}

func TestWhatADiskCannotIsRefused(t *testing.T) {
	d := openAt(t, t.TempDir())
	if d.Caps().PowerLoss {
		t.Skip("this one can do everything")
	}
	if d.Caps().Why == "" {
		t.Error("it does not say why")
	}
	if err := d.Break(disk.Fault{Kind: disk.EIO, Ops: disk.All}); !errors.Is(err, disk.ErrUnsupported) {
		t.Errorf("EIO: %v", err)
	}
	if _, err := d.PowerLoss(1, false); !errors.Is(err, disk.ErrUnsupported) {
		t.Errorf("power loss: %v", err)
	}
}
