package document

import (
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
	var t Tree
	t.root = t.build(leaves, make([]slot, len(leaves)), 0)
	return t
}

// build returns the slot of leaves that have the first level nibbles in common,
// and counts them. It puts them in order by the nibble at level; spare is as
// long as leaves, and both are used up.
func (t *Tree) build(leaves, spare []slot, level int) slot {
	switch {
	case len(leaves) == 0:
		return slot{}
	case samePath(leaves):
		t.n++
		return leaves[len(leaves)-1]
	}
	var end [16]int // of the leaves with a nibble
	for i := range leaves {
		end[nibbleAt(leaves[i].path, level)]++
	}
	for i := 1; i < len(end); i++ {
		end[i] += end[i-1]
	}
	at := end
	for _, leaf := range slices.Backward(leaves) { // so that equal keys stay in order
		n := nibbleAt(leaf.path, level)
		at[n]--
		spare[at[n]] = leaf
	}
	var b branch
	for n, to := range end {
		if at[n] < to {
			b.bitmap |= 1 << n
		}
	}
	b.slots = make([]slot, 0, bits.OnesCount16(b.bitmap))
	for n, to := range end {
		if from := at[n]; from < to {
			b.slots = append(b.slots, t.build(spare[from:to], leaves[from:to], level+1))
		}
	}
	return b.slot()
}

// samePath tells whether all leaves are of one key.
func samePath(leaves []slot) bool {
	for i := 1; i < len(leaves); i++ {
		if *leaves[i].path != *leaves[0].path {
			return false
		}
	}
	return true
}

func (t Tree) put(path, h [32]byte) Tree {
	hash := leafHash(&path, &h)
	next, added := t.root.put(&path, &hash, 0)
	t.root = next
	if added {
		t.n++
	}
	return t
}

func (t Tree) without(path [32]byte) Tree {
	if !t.has(&path) {
		return t
	}
	t.root = t.root.without(&path, 0)
	t.n--
	return t
}

// has tells whether there is a leaf of path.
func (t *Tree) has(path *[32]byte) bool {
	s := &t.root
	for level := 0; s.branch != nil; level++ {
		i, ok := s.branch.index(nibbleAt(path, level))
		if !ok {
			return false
		}
		s = &s.branch.slots[i]
	}
	return s.path != nil && *s.path == *path
}

// put returns s, which stands at level, with a leaf below it, and whether there
// was none of its path. It returns s itself if that holds the leaf already.
func (s slot) put(path, hash *[32]byte, level int) (next slot, added bool) {
	if s.branch == nil {
		if s.path != nil && *s.path == *path {
			return slot{hash: *hash, path: s.path}, false
		}
		leaf := slot{hash: *hash, path: new(*path)} // a copy, so that paths that are there stay on the stack
		if s.path == nil {
			return leaf, true
		}
		return fork(s, leaf, level), true
	}
	nibble := nibbleAt(path, level)
	i, ok := s.branch.index(nibble)
	if !ok {
		return s.branch.inserted(i, nibble, slot{hash: *hash, path: new(*path)}).slot(), true
	}
	child, added := s.branch.slots[i].put(path, hash, level+1)
	if child.hash == s.branch.slots[i].hash {
		return s, false
	}
	return s.branch.replaced(i, child).slot(), added
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
