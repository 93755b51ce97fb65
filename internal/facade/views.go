package facade

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// views keeps the namespaces compiled, as an instance without id and labels obeys
// them. A namespace is compiled when it is asked for first, and brought up to date
// when it is asked for after a change.
type views struct {
	state func() *state.View
	clock func() time.Time // of the state
	empty *flags.View
	limit int

	spaces atomic.Pointer[map[string]*space] // copied on write
	mu     sync.Mutex                        // guards the writing of spaces
}

// space is one namespace.
type space struct {
	current atomic.Pointer[compiled]
	mu      sync.Mutex // guards the writing of current
}

// compiled is a namespace at one index of the state.
type compiled struct {
	*flags.View
	epoch document.Epoch
	index uint64 // of the state that it was compared with last
	// revision is up to which changes are in the view, mod the last one that was
	// one of the namespace.
	revision, mod uint64
}

func newViews(current func() *state.View, clock func() time.Time) *views {
	v := &views{state: current, clock: clock, empty: flags.NewView(flags.Instance{}), limit: maxNamespaces}
	v.spaces.Store(&map[string]*space{})
	return v
}

// at returns a namespace as it is now; one that holds nothing costs nothing.
func (v *views) at(namespace string) *compiled {
	now := v.state()
	s := (*v.spaces.Load())[namespace]
	if s != nil {
		if c := s.current.Load(); c.index == now.Index() && c.epoch == now.Epoch() && !v.due(c) {
			return c
		}
	}
	content := now.Namespace(namespace)
	if content.Len() == 0 {
		return &compiled{
			View: v.empty, epoch: now.Epoch(), index: now.Index(),
			revision: now.Revision(), mod: content.ModRevision(),
		}
	}
	if s == nil {
		s = v.open(now, namespace)
	}
	return s.catchUp(now, content, v.clock)
}

// due tells whether an override has ended that the state still holds: nobody
// leads who would end it.
func (v *views) due(c *compiled) bool {
	return c.NextEnd() > 0 && v.clock().UnixMilli() >= c.NextEnd()
}

// open returns the namespace's entry, a new one if need be. When there are too
// many, those that hold nothing any more go.
func (v *views) open(now *state.View, namespace string) *space {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := *v.spaces.Load()
	if s := old[namespace]; s != nil {
		return s
	}
	spaces := maps.Clone(old)
	if len(spaces) >= v.limit {
		maps.DeleteFunc(spaces, func(name string, _ *space) bool { return now.Namespace(name).Len() == 0 })
	}
	s := &space{}
	s.current.Store(&compiled{View: v.empty})
	spaces[namespace] = s
	v.spaces.Store(&spaces)
	return s
}

// catchUp brings the namespace to a state, or leaves it past it.
func (s *space) catchUp(now *state.View, content *state.Namespace, clock func() time.Time) *compiled {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.current.Load()
	same := have.epoch == now.Epoch()
	if have.index >= now.Index() && (same || have.epoch.Counter > now.Epoch().Counter) {
		return s.expire(have, clock)
	}
	next := &compiled{View: have.View, epoch: now.Epoch(), index: now.Index(), revision: now.Revision(), mod: content.ModRevision()}
	switch delta, known := content.Since(have.revision); {
	case !same || !known:
		// Another history, or too long ago: from nothing.
		next.View = flags.NewView(flags.Instance{}).Update(whole(now, content))
	case len(delta.Puts)+len(delta.Deletes) > 0:
		next.View = have.Update(delta)
	}
	return s.expire(next, clock)
}

// expire shows a namespace without the overrides that have ended. The caller holds
// the lock.
func (s *space) expire(c *compiled, clock func() time.Time) *compiled {
	if c.NextEnd() > 0 {
		if view := c.Expire(clock().UnixMilli()); view != c.View {
			ended := *c
			ended.View = view
			c = &ended
		}
	}
	s.current.Store(c)
	return c
}

// whole is a namespace as a delta onto nothing.
func whole(now *state.View, content *state.Namespace) document.Delta {
	d := document.Delta{Namespace: content.Name(), To: now.Revision(), Root: content.Root()}
	content.Ascend(0, "", "", func(r *document.Resource) bool {
		d.Puts = append(d.Puts, r)
		return true
	})
	return d
}

// version names the content: servers of a cluster with the same content have the
// same version.
func (c *compiled) version() version {
	h := sha256.New()
	_, _ = h.Write(c.epoch.Lineage[:])
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, c.epoch.Nonce))
	return version{c.epoch.Counter, c.mod, binary.BigEndian.Uint32(h.Sum(nil))}
}

// version tells contents of a namespace apart, and, of one history, which is
// newer.
type version struct {
	counter, mod uint64
	history      uint32 // hash of what tells histories of one counter apart
}

// String is the inverse of parseVersion.
func (v version) String() string { return fmt.Sprintf("%d.%d.%x", v.counter, v.mod, v.history) }

func parseVersion(text string) (v version, ok bool) {
	n, err := fmt.Sscanf(text, "%d.%d.%x", &v.counter, &v.mod, &v.history)
	return v, n == 3 && err == nil
}

// before tells whether v is known to be older than another version.
func (v version) before(other version) bool {
	if v.counter != other.counter {
		return v.counter < other.counter
	}
	return v.history == other.history && v.mod < other.mod
}
