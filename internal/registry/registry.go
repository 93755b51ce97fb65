package registry

import (
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/btree"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// MaxGone is how many instances without a session are remembered; the one that
	// left first is forgotten first.
	MaxGone = 10_000
	// MaxGoneAge is how long they are remembered.
	MaxGoneAge = 24 * time.Hour
	// MaxTallies is how many tallies there may be: ErrTooManyTallies.
	MaxTallies = 256
)

var (
	// ErrReplaced ends the session of a process whose instance is another process
	// now, and refuses one that comes when it is already.
	ErrReplaced = errors.New("another process has a session under this id")
	// ErrTooManyTallies refuses a tally.
	ErrTooManyTallies = errors.New("too many tallies")
)

// Registry is the instances that a server knows. Its methods may be called
// concurrently.
type Registry struct {
	mu      sync.Mutex
	spaces  map[string]*space // by namespace; none is empty
	gone    queue             // those without a session, who left first in front
	tallies int
	limit   int // of gone
}

// space is the instances of one namespace, and who counts them.
type space struct {
	instances btree.Map[key, *entry]
	entries   map[string]*entry // by id
	tallies   map[*Tally]struct{}
}

// entry is an instance at its place. One that moves to another place gets another
// entry, so that whoever is looking through them stays in order.
type entry struct {
	at key
	// is has the present state. It is changed under the registry's mutex only; an
	// acknowledgement changes nothing else.
	is      atomic.Pointer[Instance]
	session *Session // nil while it has none
	// before and after link those that have none.
	before, after *entry
}

// New returns a registry that knows nobody.
func New() *Registry { return &Registry{spaces: make(map[string]*space), limit: MaxGone} }

// Session is the connection of one process to the registry.
type Session struct {
	registry *Registry
	entry    *entry
	end      func(error)
}

// Join enters an instance whose session begins; the rest of its fields are unset.
// The instance is refused with ErrReplaced where another process has a session under
// its id and is newer, or has shown another certificate. Otherwise such a session is
// told ErrReplaced by its end function, which must not block and may be called at any
// time until Leave returns. Leave must be called when the session is over.
func (r *Registry) Join(now time.Time, i Instance, end func(error)) (*Session, error) {
	i.Since, i.LastSeen, i.Ack = now, time.Time{}, nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	s := r.space(i.Namespace)
	e, known := s.entries[i.Identity.GetId()]
	var was *Instance
	if known {
		was = e.is.Load()
	}
	switch {
	case !known:
	case e.session == nil:
		// Whoever comes back may have a lower incarnation, as after its clock was set
		// back. With nobody else there it is the instance.
		r.gone.remove(e)
	case was.Identity.GetIncarnation() > i.Identity.GetIncarnation(), was.AuthenticatedAs != i.AuthenticatedAs:
		return nil, ErrReplaced
	default:
		e.session.end(ErrReplaced)
	}
	if !known || e.at != i.key() {
		e = s.place(e, i.key())
	}
	e.session = &Session{registry: r, entry: e, end: end}
	s.change(e, was, &i)
	return e.session, nil
}

// place makes an entry at a place, for an instance that was at another one unless old
// is nil. The caller holds the lock.
func (s *space) place(old *entry, at key) *entry {
	e, edit := &entry{at: at}, &btree.Edit{}
	if old != nil { // it has moved to another service
		old.session = nil
		s.instances.Delete(edit, old.at)
	}
	s.instances.Put(edit, at, e)
	s.entries[at.id] = e
	return e
}

// Ack takes note of what the instance obeys; the message must not be changed any
// more. One from a session that was replaced is ignored.
func (s *Session) Ack(ack *holdfastv1.Ack) {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if s.entry.session != s {
		return
	}
	was := s.entry.is.Load()
	changed := *was
	changed.Ack = ack
	s.registry.spaces[was.Namespace].change(s.entry, was, &changed)
}

// Leave ends the session; the instance is remembered. It may be called again.
func (s *Session) Leave(now time.Time) {
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.entry.session != s {
		return
	}
	was := s.entry.is.Load()
	changed := *was
	changed.LastSeen = now
	s.entry.session = nil
	r.spaces[was.Namespace].change(s.entry, was, &changed)
	r.gone.push(s.entry)
	r.forget(now)
}

// forget drops those who left too long ago, and the first of too many. The caller
// holds the lock.
func (r *Registry) forget(now time.Time) {
	for e := r.gone.first; e != nil; e = r.gone.first {
		i := e.is.Load()
		if r.gone.n <= r.limit && now.Sub(i.LastSeen) <= MaxGoneAge {
			return
		}
		r.gone.remove(e)
		s := r.spaces[i.Namespace]
		delete(s.entries, e.at.id)
		s.instances.Delete(&btree.Edit{}, e.at)
		r.drop(i.Namespace)
	}
}

// space returns that of a namespace. The caller holds the lock.
func (r *Registry) space(namespace string) *space {
	s, ok := r.spaces[namespace]
	if !ok {
		s = &space{entries: make(map[string]*entry), tallies: make(map[*Tally]struct{})}
		r.spaces[namespace] = s
	}
	return s
}

// drop forgets an empty space. The caller holds the lock.
func (r *Registry) drop(namespace string) {
	if s := r.spaces[namespace]; len(s.entries) == 0 && len(s.tallies) == 0 {
		delete(r.spaces, namespace)
	}
}

// change gives an entry another state and tells the tallies. The caller holds the
// lock.
func (s *space) change(e *entry, was, is *Instance) {
	e.is.Store(is)
	for t := range s.tallies {
		t.change(was, is)
	}
}

// Instances returns the instances that a namespace has now, in the order of service
// and id, each as it is when its turn comes.
func (r *Registry) Instances(now time.Time, namespace string) iter.Seq[*Instance] {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	s, ok := r.spaces[namespace]
	if !ok {
		return func(func(*Instance) bool) {}
	}
	snapshot := s.instances
	return func(yield func(*Instance) bool) {
		for _, e := range snapshot.All() {
			if !yield(e.is.Load()) {
				return
			}
		}
	}
}

// Count returns how many instances have a session and do not obey what their
// namespace demands, which the function returns.
func (r *Registry) Count(demand func(namespace string) Demand) (behind int) {
	r.mu.Lock()
	spaces := make(map[string]btree.Map[key, *entry], len(r.spaces))
	for name, s := range r.spaces {
		spaces[name] = s.instances
	}
	r.mu.Unlock()
	for name, instances := range spaces {
		demanded := demand(name)
		for _, e := range instances.All() {
			if i := e.is.Load(); i.Connected() && !i.Obeys(demanded) {
				behind++
			}
		}
	}
	return behind
}

// queue links entries in the order in which they came.
type queue struct {
	first, last *entry
	n           int
}

func (q *queue) push(e *entry) {
	e.before = q.last
	if q.last == nil {
		q.first = e
	} else {
		q.last.after = e
	}
	q.last = e
	q.n++
}

func (q *queue) remove(e *entry) {
	if e.before == nil {
		q.first = e.after
	} else {
		e.before.after = e.after
	}
	if e.after == nil {
		q.last = e.before
	} else {
		e.after.before = e.before
	}
	e.before, e.after = nil, nil
	q.n--
}
