package document

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// twinRoot is the root by definition: from all leaves, recomputed, over paths
// spelled as strings of nibbles.
func twinRoot(leaves map[[32]byte][32]byte) Root {
	byPath := map[string][]byte{}
	for path, h := range leaves {
		sum := sha256.Sum256(slices.Concat([]byte{0}, path[:], h[:]))
		byPath[fmt.Sprintf("%x", path)] = sum[:]
	}
	if len(byPath) == 0 {
		return Root{}
	}
	return Root(twinHash(byPath, 0))
}

func twinHash(byPath map[string][]byte, level int) []byte {
	if len(byPath) == 1 {
		for _, h := range byPath {
			return h
		}
	}
	var bitmap uint16
	var hashes []byte
	for i, digit := range "0123456789abcdef" {
		below := maps.Clone(byPath)
		maps.DeleteFunc(below, func(path string, _ []byte) bool { return rune(path[level]) != digit })
		if len(below) > 0 {
			bitmap |= 1 << i
			hashes = append(hashes, twinHash(below, level+1)...)
		}
	}
	sum := sha256.Sum256(slices.Concat([]byte{1}, binary.BigEndian.AppendUint16(nil, bitmap), hashes))
	return sum[:]
}

// crowdedPath draws paths with common prefixes of every length, which hashes of
// keys never have.
func crowdedPath() *rapid.Generator[[32]byte] {
	return rapid.Custom(func(t *rapid.T) (path [32]byte) {
		common := rapid.IntRange(0, 63).Draw(t, "common")
		nibble := rapid.ByteRange(1, 15).Draw(t, "nibble")
		path[common/2] = nibble << (4 * (1 - common%2))
		return path
	})
}

// TestTreeAgainstTwin changes versions of a tree, also such that have been
// changed before: an old version that shares too much goes wrong from there.
func TestTreeAgainstTwin(t *testing.T) {
	type version struct {
		tree Tree
		twin map[[32]byte][32]byte
	}
	rapid.Check(t, func(t *rapid.T) {
		versions := []version{{Tree{}, map[[32]byte][32]byte{}}}
		paths := rapid.SliceOfN(crowdedPath(), 1, 12).Draw(t, "paths")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			v := versions[len(versions)-1]
			if rapid.IntRange(0, 3).Draw(t, "old") == 0 {
				v = rapid.SampledFrom(versions).Draw(t, "version")
			}
			v.twin = maps.Clone(v.twin)
			path := rapid.SampledFrom(paths).Draw(t, "path")
			if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
				v.tree = v.tree.without(path)
				delete(v.twin, path)
			} else {
				h := [32]byte{rapid.ByteRange(0, 3).Draw(t, "hash")}
				v.tree, v.twin[path] = v.tree.put(path, h), h
			}
			if want := twinRoot(v.twin); v.tree.Root() != want || v.tree.Len() != len(v.twin) {
				t.Fatalf("root %x of %d, want %x of %d", v.tree.Root(), v.tree.Len(), want, len(v.twin))
			}
			versions = append(versions, v)
		}
	})
}

func TestTreeDependsOnContentOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(keyGen(), rapid.Byte()).Draw(t, "content")
		gone := rapid.SliceOf(keyGen()).Draw(t, "gone")
		keys := slices.SortedFunc(maps.Keys(want), Key.Compare)
		keys = rapid.Permutation(keys).Draw(t, "order")

		var tree Tree
		for i, k := range keys {
			tree = tree.Put(k, [32]byte{want[k], 1}) // replaced below
			if i < len(gone) {
				tree = tree.Put(gone[i], [32]byte{})
			}
		}
		for _, k := range gone {
			tree = tree.Delete(k)
		}
		for _, k := range keys {
			tree = tree.Put(k, [32]byte{want[k]})
		}
		built := Build(func(yield func(Key, [32]byte) bool) {
			for k, v := range want {
				if !yield(k, [32]byte{v, 2}) || !yield(k, [32]byte{v}) {
					return
				}
			}
		})
		if tree.Root() != built.Root() || tree.Len() != built.Len() || built.Len() != len(want) {
			t.Fatalf("put one by one: %x of %d; built: %x of %d; want %d",
				tree.Root(), tree.Len(), built.Root(), built.Len(), len(want))
		}
		for _, k := range keys {
			tree, built = tree.Delete(k), built.Delete(k)
			if tree.Root() != built.Root() {
				t.Fatalf("after deleting %v: %x and %x", k, tree.Root(), built.Root())
			}
		}
		if tree != (Tree{}) {
			t.Fatalf("emptied tree is not the empty one: %+v", tree)
		}
	})
}

// TestTreeRootIsPinned fails when the definition of the root changes: servers
// and instances of two versions would no longer agree.
func TestTreeRootIsPinned(t *testing.T) {
	var tree Tree
	for i := range 1000 {
		r := Resource{Key: Key{Flag, fmt.Sprintf("flag-%d", i)}, Spec: []byte(`{}`), ModRevision: uint64(i)}
		tree = tree.Put(r.Key, r.Hash())
	}
	const want = "11310fdc8e1663caf454bbcd1018ed071c2629fbb34f75285435e41c03e082f8"
	if got := fmt.Sprintf("%x", tree.Root()); got != want {
		t.Errorf("root %s, want %s", got, want)
	}
}

func TestTreeTellsContentsApart(t *testing.T) {
	a, b, h := Key{Flag, "a"}, Key{Mode, "a"}, [32]byte{1}
	seen := map[Root]string{}
	for name, tree := range map[string]Tree{
		"empty":      {},
		"a":          Tree{}.Put(a, h),
		"b":          Tree{}.Put(b, h),
		"both":       Tree{}.Put(a, h).Put(b, h),
		"other hash": Tree{}.Put(a, [32]byte{2}),
	} {
		if other, ok := seen[tree.Root()]; ok {
			t.Errorf("%s and %s have the same root", name, other)
		}
		seen[tree.Root()] = name
	}
}

func TestTreeAllocations(t *testing.T) {
	keys, tree := manyKeys(1000)
	k, h := keys[500], hashOf(500)
	absent := Key{Mode, "no such mode"}
	for name, f := range map[string]func(){
		"Put of what is there":     func() { sinkTree = tree.Put(k, h) },
		"Delete of what is absent": func() { sinkTree = tree.Delete(absent) },
		"Root and Len":             func() { _ = tree.Root(); _ = tree.Len() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
	if got := tree.Put(k, h); got != tree {
		t.Error("Put of what is there returned another tree")
	}
}

func BenchmarkTreePut(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		keys, tree := manyKeys(n)
		b.Run(fmt.Sprintf("replace/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			r := rand.New(rand.NewPCG(1, 2))
			for i := 0; b.Loop(); i++ {
				sinkTree = tree.Put(keys[r.IntN(n)], hashOf(n+i))
			}
		})
	}
	b.Run("chain/100000", func(b *testing.B) {
		b.ReportAllocs()
		keys, tree := manyKeys(100_000)
		for i := 0; b.Loop(); i++ {
			tree = tree.Put(keys[i%len(keys)], hashOf(-i))
		}
		sinkTree = tree
	})
}

func BenchmarkTreeBuild(b *testing.B) {
	keys, tree := manyKeys(100_000)
	b.ReportAllocs()
	for b.Loop() {
		sinkTree = Build(func(yield func(Key, [32]byte) bool) {
			for i, k := range keys {
				if !yield(k, hashOf(i)) {
					return
				}
			}
		})
	}
	if sinkTree.Root() != tree.Root() {
		b.Fatal("built another tree")
	}
}

var sinkTree Tree

func manyKeys(n int) ([]Key, Tree) {
	var tree Tree
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = Key{Flag, fmt.Sprintf("flag-%06d", i)}
		tree = tree.Put(keys[i], hashOf(i))
	}
	return keys, tree
}

func hashOf(i int) [32]byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return sha256.Sum256(b[:])
}

func keyGen() *rapid.Generator[Key] {
	return rapid.Custom(func(t *rapid.T) Key {
		return Key{
			Kind: rapid.SampledFrom(Kinds()).Draw(t, "kind"),
			Name: rapid.StringMatching(`[a-z]{1,2}`).Draw(t, "name"),
		}
	})
}
