package btree

import (
	"iter"
	"slices"
	"strings"
)

// maxItems and maxKids are how many items a leaf and how many children a branch
// may have. A change copies a path of nodes, so larger nodes are more bytes to
// copy and smaller ones more nodes.
const (
	maxItems = 16
	maxKids  = 32
)

// Ordered is a key of a map. Keys are equal when Compare returns 0.
type Ordered[K any] interface{ Compare(other K) int }

// Text is a string as a key, in the order of its bytes.
type Text string

// Compare orders by bytes.
func (t Text) Compare(other Text) int { return strings.Compare(string(t), string(other)) }

// Map is an ordered map of which every copy is a snapshot, made in O(1): a
// B-tree, of which a change copies the nodes on the way to it. A node that an
// edit has made is changed in place by the same edit, so a batch of changes
// copies each node once. The zero value is empty.
//
// One goroutine may change a map, with an edit that is given up for a new one
// whenever a copy is to stay as it is. Any number of goroutines may read copies
// meanwhile. The shape depends on how the map came to be, and so nothing that
// servers compare may depend on it; what is iterated over, and its order, do not.
type Map[K Ordered[K], V any] struct {
	root *node[K, V]
	n    int
}

// Edit owns the nodes that were made under it. It has a size, so that each has an
// address of its own.
type Edit struct{ _ byte }

// node is a leaf, with items, or a branch, with children. Neither is empty, but
// for the moment in which it is taken out.
type node[K Ordered[K], V any] struct {
	owner *Edit
	items []item[K, V]
	kids  []*node[K, V]
	// seps part the children: the keys below kids[i] are less than seps[i], those
	// below kids[i+1] are not. The array is shared with other copies of the node;
	// nobody changes it.
	seps []K
}

type item[K, V any] struct {
	val V
	key K
}

// Len returns the number of items.
func (m *Map[K, V]) Len() int { return m.n }

// Get returns the value of a key; false if there is none.
func (m *Map[K, V]) Get(k K) (val V, ok bool) {
	n := m.root
	if n == nil {
		return val, false
	}
	for n.kids != nil {
		n = n.kids[n.kid(k)]
	}
	i, ok := n.item(k)
	if !ok {
		return val, false
	}
	return n.items[i].val, true
}

// Min returns the least item; false if the map is empty.
func (m *Map[K, V]) Min() (k K, v V, ok bool) {
	for k, v := range m.All() {
		return k, v, true
	}
	return k, v, false
}

// Floor returns the greatest key that is not greater than k; false if there is
// none.
func (m *Map[K, V]) Floor(k K) (have K, ok bool) {
	if m.root == nil {
		return have, false
	}
	return m.root.floor(k)
}

// All iterates over all items in order.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.ascend(nil, yield)
		}
	}
}

// From iterates over the items whose keys are not less than k, in order.
func (m *Map[K, V]) From(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.ascend(&k, yield)
		}
	}
}

// Put sets the value of a key.
func (m *Map[K, V]) Put(e *Edit, k K, v V) {
	if m.root == nil {
		m.root = &node[K, V]{owner: e}
	}
	m.root = m.root.owned(e)
	if m.root.put(e, k, v) {
		m.n++
	}
	if m.root.full() {
		m.root = &node[K, V]{owner: e, kids: []*node[K, V]{m.root}}
		m.root.split(e, 0)
	}
}

// Delete removes a key and returns its value; false if there is none.
func (m *Map[K, V]) Delete(e *Edit, k K) (old V, ok bool) {
	if old, ok = m.Get(k); !ok {
		return old, false
	}
	m.root = m.root.owned(e)
	m.root.delete(e, k)
	m.n--
	for len(m.root.kids) == 1 {
		m.root = m.root.kids[0]
	}
	if m.n == 0 {
		m.root = nil
	}
	return old, true
}

// kid returns which child k belongs to.
func (n *node[K, V]) kid(k K) int {
	low, high := 0, len(n.seps)
	for low < high {
		if mid := (low + high) / 2; n.seps[mid].Compare(k) > 0 {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// item returns where in a leaf k is, or would be.
func (n *node[K, V]) item(k K) (i int, ok bool) {
	low, high := 0, len(n.items)
	for low < high {
		mid := (low + high) / 2
		switch c := n.items[mid].key.Compare(k); {
		case c == 0:
			return mid, true
		case c > 0:
			high = mid
		default:
			low = mid + 1
		}
	}
	return low, false
}

// size returns the number of items or children.
func (n *node[K, V]) size() int { return len(n.items) + len(n.kids) }

func (n *node[K, V]) full() bool { return len(n.items) > maxItems || len(n.kids) > maxKids }

// sparse tells whether a node should be merged with a neighbour.
func (n *node[K, V]) sparse() bool { return len(n.items) < maxItems/4 && len(n.kids) < maxKids/4 }

// owned returns the node if the edit made it, else a copy that it may change.
func (n *node[K, V]) owned(e *Edit) *node[K, V] {
	if n.owner == e {
		return n
	}
	return &node[K, V]{owner: e, items: slices.Clone(n.items), kids: slices.Clone(n.kids), seps: n.seps}
}

// own makes child i one that the edit may change.
func (n *node[K, V]) own(e *Edit, i int) *node[K, V] {
	n.kids[i] = n.kids[i].owned(e)
	return n.kids[i]
}

// put sets a value below n, which the edit owns, and tells whether the key is
// new. It may leave n too full by one.
func (n *node[K, V]) put(e *Edit, k K, v V) (added bool) {
	if n.kids == nil {
		i, ok := n.item(k)
		if ok {
			n.items[i] = item[K, V]{v, k}
		} else {
			n.items = slices.Insert(n.items, i, item[K, V]{v, k})
		}
		return !ok
	}
	i := n.kid(k)
	child := n.own(e, i)
	added = child.put(e, k, v)
	if child.full() {
		n.split(e, i)
	}
	return added
}

// split cuts child i, which the edit owns, in two. The last child is left full:
// where keys come in order, no more of them come to it.
func (n *node[K, V]) split(e *Edit, i int) {
	left, right := n.kids[i], &node[K, V]{owner: e}
	at := left.size() / 2
	if i == len(n.kids)-1 {
		at = left.size() - 1
	}
	var sep K
	if left.kids == nil {
		right.items = append(make([]item[K, V], 0, maxItems+1), left.items[at:]...)
		left.items = slices.Delete(left.items, at, len(left.items))
		sep = right.items[0].key
	} else {
		right.kids = append(make([]*node[K, V], 0, maxKids+1), left.kids[at:]...)
		left.kids = slices.Delete(left.kids, at, len(left.kids))
		sep, left.seps, right.seps = left.seps[at-1], left.seps[:at-1], left.seps[at:]
	}
	n.kids = slices.Insert(n.kids, i+1, right)
	n.seps = slices.Concat(n.seps[:i], []K{sep}, n.seps[i:])
}

// delete removes a key, which is there, from below n, which the edit owns. It may
// leave n empty.
func (n *node[K, V]) delete(e *Edit, k K) {
	if n.kids == nil {
		i, _ := n.item(k)
		n.items = slices.Delete(n.items, i, i+1)
		return
	}
	i := n.kid(k)
	child := n.own(e, i)
	child.delete(e, k)
	switch {
	case child.size() == 0:
		n.drop(i)
	case !child.sparse():
	case i > 0 && n.fit(i-1):
		n.merge(e, i-1)
	case i < len(n.kids)-1 && n.fit(i):
		n.merge(e, i)
	}
}

// fit tells whether children i and i+1 have room in one.
func (n *node[K, V]) fit(i int) bool {
	a, b := n.kids[i], n.kids[i+1]
	return len(a.items)+len(b.items) <= maxItems && len(a.kids)+len(b.kids) <= maxKids
}

// merge appends what child i+1 has to child i.
func (n *node[K, V]) merge(e *Edit, i int) {
	left, right := n.own(e, i), n.kids[i+1]
	if left.kids == nil {
		left.items = append(left.items, right.items...)
	} else {
		left.kids = append(left.kids, right.kids...)
		left.seps = slices.Concat(left.seps, n.seps[i:i+1], right.seps)
	}
	n.drop(i + 1)
}

// drop takes child i out. Its range goes to the child before it, that of the
// first one to the second.
func (n *node[K, V]) drop(i int) {
	n.kids = slices.Delete(n.kids, i, i+1)
	if len(n.seps) > 0 {
		at := max(0, i-1)
		n.seps = slices.Concat(n.seps[:at], n.seps[at+1:])
	}
}

func (n *node[K, V]) floor(k K) (have K, ok bool) {
	if n.kids == nil {
		i, ok := n.item(k)
		if !ok {
			i--
		}
		if i < 0 {
			return have, false
		}
		return n.items[i].key, true
	}
	// The keys of the child may all be greater; those of the one before are less.
	for i := n.kid(k); i >= 0; i-- {
		if have, ok = n.kids[i].floor(k); ok {
			return have, true
		}
	}
	return have, false
}

// ascend yields the items from a key on, all of them if it is nil. It returns
// false when yield did.
func (n *node[K, V]) ascend(from *K, yield func(K, V) bool) bool {
	at := 0
	if n.kids == nil {
		if from != nil {
			at, _ = n.item(*from)
		}
		for i := at; i < len(n.items); i++ {
			if !yield(n.items[i].key, n.items[i].val) {
				return false
			}
		}
		return true
	}
	if from != nil {
		at = n.kid(*from)
	}
	for i := at; i < len(n.kids); i++ {
		if !n.kids[i].ascend(from, yield) {
			return false
		}
		from = nil // what follows is greater
	}
	return true
}
