package mirror

import (
	"errors"
	"fmt"
	"iter"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
)

// MaxBytes is the most that a mirror holds, and the most that one update may bring,
// counted by document.Resource.Size: ErrTooLarge. It is twice what servers hold, for
// servers of a later version.
const MaxBytes = 128 << 20

var (
	// ErrGap refuses a difference that begins after what the mirror holds.
	ErrGap = errors.New("changes are missing")
	// ErrRoot refuses an update after which the mirror would not be what the server
	// has.
	ErrRoot = errors.New("the content is not that of the server")
	// ErrTooLarge refuses more than MaxBytes.
	ErrTooLarge = errors.New("the namespace is too large")
)

// NeedsSnapshot tells whether an error of Apply is healed by asking for a snapshot.
func NeedsSnapshot(err error) bool { return errors.Is(err, ErrGap) || errors.Is(err, ErrRoot) }

// Update is what a server has told, all chunks together.
type Update struct {
	Epoch document.Epoch
	// Replace tells that the delta is the whole namespace, from 0 on.
	Replace bool
	// Delta is what changed. A message of progress is a delta without changes.
	Delta document.Delta
}

// Position returns where an instance is that has taken the update in.
func (u *Update) Position() Position { return Position{u.Epoch, u.Delta.To} }

// Mirror is a namespace as an instance holds it. It is immutable; any number of
// goroutines may use it.
type Mirror struct {
	namespace string
	at        Position
	floor     Position
	bytes     int
	limit     int
	tree      document.Tree
	resources btree.Map[document.Key, *document.Resource]
}

// New returns a mirror that holds nothing and never goes back behind floor, which
// may be the zero value.
func New(namespace string, floor Position) *Mirror {
	return &Mirror{namespace: namespace, floor: floor, limit: MaxBytes}
}

// Namespace returns the name of the namespace.
func (m *Mirror) Namespace() string { return m.namespace }

// Position returns what the mirror reflects; it is not set while it holds nothing.
func (m *Mirror) Position() Position { return m.at }

// Floor returns the position that the mirror never goes back behind: the own one, or
// that of New as long as that one is later.
func (m *Mirror) Floor() Position { return m.floor }

// Root returns the Merkle root of what the mirror holds.
func (m *Mirror) Root() document.Root { return m.tree.Root() }

// Len returns the number of resources.
func (m *Mirror) Len() int { return m.resources.Len() }

// Bytes returns what the resources count, by document.Resource.Size.
func (m *Mirror) Bytes() int { return m.bytes }

// All iterates over the resources in the order of their keys.
func (m *Mirror) All() iter.Seq2[document.Key, *document.Resource] { return m.resources.All() }

// Whole returns the update that makes an empty mirror this one.
func (m *Mirror) Whole() Update {
	d := document.Delta{Namespace: m.namespace, To: m.at.Revision, Root: m.Root(), Puts: make([]*document.Resource, 0, m.Len())}
	for _, r := range m.All() {
		d.Puts = append(d.Puts, r)
	}
	return Update{Epoch: m.at.Epoch, Replace: true, Delta: d}
}

// Apply returns the mirror after an update, in the time of what it changes. The
// errors are those of Position.Admits, ErrGap, ErrRoot and ErrTooLarge; m stays what
// it is in any case.
func (m *Mirror) Apply(u Update) (*Mirror, error) {
	to := u.Position()
	if err := m.floor.Admits(to); err != nil {
		return nil, err
	}
	next := *m
	switch {
	case u.Replace:
		next = Mirror{namespace: m.namespace, limit: m.limit}
	case m.at.Epoch != u.Epoch:
		return nil, fmt.Errorf("%w: a change to %s was told, but %s is held", ErrGap, to, m.at)
	case u.Delta.From > m.at.Revision:
		return nil, fmt.Errorf("%w: a change from revision %d to %s was told, but %s is held", ErrGap, u.Delta.From, to, m.at)
	}
	next.at, next.floor = to, to
	next.take(u.Delta)
	switch {
	case next.bytes > next.limit:
		return nil, fmt.Errorf("%w: %d bytes at %s; at most %d are kept", ErrTooLarge, next.bytes, to, next.limit)
	case next.Root() != u.Delta.Root:
		return nil, fmt.Errorf("%w: at %s the root is %x instead of %x", ErrRoot, to, next.tree.Root(), u.Delta.Root)
	}
	return &next, nil
}

// take changes a mirror that nobody else has.
func (m *Mirror) take(d document.Delta) {
	edit := new(btree.Edit)
	for _, r := range d.Puts {
		if was, ok := m.resources.Get(r.Key); ok {
			m.bytes -= was.Size()
		}
		m.bytes += r.Size()
		m.resources.Put(edit, r.Key, r)
	}
	for _, t := range d.Deletes {
		if was, ok := m.resources.Delete(edit, t.Key); ok {
			m.bytes -= was.Size()
		}
	}
	m.tree = m.grown(d)
}

// grown returns the tree after a change.
func (m *Mirror) grown(d document.Delta) document.Tree {
	if m.tree.Len() == 0 { // much faster than one by one
		return document.Build(func(yield func(document.Key, [32]byte) bool) {
			for k, r := range m.resources.All() {
				if !yield(k, r.Hash()) {
					return
				}
			}
		})
	}
	tree := m.tree
	for _, r := range d.Puts {
		tree = tree.Put(r.Key, r.Hash())
	}
	for _, t := range d.Deletes {
		tree = tree.Delete(t.Key)
	}
	return tree
}
