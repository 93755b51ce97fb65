package cluster_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// nobody is the address of a server that does not exist.
const nobody = "127.0.0.1:1"

// atOnce does not wait for a first view.
func atOnce(c *client.Config) { c.OpenTimeout = -1 }

// A cache file that is damaged is not believed: it is moved aside with one clear line
// in the log, the instance goes on with what a server has, or with its own code, and
// the next cache is good.
func TestPoisonedCacheIsRefused(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Servers: 1})
	revision := write(t, c, 0, cluster.Flag("", "color", "red"))
	dir := t.TempDir()
	in := openInstance(t, addresses(c), keeping(dir))
	in.has(t, revision)
	in.close(t)
	path := cacheFile(t, dir)
	good := get[[]byte](t)(os.ReadFile(path))
	at := bytes.Index(good, []byte("red"))
	if at < 0 {
		t.Fatal("the cache file does not hold the flag")
	}
	poisoned := bytes.Clone(good)
	copy(poisoned[at:], "bad")
	files := map[string][]byte{"another value": poisoned, "cut off": good[:len(good)/2], "empty": {}, "something else": []byte("{}")}
	for at := 0; at < len(good); at += 7 { // also what no root vouches for, such as times
		flipped := bytes.Clone(good)
		flipped[at] ^= 1
		files[fmt.Sprint("a flipped bit in byte ", at)] = flipped
	}
	for name, data := range files {
		must(t, os.WriteFile(path, data, 0o600))
		alone := openInstance(t, []string{nobody}, keeping(dir), atOnce)
		if s := alone.Status(); s.Source != client.FromDefaults || s.Revision != 0 {
			t.Errorf("%s: the instance started with revision %d from %s, want %s", name, s.Revision, s.Source, client.FromDefaults)
		}
		if v := alone.String("color", codeValue).Get(); v != codeValue {
			t.Errorf("%s: the flag is %q, want what the code says", name, v)
		}
		wantRefused(t, name, alone, path)
		alone.close(t)
	}
	must(t, os.WriteFile(path, poisoned, 0o600))
	healed := openInstance(t, addresses(c), keeping(dir))
	healed.has(t, revision)
	if v := healed.String("color", codeValue).Get(); v != "red" {
		t.Errorf("the flag is %q from a server, want red", v)
	}
	wantRefused(t, "with a server", healed, path)
	healed.close(t)
	again := openInstance(t, []string{nobody}, keeping(dir), atOnce)
	if s := again.Status(); s.Source != client.FromDisk || s.Revision != revision {
		t.Errorf("the healed cache gives revision %d from %s, want %d from %s", s.Revision, s.Source, revision, client.FromDisk)
	}
	if lines := again.log.lines("refused"); len(lines) > 0 {
		t.Errorf("the healed cache is refused: %s", lines)
	}
}

// cacheFile is the one cache file in a directory.
func cacheFile(t *testing.T, dir string) string {
	t.Helper()
	files := get[[]string](t)(filepath.Glob(filepath.Join(dir, "*.cache")))
	if len(files) != 1 {
		t.Fatalf("the cache files are %v, want one", files)
	}
	return files[0]
}

// wantRefused requires one line about a cache file that was moved aside.
func wantRefused(t *testing.T, name string, in *instance, path string) {
	t.Helper()
	lines := in.log.lines("a cache file is refused")
	if len(lines) != 1 || !strings.Contains(lines[0], path) || !strings.Contains(lines[0], ".corrupt") || !strings.Contains(lines[0], "error=") {
		t.Errorf("%s: the log says %q; want one line with the file, why, and where it went", name, lines)
	}
	if _, err := os.Stat(path + ".corrupt"); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// An instance never goes back, though the only server that is left is behind: not when
// it moves there, not after a restart, and not even if only the mark is left of what
// it had on disk. It goes forward once the servers know more.
func TestInstanceNeverGoesBack(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	dir := t.TempDir()
	old := write(t, c, 0, cluster.Flag("", "color", "red"))
	behind := c.Others(leader(t, c))[0]
	others := c.Others(behind)
	get[cluster.ReplicaState](t)(follow(t, c, "", behind).Wait(within(t, 10*time.Second), reached(old)))
	must(t, c.Pause(behind))
	revision := uint64(0)
	for n := range missedWrites {
		revision = write(t, c, others[0], cluster.Flag("", "color", fmt.Sprint("red", n)))
	}
	last := fmt.Sprint("red", missedWrites-1)
	in := openInstance(t, addresses(c, others...), keeping(dir))
	in.has(t, revision)
	in.close(t)
	in = openInstance(t, addresses(c), keeping(dir))
	in.has(t, revision)
	events := in.Events(t.Context())
	for _, i := range others {
		must(t, c.Kill(i))
	}
	must(t, c.Resume(behind))
	wantBehind(t, c, behind, old, revision)
	in.wait(t, "connected to the server that is behind", func(s client.Status) bool { return s.Server == c.Addr(behind) })
	wantStill(t, in, revision, last, time.Second)
	in.close(t)
	wantForward(t, events)

	in = openInstance(t, addresses(c, behind), keeping(dir))
	if s := in.Status(); s.Source != client.FromDisk {
		t.Errorf("restarted from %s, want %s", s.Source, client.FromDisk)
	}
	wantStill(t, in, revision, last, time.Second)
	in.close(t)
	must(t, os.Remove(cacheFile(t, dir)))
	in = openInstance(t, addresses(c, behind), keeping(dir), atOnce)
	wantStill(t, in, 0, codeValue, time.Second)
	events = in.Events(t.Context())
	must(t, c.Restart(others[0]))
	must(t, c.WaitReady(within(t, 30*time.Second), others[0]))
	leader(t, c)
	next := write(t, c, others[0], cluster.Flag("", "color", "blue"))
	t.Logf("the instance obeyed what came next %v after its acknowledgement", in.has(t, next).Round(time.Millisecond))
	if v := in.String("color", codeValue).Get(); v != "blue" || next <= revision {
		t.Errorf("the flag is %q at revision %d, want blue after %d", v, next, revision)
	}
	in.close(t)
	wantForward(t, events)
}

// missedWrites are more than are under way to a server that does not answer.
const missedWrites = 100

// wantBehind requires that a server knows what is old, but not what is new.
func wantBehind(t *testing.T, c *cluster.Cluster, i int, old, revision uint64) {
	t.Helper()
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		st, err := c.Status(t.Context(), i)
		if err == nil && (st.GetHeader().GetRevision() < old || st.GetHeader().GetRevision() >= revision) {
			t.Fatalf("server %d is at revision %d, want one from %d to %d", i, st.GetHeader().GetRevision(), old, revision-1)
		}
		return err
	}))
}

// wantForward requires that the views of an instance that is closed came in order.
func wantForward(t *testing.T, events <-chan client.Event) {
	t.Helper()
	last := uint64(0)
	for e := range events {
		if e.View != nil && e.View.Revision < last {
			t.Errorf("the view went from revision %d back to %d", last, e.View.Revision)
		}
		if e.View != nil {
			last = e.View.Revision
		}
	}
}

// wantStill requires that a value and a revision stay for a while.
func wantStill(t *testing.T, in *instance, revision uint64, value string, d time.Duration) {
	t.Helper()
	flag := in.String("color", codeValue)
	for began := time.Now(); time.Since(began) < d; time.Sleep(5 * time.Millisecond) {
		if v, s := flag.Get(), in.Status(); v != value || s.Revision < revision {
			t.Fatalf("the flag is %q at revision %d, want %q of %d: %+v", v, s.Revision, value, revision, s)
		}
	}
}
