package session

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/mirror"
)

// TestServerConfirmsTheDisk: who finds the disk's view confirmed tells its handler.
func TestServerConfirmsTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := stored(t, n, w)
		s, a := n.open(withDir(dir, l), "a:1")
		defer end(t, s, a)
		n.serve("a:1", &server{truth: w})
		wait(30 * time.Second)
		if c := a.change(); c.Source != FromServer || len(c.Delta.Puts) != 0 || c.Replace {
			t.Errorf("the handler was told %+v last", c)
		}
		if len(a.changes) != 2 {
			t.Errorf("%d changes", len(a.changes))
		}
	})
}

// TestUnreadableFilesStay: what cannot be read at the moment may be as good as ever.
func TestUnreadableFilesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := stored(t, n, w)
		path := filepath.Join(dir, "holdfast-default.cache")
		if err := os.Rename(path, path+".good"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, path); err != nil { // a loop, which nobody can open
			t.Fatal(err)
		}
		s, a := n.open(withDir(dir, l), "a:1")
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("a file that could not be read is gone: %v", err)
		}
		l.has(t, "cannot be read", path)
		n.serve("a:1", &server{truth: w})
		wait(30 * time.Second)
		end(t, s, a)
		if _, _, err := mirror.DecodeCache(read1(t, path), "default"); err != nil {
			t.Error(err)
		}
	})
}

// TestStopBetweenCacheAndMark: the cache is written first, so one of another cluster is
// newer than the mark.
func TestStopBetweenCacheAndMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		w.put("a", "2")
		dir := stored(t, n, w)
		mark := read1(t, filepath.Join(dir, "holdfast-default.mark"))
		foreign := epochOf(2)
		foreign.Lineage[0]++
		srv := n.serve("a:1", &server{truth: w})
		s, a := n.open(withDir(dir, l), "a:1")
		wait(2 * time.Second)
		w.become(foreign, 1)
		wait(10 * time.Second)
		a.has(w)
		end(t, s, a)
		n.kill("a:1", srv)
		if err := os.WriteFile(filepath.Join(dir, "holdfast-default.mark"), mark, 0o600); err != nil {
			t.Fatal(err)
		}
		s, a = n.open(withDir(dir, l), "a:1")
		defer end(t, s, a)
		if s.Status().Source != Disk {
			t.Error("starts without a view")
		}
		n.serve("a:1", &server{truth: w})
		w.put("a", "3")
		wait(10 * time.Second)
		a.has(w)
	})
}

// TestStateTimeOfAStranger: what is refused says nothing about the time of what is taken.
func TestStateTimeOfAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := stored(t, n, w)
		if err := os.Remove(filepath.Join(dir, "holdfast-default.cache")); err != nil {
			t.Fatal(err)
		}
		old := newTruth()
		old.put("a", "1")
		old.epoch = epochOf(0)
		old.ahead = 24 * time.Hour
		stale := n.serve("a:1", &server{truth: old})
		s, a := n.open(withDir(dir, l), "a:1")
		defer end(t, s, a)
		wait(10 * time.Second)
		n.kill("a:1", stale)
		n.serve("a:1", &server{truth: w})
		wait(30 * time.Second)
		a.has(w)
		if got := s.StateTime(); got > time.Now().Add(time.Minute).UnixMilli() {
			t.Errorf("state time is %v ahead", time.Until(time.UnixMilli(got)))
		}
	})
}
