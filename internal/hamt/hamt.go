// Package hamt is a map by strings of which every copy is a snapshot: a hash array
// mapped trie (Phil Bagwell, Ideal Hash Trees, 2001). It looks up faster than an
// ordered map, and knows no order.
package hamt

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

const (
	width = 5                  // bits of the hash that a level decides by
	mask  = 1<<width - 1       // of these bits
	deep  = 64 / width * width // where the bits are used up
)

// Map is a map whose copies are snapshots, made in O(1). The zero value is empty.
//
// One goroutine may change a map, with an edit that is given up for a new one
// whenever a copy is to stay as it is. Any number of goroutines may read copies
// meanwhile.
type Map[V any] struct {
	seed maphash.Seed // set with the root
	root *node[V]
}

// Edit owns the nodes that were made under it, so that a batch of changes copies
// each node once. It has a size, so that each has an address of its own.
type Edit struct{ _ byte }

// node has a slot for each of the 32 parts of its hashes that is in use, in order.
// Below where the bits of the hash are used up it has one for each key.
type node[V any] struct {
	owner *Edit
	used  uint32
	slots []slot[V]
}

// slot is a key with its value, or, where several keys have to share it, a node.
type slot[V any] struct {
	kid *node[V]
	key string
	val V
}

// Get returns the value of a key; false if there is none.
func (m *Map[V]) Get(key string) (val V, ok bool) {
	n := m.root
	if n == nil {
		return val, false
	}
	hash := maphash.String(m.seed, key)
	for shift := 0; shift < deep; shift += width {
		bit := uint32(1) << (hash >> shift & mask)
		if n.used&bit == 0 {
			return val, false
		}
		s := &n.slots[bits.OnesCount32(n.used&(bit-1))]
		if s.kid == nil {
			if s.key != key {
				return val, false
			}
			return s.val, true
		}
		n = s.kid
	}
	if i := n.find(key); i >= 0 {
		return n.slots[i].val, true
	}
	return val, false
}

// Put sets the value of a key.
func (m *Map[V]) Put(e *Edit, key string, val V) {
	if m.root == nil {
		m.root = &node[V]{owner: e}
		m.seed = maphash.MakeSeed()
	}
	m.root = m.put(m.root, e, 0, maphash.String(m.seed, key), slot[V]{key: key, val: val})
}

// Delete removes a key, if it is there.
func (m *Map[V]) Delete(e *Edit, key string) {
	if _, ok := m.Get(key); ok {
		m.root = m.root.without(e, 0, maphash.String(m.seed, key), key)
	}
}

// owned returns the node if the edit made it, else a copy that it may change.
func (n *node[V]) owned(e *Edit) *node[V] {
	if n.owner == e {
		return n
	}
	return &node[V]{owner: e, used: n.used, slots: slices.Clone(n.slots)}
}

// find returns where a key is below the bits of the hash, -1 if it is not.
func (n *node[V]) find(key string) int {
	return slices.IndexFunc(n.slots, func(s slot[V]) bool { return s.key == key })
}

func (m *Map[V]) put(n *node[V], e *Edit, shift int, hash uint64, s slot[V]) *node[V] {
	n = n.owned(e)
	if shift == deep {
		if i := n.find(s.key); i >= 0 {
			n.slots[i] = s
		} else {
			n.slots = append(n.slots, s)
		}
		return n
	}
	bit := uint32(1) << (hash >> shift & mask)
	i := bits.OnesCount32(n.used & (bit - 1))
	if n.used&bit == 0 {
		n.used |= bit
		n.slots = slices.Insert(n.slots, i, s)
		return n
	}
	switch have := n.slots[i]; {
	case have.kid != nil:
		n.slots[i].kid = m.put(have.kid, e, shift+width, hash, s)
	case have.key == s.key:
		n.slots[i] = s
	default:
		kid := m.put(&node[V]{owner: e}, e, shift+width, maphash.String(m.seed, have.key), have)
		n.slots[i] = slot[V]{kid: m.put(kid, e, shift+width, hash, s)}
	}
	return n
}

// without removes a key, which is there. A node that is left with a single key
// gives it to the one above, so that the shape depends on the content alone.
func (n *node[V]) without(e *Edit, shift int, hash uint64, key string) *node[V] {
	n = n.owned(e)
	if shift == deep {
		i := n.find(key)
		n.slots = slices.Delete(n.slots, i, i+1)
		return n
	}
	bit := uint32(1) << (hash >> shift & mask)
	i := bits.OnesCount32(n.used & (bit - 1))
	if n.slots[i].kid == nil {
		n.used &^= bit
		n.slots = slices.Delete(n.slots, i, i+1)
		return n
	}
	kid := n.slots[i].kid.without(e, shift+width, hash, key)
	if len(kid.slots) == 1 && kid.slots[0].kid == nil {
		n.slots[i] = kid.slots[0]
	} else {
		n.slots[i].kid = kid
	}
	return n
}
