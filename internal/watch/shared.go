package watch

import (
	"sync"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// Shared is the delta of a namespace that all subscribers at the same place get.
// It is worked out once and encoded once. Any number of goroutines may use it.
type Shared struct {
	from, to uint64

	find  sync.Once
	space *state.Namespace // nil once found
	delta document.Delta
	known bool

	encode  sync.Once
	encoded [][]byte
	done    func(*Shared) // called when it is encoded
	size    int           // of encoded; guarded by the mu of its space
}

// resolve works the delta out; false if it is not known any more.
func (s *Shared) resolve() bool {
	s.find.Do(func() {
		s.delta, s.known = s.space.Since(s.from)
		s.space = nil
	})
	return s.known
}

// Delta returns the delta. Nobody may change it.
//
// From is the lowest revision that it fits: the subscriber may be past it, by
// revisions that did not change the namespace.
func (s *Shared) Delta() document.Delta { return s.delta }

// Encode returns the delta as encode does. It is called for the first subscriber
// only; all get the same bytes, which nobody may change, so all must ask for the
// same encoding.
func (s *Shared) Encode(encode func(document.Delta) [][]byte) [][]byte {
	s.encode.Do(func() {
		s.encoded = encode(s.delta)
		s.done(s)
	})
	return s.encoded
}
