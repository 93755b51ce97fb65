package state

import (
	"cmp"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

// content is a namespace as a view holds it. It is immutable once the view is
// shown; until then the draft that owns it changes it.
type content struct {
	owner *btree.Edit
	name  string
	// byKey holds the resources by kind and name.
	byKey btree.Map[document.Key, *document.Resource]
	// byRevision holds the resources by the revision that last changed them, and
	// nil for tombstones. What changed since a revision is therefore a range,
	// already coalesced.
	byRevision btree.Map[revised, *document.Resource]
	// dead holds the tombstones; a key is never both dead and in byKey.
	dead   btree.Map[document.Key, document.Tombstone]
	merkle document.Tree
	// modRevision last changed a resource; tombstones up to floor may be gone.
	modRevision, floor uint64
}

// Namespace is one namespace at one revision of the state. It is immutable. A
// namespace that does not exist is an empty one.
type Namespace struct {
	*content
	revision uint64 // of the state
}

// Name returns the name.
func (n *Namespace) Name() string { return n.name }

// Get returns a resource, or nil.
func (n *Namespace) Get(key document.Key) *document.Resource {
	r, _ := n.byKey.Get(key)
	return r
}

// Ascend calls fn for the resources of a kind whose names begin with prefix and
// come after the name after ("" for the first one), in the order of names, until
// fn returns false. Kind 0 stands for every kind in order, each from after on.
func (n *Namespace) Ascend(kind document.Kind, prefix, after string, fn func(*document.Resource) bool) {
	if kind != 0 {
		n.ascend(kind, prefix, after, fn)
		return
	}
	for _, kind := range document.Kinds() {
		if !n.ascend(kind, prefix, after, fn) {
			return
		}
	}
}

func (n *Namespace) ascend(kind document.Kind, prefix, after string, fn func(*document.Resource) bool) bool {
	for _, r := range n.byKey.From(document.Key{Kind: kind, Name: max(prefix, after)}) {
		if r.Kind != kind || !strings.HasPrefix(r.Name, prefix) {
			return true
		}
		if after != "" && r.Name == after {
			continue
		}
		if !fn(r) {
			return false
		}
	}
	return true
}

// Root returns the Merkle root over all resources.
func (n *Namespace) Root() document.Root { return n.merkle.Root() }

// Len returns the number of resources.
func (n *Namespace) Len() int { return n.byKey.Len() }

// ModRevision returns the revision that last changed the namespace; 0 if none
// has.
func (n *Namespace) ModRevision() uint64 { return n.modRevision }

// Since returns what changed after a revision, in the order of revisions. It
// returns false when that is no longer known, or from is ahead of the view; the
// whole namespace has to be sent then. It takes time in what changed, not in
// what there is.
func (n *Namespace) Since(from uint64) (document.Delta, bool) {
	d := document.Delta{Namespace: n.name, From: from, To: n.revision, Root: n.Root()}
	if from < n.floor || from > n.revision {
		return document.Delta{}, false
	}
	if from >= n.modRevision {
		return d, true
	}
	for k, r := range n.byRevision.From(revised{revision: from + 1}) {
		if r != nil {
			d.Puts = append(d.Puts, r)
			if seam.Bug(seam.DeltasTooShort) {
				break
			}
			continue
		}
		if seam.Bug(seam.DeltasWithoutDeletes) {
			continue
		}
		t, _ := n.dead.Get(k.Key)
		d.Deletes = append(d.Deletes, t)
	}
	return d, true
}

// Base returns the lowest revision from which the delta to here is the same as
// the one from the given revision, so that subscribers with different cursors
// can share it: Since(Base(from)) fits a client at from. Where Since fails it
// returns from.
func (n *Namespace) Base(from uint64) uint64 {
	if from < n.floor || from > n.revision {
		return from
	}
	before, ok := n.byRevision.Floor(revised{revision: from + 1}) // nothing has an empty key
	if !ok {
		return n.floor
	}
	return max(n.floor, before.revision)
}

// revised is a key with the revision that changed it.
type revised struct {
	revision uint64
	document.Key
}

// Compare orders by revision, then by key.
func (r revised) Compare(other revised) int {
	return cmp.Or(cmp.Compare(r.revision, other.revision), r.Key.Compare(other.Key))
}

// place is a key with its namespace.
type place struct {
	namespace string
	document.Key
}

func (p place) String() string { return p.namespace + "/" + p.Key.String() }

// queued is a place in a queue, by the time or the revision at which its turn
// comes.
type queued struct {
	at uint64
	place
}

// Compare orders by turn, then by namespace and key.
func (q queued) Compare(other queued) int {
	return cmp.Or(
		cmp.Compare(q.at, other.at),
		strings.Compare(q.namespace, other.namespace),
		q.Key.Compare(other.Key),
	)
}
