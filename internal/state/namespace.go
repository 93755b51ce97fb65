package state

import (
	"encoding/binary"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// content is a namespace as a view holds it; it is immutable.
type content struct {
	name string
	// byKey holds the resources by kind and name.
	byKey *iradix.Tree[*document.Resource]
	// byRevision holds the resources, and nil for tombstones, by mod_revision
	// and key. What changed since a revision is therefore a range, already
	// coalesced.
	byRevision *iradix.Tree[*document.Resource]
	// dead holds the tombstones by key; a key is never both dead and in byKey.
	dead *iradix.Tree[document.Tombstone]
	tree document.Tree
	// modRevision last changed a resource; tombstones up to floor may be gone.
	modRevision, floor uint64
}

func newContent(name string) *content {
	return &content{
		name:       name,
		byKey:      iradix.New[*document.Resource](),
		byRevision: iradix.New[*document.Resource](),
		dead:       iradix.New[document.Tombstone](),
	}
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
	var space [64]byte
	r, _ := n.byKey.Get(appendKey(space[:0], key))
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
	it := n.byKey.Root().Iterator()
	it.SeekLowerBound(appendKey(nil, document.Key{Kind: kind, Name: max(prefix, after)}))
	for _, r, ok := it.Next(); ok; _, r, ok = it.Next() {
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
func (n *Namespace) Root() document.Root { return n.tree.Root() }

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
	it := n.byRevision.Root().Iterator()
	it.SeekLowerBound(binary.BigEndian.AppendUint64(nil, from+1))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		if r != nil {
			d.Puts = append(d.Puts, r)
			continue
		}
		t, _ := n.dead.Get(k[revisionSize:])
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
	it := n.byRevision.Root().ReverseIterator()
	it.SeekReverseLowerBound(binary.BigEndian.AppendUint64(nil, from+1))
	k, _, ok := it.Previous()
	if !ok {
		return n.floor
	}
	return max(n.floor, binary.BigEndian.Uint64(k))
}

const revisionSize = 8

// appendKey appends the key as the indexes order it: kind, then name.
func appendKey(b []byte, k document.Key) []byte {
	return append(append(b, byte(k.Kind)), k.Name...)
}

// revisionKey returns the key of byRevision. What follows the revision is the
// key of byKey; the two may share the bytes, which no tree ever changes.
func revisionKey(revision uint64, k document.Key) []byte {
	b := make([]byte, 0, revisionSize+1+len(k.Name))
	return appendKey(binary.BigEndian.AppendUint64(b, revision), k)
}

// place is a key with its namespace.
type place struct {
	namespace string
	document.Key
}

func (p place) String() string { return p.namespace + "/" + p.Key.String() }

// orderKey returns the place behind a number, as ends and graves are ordered.
// Namespaces hold no NUL.
func orderKey(number uint64, p place) []byte {
	b := make([]byte, 0, 8+len(p.namespace)+2+len(p.Name))
	b = append(binary.BigEndian.AppendUint64(b, number), p.namespace...)
	return appendKey(append(b, 0), p.Key)
}
