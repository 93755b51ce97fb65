package document

import (
	"bytes"
	"crypto/sha256"
	"iter"
	"math/bits"
	"slices"
)

// Root is the Merkle root of a namespace; the zero value is that of an empty
// one. Equal roots mean equal resources, at every revision and on every server.
type Root [32]byte

// Tree is a persistent Merkle trie over the hashes of resources: it changes in
// O(log n) and every older value stays valid. The zero value is empty. Trees are
// values; any number of goroutines may use them.
//
// A key's place is the SHA-256 of the key, four bits a level. The shape is
// canonical: a branch stands exactly where two or more keys have a common
// prefix, so a tree depends on what it holds and not on how it came to be.
type Tree struct {
	root slot
	n    int
}

// slot is a place in the trie: empty, a leaf, or a branch. It holds the hash of
// what is below, so that a branch is hashed from memory that lies together.
type slot struct {
	hash   [32]byte
	path   *[32]byte // of a leaf; shared by all versions of the tree
	branch *branch   // of a branch
}

// branch has at least two keys below.
type branch struct {
	bitmap uint16 // which of the 16 children are present
	slots  []slot // those, in order
}

// Put returns the tree with h as the hash of the resource k; the same tree,
// without an allocation, if it holds just that.
func (t Tree) Put(k Key, h [32]byte) Tree { return t.put(pathOf(k), h) }

// Delete returns the tree without the resource k; the same tree, without an
// allocation, if it holds none.
func (t Tree) Delete(k Key) Tree { return t.without(pathOf(k)) }

// Root returns the hash over all resources, in O(1).
func (t Tree) Root() Root { return t.root.hash }

// Len returns the number of resources, in O(1).
func (t Tree) Len() int { return t.n }

// Build returns the tree of many resources, as Put of each would, but hashes
// each branch once. Of equal keys the last one counts.
func Build(all iter.Seq2[Key, [32]byte]) Tree {
	var leaves []slot
	for k, h := range all {
		path := pathOf(k)
		leaves = append(leaves, slot{hash: leafHash(&path, &h), path: &path})
	}
	slices.SortStableFunc(leaves, func(a, b slot) int { return bytes.Compare(a.path[:], b.path[:]) })
	last := leaves[:0]
	for i, leaf := range leaves {
		if i+1 == len(leaves) || *leaves[i+1].path != *leaf.path {
			last = append(last, leaf)
		}
	}
	return Tree{root: build(last, 0), n: len(last)}
}

// build returns the slot of leaves that are sorted and have the first level
// nibbles in common.
func build(leaves []slot, level int) slot {
	switch len(leaves) {
	case 0:
		return slot{}
	case 1:
		return leaves[0]
	}
	b := &branch{}
	for len(leaves) > 0 {
		nibble := nibbleAt(leaves[0].path, level)
		n := 1
		for n < len(leaves) && nibbleAt(leaves[n].path, level) == nibble {
			n++
		}
		b.bitmap |= 1 << nibble
		b.slots = append(b.slots, build(leaves[:n], level+1))
		leaves = leaves[n:]
	}
	return b.slot()
}

func (t Tree) put(path, h [32]byte) Tree {
	leaf := slot{hash: leafHash(&path, &h)}
	if old := t.find(&path); old == nil {
		t.n++
		leaf.path = new(path) // a copy, so that a path only looked for stays on the stack
	} else {
		if old.hash == leaf.hash {
			return t
		}
		leaf.path = old.path
	}
	t.root = t.root.put(leaf, 0)
	return t
}

func (t Tree) without(path [32]byte) Tree {
	if t.find(&path) == nil {
		return t
	}
	t.root = t.root.without(&path, 0)
	t.n--
	return t
}

// find returns the leaf of path, or nil.
func (t *Tree) find(path *[32]byte) *slot {
	s := &t.root
	for level := 0; s.branch != nil; level++ {
		i, ok := s.branch.index(nibbleAt(path, level))
		if !ok {
			return nil
		}
		s = &s.branch.slots[i]
	}
	if s.path == nil || *s.path != *path {
		return nil
	}
	return s
}

// put returns s, which stands at level, with leaf below it.
func (s slot) put(leaf slot, level int) slot {
	switch {
	case s.branch != nil:
		nibble := nibbleAt(leaf.path, level)
		i, ok := s.branch.index(nibble)
		if !ok {
			return s.branch.inserted(i, nibble, leaf).slot()
		}
		return s.branch.replaced(i, s.branch.slots[i].put(leaf, level+1)).slot()
	case s.path == nil || *s.path == *leaf.path:
		return leaf
	default:
		return fork(s, leaf, level)
	}
}

// fork returns a branch at level with two leaves below it. It ends because their
// paths differ.
func fork(a, b slot, level int) slot {
	x, y := nibbleAt(a.path, level), nibbleAt(b.path, level)
	if x == y {
		return (&branch{bitmap: 1 << x, slots: []slot{fork(a, b, level+1)}}).slot()
	}
	if x > y {
		a, b = b, a
	}
	return (&branch{bitmap: 1<<x | 1<<y, slots: []slot{a, b}}).slot()
}

// without returns s, which stands at level, without the leaf of path, which is
// below it. A branch that is left with one leaf becomes that leaf.
func (s slot) without(path *[32]byte, level int) slot {
	if s.branch == nil {
		return slot{}
	}
	nibble := nibbleAt(path, level)
	i, _ := s.branch.index(nibble)
	b := s.branch
	if child := b.slots[i].without(path, level+1); child == (slot{}) {
		b = b.removed(i, nibble)
	} else {
		b = b.replaced(i, child)
	}
	if len(b.slots) == 1 && b.slots[0].branch == nil {
		return b.slots[0]
	}
	return b.slot()
}

// index returns where the child of a nibble is, or would be.
func (b *branch) index(nibble byte) (int, bool) {
	bit := uint16(1) << nibble
	return bits.OnesCount16(b.bitmap & (bit - 1)), b.bitmap&bit != 0
}

func (b *branch) replaced(i int, child slot) *branch {
	slots := slices.Clone(b.slots)
	slots[i] = child
	return &branch{bitmap: b.bitmap, slots: slots}
}

func (b *branch) inserted(i int, nibble byte, child slot) *branch {
	slots := make([]slot, len(b.slots)+1)
	copy(slots, b.slots[:i])
	slots[i] = child
	copy(slots[i+1:], b.slots[i:])
	return &branch{bitmap: b.bitmap | 1<<nibble, slots: slots}
}

func (b *branch) removed(i int, nibble byte) *branch {
	slots := make([]slot, len(b.slots)-1)
	copy(slots, b.slots[:i])
	copy(slots[i:], b.slots[i+1:])
	return &branch{bitmap: b.bitmap &^ (1 << nibble), slots: slots}
}

// slot hashes the branch and returns its slot.
func (b *branch) slot() slot {
	var space [3 + 16*sha256.Size]byte
	data := append(space[:0], branchDomain, byte(b.bitmap>>8), byte(b.bitmap))
	for i := range b.slots {
		data = append(data, b.slots[i].hash[:]...)
	}
	return slot{hash: sha256.Sum256(data), branch: b}
}

// Leaves and branches begin differently, so that neither can be taken for the
// other.
const (
	leafDomain   = 0
	branchDomain = 1
)

func leafHash(path, h *[32]byte) [32]byte {
	var data [1 + 2*sha256.Size]byte
	data[0] = leafDomain
	copy(data[1:], path[:])
	copy(data[1+sha256.Size:], h[:])
	return sha256.Sum256(data[:])
}

func pathOf(k Key) [32]byte {
	var space [1 + MaxName]byte
	return sha256.Sum256(append(append(space[:0], byte(k.Kind)), k.Name...))
}

// nibbleAt returns the four bits of a path that are decided at a level.
func nibbleAt(path *[32]byte, level int) byte {
	return path[level/2] >> (4 * (1 - level%2)) & 15
}
