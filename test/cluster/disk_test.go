package cluster_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// exitFatal is the exit code of a server that stops rather than answer from a
// sick disk.
const exitFatal = 70

// faulty starts a cluster of servers with failpoints. arm sets the failpoints
// of one server; none disarms it.
func faulty(t *testing.T) (c *cluster.Cluster, arm func(i int, lines ...string)) {
	t.Helper()
	dir := t.TempDir()
	file := func(i int) string { return filepath.Join(dir, fmt.Sprintf("faults-%d", i)) }
	arm = func(i int, lines ...string) {
		t.Helper()
		// In one step: a server that reads half of it would not read it again.
		must(t, os.WriteFile(file(i)+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		must(t, os.Rename(file(i)+".new", file(i)))
	}
	c = start(t, cluster.Options{
		Server: server(t, "-tags", "faults"),
		Configure: func(_ *cluster.Cluster, i int) ([]string, []string) {
			return nil, []string{"HOLDFAST_FAULTS=" + file(i)}
		},
	})
	return c, arm
}

// wantDeath waits until a server has ended by itself, with a code and a message
// that says why.
func wantDeath(t *testing.T, c *cluster.Cluster, i int, limit time.Duration, message ...string) {
	t.Helper()
	code, ended := c.WaitExit(i, limit)
	if !ended {
		t.Fatalf("server %d still runs after %v", i, limit)
	}
	if code != exitFatal {
		t.Errorf("server %d ended with code %d, want %d", i, code, exitFatal)
	}
	wantLog(t, c, i, message...)
}

// wantLog requires that the last run's output contains one of the messages.
func wantLog(t *testing.T, c *cluster.Cluster, i int, message ...string) {
	t.Helper()
	log := c.RunLog(i)
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "--- ") {
			continue // the command line, by the harness
		}
		for _, m := range message {
			if strings.Contains(strings.ToLower(line), m) {
				t.Logf("server %d: %s", i, strings.TrimSpace(line))
				return
			}
		}
	}
	t.Errorf("the log of server %d says none of %q:\n%s", i, message, log)
}

// A server whose disk refuses a write ends at once and says so, and the others
// go on; with a disk that works it comes back.
func TestFailedDiskEndsTheServer(t *testing.T) {
	c, arm := faulty(t)
	l, stop := keepWriting(t, c)
	for _, ofLeader := range []bool{true, false} {
		victim := leader(t, c)
		if !ofLeader {
			victim = c.Others(victim)[0]
		}
		l.longestGap()
		arm(victim, "consensus.store_logs error")
		wantDeath(t, c, victim, 10*time.Second, "injected fault")
		get[int](t)(c.WaitLeader(within(t, 10*time.Second), victim))
		time.Sleep(300 * time.Millisecond)
		t.Logf("disk of server %d (leader: %v) failed: longest time without an acknowledgement %v", victim, ofLeader,
			l.longestGap().Round(time.Millisecond))
		arm(victim)
		restart(t, c, victim)
	}
	stop()
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
	l.check(t, listAll(t, c, ""))
}

// A server whose disk hangs falls silent, so that another can lead if it was
// the leader, and ends.
func TestHungDiskEndsTheServer(t *testing.T) {
	t.Parallel()
	c, arm := faulty(t)
	l, stop := keepWriting(t, c)
	for _, ofLeader := range []bool{true, false} {
		victim := leader(t, c)
		if !ofLeader {
			victim = c.Others(victim)[0]
		}
		l.longestGap()
		arm(victim, "consensus.store_logs delay=60s")
		if ofLeader {
			get[int](t)(c.WaitLeader(within(t, 10*time.Second), victim))
		}
		wantDeath(t, c, victim, 20*time.Second, "hang")
		gap := l.longestGap()
		t.Logf("disk of server %d (leader: %v) hung: longest time without an acknowledgement %v", victim, ofLeader, gap.Round(time.Millisecond))
		if gap > 8*time.Second {
			t.Errorf("writes stopped for %v while one disk hung", gap)
		}
		arm(victim)
		restart(t, c, victim)
	}
	stop()
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
	l.check(t, listAll(t, c, ""))
}

// damage finds the one file below a server's data that matches and changes it.
func damage(t *testing.T, c *cluster.Cluster, i int, match func(path string) bool, change func(data []byte) []byte) {
	t.Helper()
	var found []string
	must(t, filepath.Walk(c.DataDir(i), func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && match(path) {
			found = append(found, path)
		}
		return err
	}))
	if len(found) == 0 {
		t.Fatalf("nothing to damage below %s", c.DataDir(i))
	}
	for _, path := range found {
		data := get[[]byte](t)(os.ReadFile(path))
		must(t, os.WriteFile(path, change(data), 0o600))
	}
}

func raftLog(path string) bool { return strings.HasSuffix(path, ".db") }

// A raft log that was cut short or altered is noticed at the start: the server
// says so and does not serve; wiped, it comes back from the others.
func TestDamagedLogIsRefused(t *testing.T) {
	t.Parallel()
	const marker, forged = "marker-0123456789", "marker-O123456789"
	damages := []struct {
		name   string
		change func([]byte) []byte
	}{
		{"truncated", func(data []byte) []byte { return data[:len(data)/2] }},
		{"altered", func(data []byte) []byte { return bytes.ReplaceAll(data, []byte(marker), []byte(forged)) }},
		{"zeroed", func(data []byte) []byte { return make([]byte, len(data)) }},
		// Its identity is still there, so it would vote again under the name under
		// which it has promised to remember what it now forgot.
		{"empty", func([]byte) []byte { return nil }},
	}
	c := start(t, cluster.Options{Args: []string{"--dead-server-timeout", "3s"}})
	w := c.Writer(0, time.Second)
	for n := range 200 {
		get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "fill", cluster.Flag("", fmt.Sprint("f", n), fmt.Sprint(marker, n))))
	}
	before := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second)))
	for _, d := range damages {
		name := d.name
		victim := c.Others(leader(t, c))[0]
		must(t, c.Kill(victim))
		damage(t, c, victim, raftLog, func(data []byte) []byte {
			changed := d.change(bytes.Clone(data))
			if bytes.Equal(changed, data) {
				t.Fatalf("%s: the log of server %d holds nothing to change", name, victim)
			}
			return changed
		})
		must(t, c.Restart(victim))
		code, ended := c.WaitExit(victim, 20*time.Second)
		if !ended {
			got, err := list(within(t, 5*time.Second), c.Client(victim), "")
			t.Errorf("%s log: server %d runs and lists %d resources, %v", name, victim, len(got), err)
			continue
		}
		if code == 0 {
			t.Errorf("%s log: exit code 0", name)
		}
		t.Logf("%s log: exit code %d", name, code)
		wantLog(t, c, victim, "damaged", "corrupt", "truncated", "checksum")
		if strings.Contains(c.RunLog(victim), "goroutine 1 [") {
			t.Errorf("%s log: server %d panicked instead of explaining", name, victim)
		}
		must(t, c.Wipe(victim))
		restart(t, c, victim)
		must(t, c.WaitVoters(within(t, 60*time.Second), 3))
	}
	after := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second)))
	if cluster.Roots(before) != cluster.Roots(after) {
		t.Errorf("roots %s, before the damages %s", cluster.Roots(after), cluster.Roots(before))
	}
}

// A damaged newest snapshot is noticed. The server falls back to what else it
// has, or says clearly that it cannot; it never serves something else.
func TestDamagedSnapshotIsNeverServed(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Args: []string{"--snapshot-threshold", "64"}})
	w := c.Writer(0, time.Second)
	victim := c.Others(leader(t, c))[0]
	snapshots := func() []string {
		found, err := filepath.Glob(filepath.Join(c.DataDir(victim), "raft", "snapshots", "*", "state.bin"))
		must(t, err)
		return slices.DeleteFunc(found, func(path string) bool { return strings.HasSuffix(filepath.Dir(path), ".tmp") })
	}
	want := 1
	if *long {
		want = 2 // takes a minute more
	}
	limit := within(t, 3*time.Minute)
	for n := 0; len(snapshots()) < want; n++ {
		get[cluster.Ack](t)(w.Write(limit, "fill", cluster.Flag("", fmt.Sprint("f", n%300), fmt.Sprint("value-", n))))
		time.Sleep(10 * time.Millisecond)
	}
	before := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second)))
	must(t, c.Kill(victim))
	found := snapshots()
	newest := found[len(found)-1]
	data := get[[]byte](t)(os.ReadFile(newest))
	data[len(data)/2] ^= 0x20
	must(t, os.WriteFile(newest, data, 0o600))
	t.Logf("damaged %s, one of %d", filepath.Base(filepath.Dir(newest)), len(found))
	must(t, c.Restart(victim))
	if code, ended := c.WaitExit(victim, 10*time.Second); ended {
		t.Logf("exit code %d", code)
		if code == 0 || want > 1 {
			t.Errorf("exit code %d with %d snapshots", code, len(found))
		}
		wantLog(t, c, victim, "damaged", "corrupt", "checksum")
		must(t, c.Wipe(victim))
		must(t, c.Restart(victim))
	} else {
		wantLog(t, c, victim, "damaged", "corrupt", "checksum", "crc", "failed to restore", "hash")
	}
	must(t, c.WaitReady(within(t, 30*time.Second), victim))
	after := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 30*time.Second)))
	if cluster.Roots(before) != cluster.Roots(after) {
		t.Errorf("roots %s, before the damage %s", cluster.Roots(after), cluster.Roots(before))
	}
	listAll(t, c, "")
}

// A server whose disk is full ends with a message and takes nothing with it.
// With room again it comes back.
func TestFullDiskEndsTheServer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("SKIPPED: the test of a full disk needs root on Linux to mount a small file system")
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "data-2") // where server 2 keeps its data
	must(t, os.MkdirAll(small, 0o700))
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: cannot mount a small file system: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", small).Run() })
	c := start(t, cluster.Options{Dir: dir})
	w := c.Writer(0, 2*time.Second)
	text := strings.Repeat("x", 30<<10)
	written := 0
	limit := within(t, time.Minute)
	for ; c.Alive(2); written++ {
		get[cluster.Ack](t)(w.Write(limit, "fill", cluster.Flag("", fmt.Sprint("f", written%500), fmt.Sprint(text, written))))
	}
	wantDeath(t, c, 2, time.Second, "no space left")
	for n := range 20 {
		get[cluster.Ack](t)(w.Write(within(t, 20*time.Second), "after", cluster.Flag("", fmt.Sprint("after", n), "x")))
	}
	t.Logf("the disk of server 2 was full after %d writes of 30 KiB; the others went on", written)
	must(t, exec.Command("mount", "-o", "remount,size=200m", small).Run())
	restart(t, c, 2)
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
	listAll(t, c, "")
}
