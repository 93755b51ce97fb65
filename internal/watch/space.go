package watch

import (
	"slices"
	"sync"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// maxShared and maxSharedBytes bound the deltas that are held per namespace, the
// newest one excepted. Subscribers at the head need one; the others are for those
// that just fell behind. When there are more, the oldest is dropped, and whoever
// asks for it again has it made again.
const (
	maxShared      = 8
	maxSharedBytes = 8 << 20
)

// space is a namespace that has subscribers.
type space struct {
	name        string
	subscribers int   // guarded by Hub.mu
	bell        *bell // rings when the namespace has changed

	mu     sync.Mutex     // guards the fields below
	epoch  document.Epoch // of shared
	mod    uint64         // the namespace's mod_revision of shared
	shared []*Shared      // the newest last
}

func newSpace(name string) *space { return &space{name: name, bell: newBell()} }

// delta returns the delta of a view's namespace from a revision on, the one that
// others have got already if it is the same.
func (s *space) delta(v *state.View, n *state.Namespace, from uint64, done func(*Shared)) *Shared {
	base := n.Base(from)
	fresh := func() *Shared { return &Shared{from: base, to: v.Revision(), space: n, done: done} }
	s.mu.Lock()
	defer s.mu.Unlock()
	switch mod := n.ModRevision(); {
	case s.epoch != v.Epoch() || mod > s.mod:
		s.epoch, s.mod, s.shared = v.Epoch(), mod, nil
	case mod < s.mod:
		return fresh() // a view that was overtaken meanwhile
	}
	for _, have := range s.shared {
		// One made on a later view of the same content may be past this view; the
		// subscriber may not be taken there before the view is its own.
		if have.from == base && have.to <= v.Revision() {
			return have
		}
	}
	if len(s.shared) == maxShared {
		s.shared = slices.Delete(s.shared, 0, 1)
	}
	made := fresh()
	s.shared = append(s.shared, made)
	return made
}

// weigh notes that a delta was encoded and drops what is too much.
func (s *space) weigh(encoded *Shared, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	encoded.size = size
	total := 0
	for _, have := range s.shared {
		total += have.size
	}
	for len(s.shared) > 1 && total > maxSharedBytes {
		total -= s.shared[0].size
		s.shared = slices.Delete(s.shared, 0, 1)
	}
}
