package session

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
)

// stored leaves behind a directory with a cache of a truth.
func stored(t *testing.T, n *network, w *truth) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	srv := n.serve("a:1", &server{truth: w})
	s, a := n.open(func(c *Config) { c.Dir = dir }, "a:1")
	synctest.Wait()
	a.has(w)
	end(t, s, a)
	n.kill("a:1", srv)
	return dir
}

func withDir(dir string, l *logs) func(*Config) {
	return func(c *Config) { c.Dir, c.Logger = dir, l.logger() }
}

// TestStartsFromDisk has the view when Open returns, without any server.
func TestStartsFromDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := stored(t, n, w)
		for _, path := range []string{"holdfast-default.cache", "holdfast-default.mark", "holdfast-default.lock"} {
			if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", path, info, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		wait(time.Hour) // the machine is off
		before := time.Now()
		s, a := n.open(withDir(dir, l), "a:1")
		a.has(w)
		if c := a.change(); c.Source != Disk || !c.Replace || c.StateTime != time.Now().UnixMilli() || !time.Now().Equal(before) {
			t.Errorf("installed %+v after %v", c, time.Since(before))
		}
		if st := s.Status(); st.Source != Disk || st.Connected || st.Disk != nil {
			t.Errorf("status %+v", st)
		}
		w.put("a", "2")
		srv := n.serve("a:1", &server{truth: w})
		wait(10 * time.Second)
		a.has(w)
		hello := srv.hellos[0]
		if at, _ := w.now(); hello.Cursor.GetRevision() != at.Revision-1 || len(hello.Root) != 32 || hello.Source != 2 || a.change().Replace {
			t.Errorf("hello %v, then %+v", hello, a.change())
		}
		end(t, s, a)
	})
}

// TestCloseWritesTheLast writes what came just before the end.
func TestCloseWritesTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		dir := t.TempDir()
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(func(c *Config) { c.Dir = dir }, "a:1")
		synctest.Wait()
		w.put("a", "2") // within the pause after the first write
		synctest.Wait()
		end(t, s, a)
		n.kill("a:1", srv)
		s, a = n.open(func(c *Config) { c.Dir = dir }, "a:1")
		a.has(w)
		end(t, s, a)
	})
}

// TestDiskIsWrittenSeldom coalesces changes, and does not write the content again
// when only the revision moved.
func TestDiskIsWrittenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		dir := t.TempDir()
		n.serve("a:1", &server{truth: w})
		s, a := n.open(func(c *Config) { c.Dir = dir }, "a:1")
		defer end(t, s, a)
		wait(2 * time.Second)
		cache, mark := filepath.Join(dir, "holdfast-default.cache"), filepath.Join(dir, "holdfast-default.mark")
		writes := func(path string, during func()) int {
			before, n := read1(t, path), 0
			for range 20 {
				during()
				if now := read1(t, path); !bytes.Equal(before, now) {
					before = now
					n++
				}
			}
			return n
		}
		if n := writes(cache, func() { w.put("a", fmt.Sprint(time.Now().UnixNano())); wait(100 * time.Millisecond) }); n < 1 || n > 3 {
			t.Errorf("the cache was written %d times in 2 s", n)
		}
		wait(2 * time.Second)
		if n := writes(cache, func() { w.put("", ""); wait(time.Second) }); n != 0 {
			t.Errorf("the cache was written %d times although it was the same", n)
		}
		if n := writes(mark, func() { w.put("", ""); wait(2 * time.Second) }); n != 20 {
			t.Errorf("the mark was written %d times for 20 revisions", n)
		}
		wait(2 * time.Second)
		if n := writes(mark, func() { wait(6 * time.Second) }); n != 4 {
			t.Errorf("the mark was written %d times in 2 quiet minutes", n)
		}
	})
}

func read1(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPoisonedFiles refuses each kind of damaged file with a clear line, moves it
// aside, and goes on without it, never behind the mark.
func TestPoisonedFiles(t *testing.T) {
	const cache, mark = "holdfast-default.cache", "holdfast-default.mark"
	for name, c := range map[string]struct {
		file   string
		damage func([]byte) []byte
		words  string
		usable bool // the rest
	}{
		"truncated":       {cache, func(b []byte) []byte { return b[:len(b)/2] }, "damaged", false},
		"empty":           {cache, func([]byte) []byte { return nil }, "damaged", false},
		"flipped bits":    {cache, func(b []byte) []byte { b[len(b)/2] ^= 4; return b }, "checksum", false},
		"other version":   {cache, func(b []byte) []byte { b[16]++; return b }, "another version", false},
		"other namespace": {cache, func([]byte) []byte { return foreignCache(t) }, "another namespace", false},
		"older":           {cache, func([]byte) []byte { return olderCache(t, "default") }, "older than the mark", false},
		"truncated mark":  {mark, func(b []byte) []byte { return b[:len(b)/2] }, "damaged", true},
		"huge":            {cache, func([]byte) []byte { return nil }, "at most 268435456 are read", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w, l := newNetwork(t), newTruth(), &logs{}
				w.put("a", "1")
				w.put("a", "2")
				dir := stored(t, n, w)
				path := filepath.Join(dir, c.file)
				if err := os.WriteFile(path, c.damage(read1(t, path)), 0o600); err != nil {
					t.Fatal(err)
				}
				if name == "huge" {
					if err := os.Truncate(path, maxFileBytes+1); err != nil { // takes no space
						t.Fatal(err)
					}
				}
				s, a := n.open(withDir(dir, l), "old:1", "a:1")
				defer end(t, s, a)
				if got := s.Status().Source == Disk; got != c.usable {
					t.Errorf("installed: %v", got)
				}
				l.has(t, "a cache file is refused", path, c.words, path+".corrupt")
				if _, err := os.Stat(path + ".corrupt"); err != nil {
					t.Error(err)
				}
				old := newTruth() // a server that lags behind the mark
				old.put("a", "1")
				n.serve("old:1", &server{truth: old})
				wait(30 * time.Second)
				if at := s.Status().Position; at.Set() && at.Revision < 2 {
					t.Errorf("went back to %s", at)
				}
				n.serve("a:1", &server{truth: w})
				wait(time.Minute)
				a.has(w)
				if _, _, err := mirror.DecodeCache(read1(t, filepath.Join(dir, cache)), "default"); err != nil {
					t.Errorf("the cache is not written again: %v", err)
				}
			})
		})
	}
}

func foreignCache(t *testing.T) []byte { t.Helper(); return olderCache(t, "other") }

func olderCache(t *testing.T, namespace string) []byte {
	t.Helper()
	w := newTruth()
	w.put("a", "0")
	r := w.content(1)[document.Key{Kind: document.Flag, Name: "a"}]
	m, err := mirror.New(namespace, mirror.Position{}).Apply(mirror.Update{Epoch: epochOf(1), Replace: true, Delta: document.Delta{
		To: 1, Root: rootOf(w.content(1)), Puts: []*document.Resource{r},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := mirror.EncodeCache(&b, m, mirror.Stamp{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSecondProcess reads what the first one writes, writes nothing, says so, and
// takes over when the first one has gone.
func TestSecondProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := t.TempDir()
		n.serve("a:1", &server{truth: w})
		first, a1 := n.open(func(c *Config) { c.Dir = dir }, "a:1")
		wait(2 * time.Second)
		second, a2 := n.open(withDir(dir, l), "a:1")
		synctest.Wait()
		if !errors.Is(second.Status().Disk, ErrLocked) || a2.changes[0].Source != Disk {
			t.Errorf("status %+v, first %+v", second.Status(), a2.changes[0])
		}
		l.has(t, "another process has locked the cache", "holdfast-default.lock")
		before := read1(t, filepath.Join(dir, "holdfast-default.mark"))
		end(t, first, a1)
		w.put("a", "2")
		wait(2 * time.Minute)
		if second.Status().Disk != nil || bytes.Equal(before, read1(t, filepath.Join(dir, "holdfast-default.mark"))) {
			t.Errorf("did not take over: %v", second.Status().Disk)
		}
		a2.has(w)
		end(t, second, a2)
		n.mu.Lock()
		clear(n.listeners)
		n.mu.Unlock()
		third, a3 := n.open(func(c *Config) { c.Dir = dir }, "a:1")
		a3.has(w)
		end(t, third, a3)
	})
}

// TestLockedFilesStay leaves a damaged file to the process that has the lock.
func TestLockedFilesStay(t *testing.T) {
	dir, l := t.TempDir(), &logs{}
	one := openDisk(dir, "default", l.logger())
	defer one.release()
	if err := os.WriteFile(one.cachePath(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	two := openDisk(dir, "default", l.logger())
	defer two.release()
	if m, _, _ := two.load(0); m.Position().Set() || !errors.Is(two.failure(), ErrLocked) {
		t.Errorf("loaded %s, %v", m.Position(), two.failure())
	}
	if got := read1(t, one.cachePath()); string(got) != "x" {
		t.Errorf("the file is %q", got)
	}
}

// TestLateComerDoesNotSetTheDiskBack keeps what another process has written since.
func TestLateComerDoesNotSetTheDiskBack(t *testing.T) {
	dir, l := t.TempDir(), &logs{}
	newer := openDisk(dir, "default", l.logger())
	late := openDisk(dir, "default", l.logger())
	m, err := mirror.New("default", mirror.Position{}).Apply(mirror.Update{Epoch: epochOf(1), Replace: true, Delta: document.Delta{To: 5}})
	if err != nil {
		t.Fatal(err)
	}
	old, err := mirror.New("default", mirror.Position{}).Apply(mirror.Update{Epoch: epochOf(1), Replace: true, Delta: document.Delta{To: 4}})
	if err != nil {
		t.Fatal(err)
	}
	if err := newer.save(m, markOf(m)); err != nil {
		t.Fatal(err)
	}
	newer.release()
	if err := late.save(old, markOf(old)); !errors.Is(err, mirror.ErrBehind) {
		t.Errorf("got %v", err)
	}
	late.release()
}

func markOf(m *mirror.Mirror) mirror.Mark {
	return mirror.Mark{Position: m.Position(), Root: m.Root()}
}

// TestAgeGoesOn tells how long no server has been heard, also by a process before.
func TestAgeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		dir := t.TempDir()
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(func(c *Config) { c.Dir = dir }, "a:1")
		wait(time.Hour)
		heard := s.Status().Heard
		n.kill("a:1", srv)
		wait(time.Hour)
		end(t, s, a)
		wait(time.Hour)
		s, a = n.open(func(c *Config) { c.Dir = dir }, "a:1")
		wait(time.Minute)
		if got := s.Status(); got.Connected || got.Source != Disk || got.Heard.Sub(heard).Abs() > time.Second {
			t.Errorf("heard %v, want %v; %+v", got.Heard, heard, got)
		}
		end(t, s, a)
	})
}

// TestNamespacesShareADirectory keeps them apart, whatever they are called.
func TestNamespacesShareADirectory(t *testing.T) {
	dir, l := t.TempDir(), &logs{}
	names := []string{"default", "a/b", "../a", "..", "größe", strings.Repeat("x", 253), strings.Repeat("x", 252) + "y"}
	for i, name := range names {
		d := openDisk(dir, name, l.logger())
		m, err := mirror.New(name, mirror.Position{}).Apply(mirror.Update{Epoch: epochOf(1), Replace: true, Delta: document.Delta{To: uint64(i)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.save(m, markOf(m)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		d.release()
	}
	for i, name := range names {
		d := openDisk(dir, name, l.logger())
		if m, _, _ := d.load(0); m.Position() != (mirror.Position{Epoch: epochOf(1), Revision: uint64(i)}) {
			t.Errorf("%q is at %s", name, m.Position())
		}
		d.release()
	}
	if all, _ := os.ReadDir(dir); len(all) != 3*len(names) {
		t.Errorf("%d files for %d namespaces", len(all), len(names))
	}
}

// TestUnusableDirectory works without a disk, and says so.
func TestUnusableDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		n.serve("a:1", &server{truth: w})
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s, a := n.open(withDir(file, l), "a:1")
		defer end(t, s, a)
		wait(time.Hour)
		a.has(w)
		if s.Status().Disk == nil {
			t.Error("the status does not tell")
		}
		l.has(t, "the cache on disk is not written", file)
		if n := strings.Count(l.buf.String(), "not written"); n > 3 {
			t.Errorf("logged %d times in an hour", n)
		}
	})
}

// TestWriteFailure leaves the files that were there, and writes again when it can.
func TestWriteFailure(t *testing.T) {
	dir, l := t.TempDir(), &logs{}
	d := openDisk(dir, "default", l.logger())
	defer d.release()
	at := func(revision uint64, name string) *mirror.Mirror {
		r := &document.Resource{Key: document.Key{Kind: document.Flag, Name: name}, Spec: []byte("1")}
		m, err := mirror.New("default", mirror.Position{}).Apply(mirror.Update{Epoch: epochOf(1), Replace: true, Delta: document.Delta{
			To: revision, Root: rootOf(map[document.Key]*document.Resource{r.Key: r}), Puts: []*document.Resource{r},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	save := func(m *mirror.Mirror) error { return d.save(m, markOf(m)) }
	if err := save(at(1, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.cachePath()+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := save(at(2, "b")); err == nil {
		t.Fatal("written over a directory")
	}
	if m, err := mirror.DecodeMark(read1(t, d.markPath()), "default"); err != nil || m.Position.Revision != 1 {
		t.Errorf("the mark went ahead of the cache: %v, %v", m, err)
	}
	if err := os.Remove(d.cachePath() + ".tmp"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := save(at(2, "b")); err != nil {
		t.Fatal(err)
	}
	if m, _, _ := d.load(0); m.Position().Revision != 2 {
		t.Errorf("loaded %s", m.Position())
	}
}

// TestRestartDoesNotProlong goes by the later of what cache and mark tell, also when
// the wall clock was set back, and by a server rather than by either.
func TestRestartDoesNotProlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := t.TempDir()
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(func(c *Config) { c.Dir = dir }, "a:1")
		wait(time.Hour) // the cache is of the first second
		ended := time.Now().UnixMilli()
		end(t, s, a)
		n.kill("a:1", srv)
		d := openDisk(dir, "default", l.logger())
		for wall, want := range map[int64]int64{ended: ended, ended + 5000: ended + 5000, ended - 7_200_000: ended} {
			if _, now, _ := d.load(wall); now != want {
				t.Errorf("%d ms after the end it is %d, want %d", wall-ended, now, want)
			}
		}
		d.release()

		// The wall clock was a day ahead while the process was down.
		cache, stamp, err := mirror.DecodeCache(read1(t, d.cachePath()), "default")
		if err != nil {
			t.Fatal(err)
		}
		stamp.State += 24 * 3600 * 1000
		var b bytes.Buffer
		if err := mirror.EncodeCache(&b, cache, stamp); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.cachePath(), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		s, a = n.open(withDir(dir, l), "a:1")
		if got := a.change().StateTime; got < ended+23*3600*1000 {
			t.Errorf("the disk tells %d", got)
		}
		n.serve("a:1", &server{truth: w})
		wait(10 * time.Second)
		i := slices.IndexFunc(a.changes, func(c Change) bool { return c.Replace && c.StateTime < ended+3600*1000 })
		if i < 1 || len(a.changes[i].Delta.Puts) != 1 || time.Now().UnixMilli()-s.StateTime() > 1 || s.StateTime() > time.Now().UnixMilli() { // servers tell whole milliseconds
			t.Errorf("state time %d after %d changes, want %d", s.StateTime(), len(a.changes), time.Now().UnixMilli())
		}
		l.has(t, "the state time on disk was too late")
		a.has(w)
		end(t, s, a)
	})
}
