package btree

import "iter"

// Change is what one key has in two maps.
type Change[V any] struct {
	Was, Is       V
	HadWas, HasIs bool // false of a map that does not have the key
}

// Diff iterates, in the order of the keys, over those that only one of an older
// map and this one has, and those whose values are not the same. It skips what
// the maps share: where one was derived from the other, it takes time in what
// changed between them, not in what there is. It is correct of any two maps.
// Neither may change meanwhile.
func (m *Map[K, V]) Diff(old *Map[K, V], same func(was, is V) bool) iter.Seq2[K, Change[V]] {
	return func(yield func(K, Change[V]) bool) {
		diff(newCursor(old.root), newCursor(m.root), same, yield)
	}
}

// diff yields what is not the same behind two cursors and returns how many steps
// it took.
func diff[K Ordered[K], V any](was, is *cursor[K, V], same func(was, is V) bool, yield func(K, Change[V]) bool) (steps int) {
	for ; ; steps++ {
		if was.shares(is) {
			was.leave()
			is.leave()
			continue
		}
		// The taller first and equals together, so that both come to the top of what
		// they share before either of them is inside.
		if height := max(was.height, is.height); height > 0 {
			was.enter(height)
			is.enter(height)
			continue
		}
		if !differ(was, is, same, yield) {
			return steps
		}
	}
}

// differ passes the lesser of the items at which two cursors are, or both of one
// key. It returns false at the end, or when yield did.
func differ[K Ordered[K], V any](was, is *cursor[K, V], same func(was, is V) bool, yield func(K, Change[V]) bool) bool {
	a, b := was.item(), is.item()
	c := 0
	switch {
	case a == nil && b == nil:
		return false
	case a == nil:
		c = 1
	case b == nil:
		c = -1
	default:
		c = a.key.Compare(b.key)
	}
	switch {
	case c < 0:
		was.next()
		return yield(a.key, Change[V]{Was: a.val, HadWas: true})
	case c > 0:
		is.next()
		return yield(b.key, Change[V]{Is: b.val, HasIs: true})
	default:
		was.next()
		is.next()
		return same(a.val, b.val) || yield(b.key, Change[V]{Was: a.val, Is: b.val, HadWas: true, HasIs: true})
	}
}

// cursor walks over a tree. It is before a child or at an item of the last of the
// nodes that it is in; with none, it is at the end.
type cursor[K Ordered[K], V any] struct {
	path   []step[K, V]
	height int // of the last node above the leaves; 0 at the end
}

// step is a node with the index of what is next in it.
type step[K Ordered[K], V any] struct {
	*node[K, V]
	at int
}

func newCursor[K Ordered[K], V any](root *node[K, V]) *cursor[K, V] {
	c := &cursor[K, V]{}
	if root == nil {
		return c
	}
	c.path = append(make([]step[K, V], 0, 8), step[K, V]{node: root}) // eight levels are more than most have
	for n := root; n.kids != nil; n = n.kids[0] {
		c.height++
	}
	return c
}

func (c *cursor[K, V]) last() *step[K, V] { return &c.path[len(c.path)-1] }

// shares tells whether two cursors are at the same place of the same node.
func (c *cursor[K, V]) shares(other *cursor[K, V]) bool {
	return len(c.path) > 0 && len(other.path) > 0 && *c.last() == *other.last()
}

// enter goes into the next child if the cursor is at the given height, above the
// leaves.
func (c *cursor[K, V]) enter(height int) {
	if c.height == height {
		c.path = append(c.path, step[K, V]{node: c.last().kids[c.last().at]})
		c.height--
	}
}

// leave goes behind the last node, whatever is left in it.
func (c *cursor[K, V]) leave() {
	c.path = c.path[:len(c.path)-1]
	if len(c.path) == 0 {
		c.height = 0
		return
	}
	c.height++
	c.next()
}

// next goes behind the child or the item.
func (c *cursor[K, V]) next() {
	c.last().at++
	if c.last().at == c.last().size() {
		c.leave()
	}
}

// item returns the item at which the cursor is; nil at the end. The cursor is not
// in a branch.
func (c *cursor[K, V]) item() *item[K, V] {
	if len(c.path) == 0 {
		return nil
	}
	return &c.last().items[c.last().at]
}
