package watch

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// TestSharedIsBounded asks from many places.
func TestSharedIsBounded(t *testing.T) {
	c := newCluster(t)
	var cursors []Cursor
	for i := range 3 * maxShared {
		c.do(write(put("a", fmt.Sprint(i), "1")))
		cursors = append(cursors, c.cursor())
	}
	c.do(write(put("a", "last", "1")))
	keep := c.subscribe("a", Cursor{})
	defer keep.Close()
	for i, at := range cursors {
		s := c.subscribe("a", at)
		e, err := s.Next(t.Context(), nil)
		if err != nil || e.Kind != Delta || len(e.Delta.Delta().Puts) != len(cursors)-i {
			t.Fatalf("from %d: %+v %v", at.Revision, e, err)
		}
		s.Close()
	}
	if held := len(keep.space.shared); held != maxShared {
		t.Fatalf("%d deltas held", held)
	}
	for _, shared := range slices.Clone(keep.space.shared) {
		shared.Encode(func(document.Delta) [][]byte { return [][]byte{make([]byte, maxSharedBytes/2+1)} })
	}
	if held := len(keep.space.shared); held != 1 {
		t.Fatalf("%d large deltas held", held)
	}
}

// TestDeltasOfOlderViews asks on views in an order in which subscribers may come
// to look at them. Nobody is taken past the view that he looks at, nor left behind
// by what was made on an older one.
func TestDeltasOfOlderViews(t *testing.T) {
	c := newCluster(t)
	c.do(write(put("a", "x", "1")))
	c.do(write(put("a", "y", "1")))
	two := c.machine.View()
	c.do(write(put("b", "x", "1")))
	three := c.machine.View()
	c.do(write(put("a", "x", "2")))
	four := c.machine.View()

	s := newSpace("a")
	ask := func(v *state.View, from uint64, names ...string) *Shared {
		t.Helper()
		shared := s.delta(v, v.Namespace("a"), from, nil)
		if !shared.resolve() || shared.to > v.Revision() || shared.to < v.Namespace("a").ModRevision() {
			t.Fatalf("a delta to %d on the view of %d", shared.to, v.Revision())
		}
		var have []string
		for _, r := range shared.Delta().Puts {
			have = append(have, r.Name)
		}
		if !slices.Equal(have, names) {
			t.Fatalf("on the view of %d from %d: %v, want %v", v.Revision(), from, have, names)
		}
		return shared
	}
	later := ask(three, 1, "y")
	if earlier := ask(two, 1, "y"); earlier == later {
		t.Fatal("a subscriber is taken to revision 3 on the view of 2")
	}
	if ask(three, 1, "y") != later {
		t.Fatal("what was there is not shared")
	}
	newest := ask(four, 1, "y", "x")
	ask(two, 0, "x", "y")
	ask(two, 1, "y")
	if ask(four, 1, "y", "x") != newest || ask(four, 2, "x") == newest {
		t.Fatal("what was there is not shared, or what was not is")
	}
	if len(s.shared) != 2 {
		t.Fatalf("%d deltas are held, of which 2 are of the newest content", len(s.shared))
	}
}

// TestBellPassesAtOnce lets several subscribers take tokens at the same time.
func TestBellPassesAtOnce(t *testing.T) {
	b := newBell()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2_000 {
				heard := b.listen()
				b.ring()
				select {
				case <-heard:
				case <-b.token:
					b.pass()
					<-heard
				}
			}
		})
	}
	all.Wait()
}
