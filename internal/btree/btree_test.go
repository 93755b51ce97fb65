package btree

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

type number int

func (n number) Compare(other number) int { return cmp.Compare(n, other) }

// plainMap is a map as plainly as possible: a sorted slice.
type plainMap []item[number, int]

func (p plainMap) search(k number) (int, bool) {
	return slices.BinarySearchFunc(p, k, func(it item[number, int], k number) int { return it.key.Compare(k) })
}

func (p plainMap) put(k number, v int) plainMap {
	p = slices.Clone(p)
	i, ok := p.search(k)
	if ok {
		p[i].val = v
		return p
	}
	return slices.Insert(p, i, item[number, int]{v, k})
}

func (p plainMap) delete(k number) plainMap {
	i, ok := p.search(k)
	if !ok {
		return p
	}
	return slices.Delete(slices.Clone(p), i, i+1)
}

// TestMapAgainstPlainMap changes maps in runs of keys, up, down and at random,
// so that nodes fill, split, thin out and merge, and checks every version that an
// edit was sealed at again at the end: one that shares too much has changed.
func TestMapAgainstPlainMap(t *testing.T) {
	type version struct {
		made  Map[number, int]
		plain plainMap
	}
	rapid.Check(t, func(t *rapid.T) {
		var now version
		var sealed []version
		e, value := new(Edit), 0
		for range rapid.IntRange(1, 25).Draw(t, "runs") {
			k, remove := number(rapid.IntRange(0, 2_000).Draw(t, "from")), rapid.IntRange(0, 9).Draw(t, "remove") < 4
			stride := number(rapid.SampledFrom([]int{1, 1, -1, 3, 211}).Draw(t, "stride"))
			for range rapid.IntRange(1, 400).Draw(t, "length") {
				value++
				if remove {
					_, want := now.plain.search(k)
					if _, have := now.made.Delete(e, k); have != want {
						t.Fatalf("delete of %d found it: %v, want %v", k, have, want)
					}
					now.plain = now.plain.delete(k)
				} else {
					now.made.Put(e, k, value)
					now.plain = now.plain.put(k, value)
				}
				k = (k + stride + 2_001) % 2_001
			}
			if rapid.Bool().Draw(t, "seal") {
				sealed, e = append(sealed, now), new(Edit)
			}
			if len(sealed) > 0 && rapid.IntRange(0, 5).Draw(t, "go back") == 0 {
				now, e = rapid.SampledFrom(sealed).Draw(t, "version"), new(Edit)
			}
		}
		for _, v := range append(sealed, now) {
			requireMap(t, &v.made, v.plain)
		}
	})
}

func requireMap(t *rapid.T, m *Map[number, int], want plainMap) {
	t.Helper()
	var have plainMap
	for k, v := range m.All() {
		have = append(have, item[number, int]{v, k})
	}
	if !slices.Equal(have, want) || m.Len() != len(want) {
		t.Fatalf("have %d items (len %d), want %d", len(have), m.Len(), len(want))
	}
	if k, v, ok := m.Min(); ok != (len(want) > 0) || ok && (item[number, int]{v, k}) != want[0] {
		t.Fatalf("the least item is %d, %v", k, ok)
	}
	for k := number(-1); k <= 2_002; k += 7 {
		at, there := want.search(k)
		if v, ok := m.Get(k); ok != there || ok && v != want[at].val {
			t.Fatalf("get of %d: %d, %v", k, v, ok)
		}
		after := 0
		for have := range m.From(k) {
			if have != want[at+after].key {
				t.Fatalf("from %d: item %d is %d", k, after, have)
			}
			if after++; after == 3 {
				break
			}
		}
		if after != min(3, len(want)-at) {
			t.Fatalf("from %d: %d items", k, after)
		}
		before := at - 1
		if there {
			before = at
		}
		if have, ok := m.Floor(k); ok != (before >= 0) || ok && have != want[before].key {
			t.Fatalf("floor of %d is %d, %v", k, have, ok)
		}
	}
	if m.root != nil {
		requireNode(t, m.root, true)
	}
}

// requireNode checks the shape: bounds, separators, and equal depth.
func requireNode(t *rapid.T, n *node[number, int], root bool) (depth int) {
	t.Helper()
	if n.kids == nil {
		if len(n.items) == 0 || len(n.items) > maxItems {
			t.Fatalf("a leaf has %d items", len(n.items))
		}
		return 0
	}
	if len(n.kids) > maxKids || len(n.seps) != len(n.kids)-1 || len(n.items) > 0 || root && len(n.kids) == 1 {
		t.Fatalf("a branch has %d children, %d separators and %d items", len(n.kids), len(n.seps), len(n.items))
	}
	for i, kid := range n.kids {
		if below := requireNode(t, kid, false); i == 0 {
			depth = below
		} else if below != depth {
			t.Fatalf("leaves at depths %d and %d", depth, below)
		}
		sub := Map[number, int]{root: kid}
		first, _, _ := sub.Min()
		last, _ := sub.Floor(1 << 30)
		if i > 0 && n.seps[i-1] > first || i < len(n.seps) && n.seps[i] <= last {
			t.Fatalf("child %d holds %d to %d between separators %v", i, first, last, n.seps)
		}
	}
	return depth + 1
}

// TestMapStaysCompact deletes most of a large map: what is left must not be
// spread over nodes that are nearly empty, nor be deep.
func TestMapStaysCompact(t *testing.T) {
	var m Map[number, int]
	e, r := new(Edit), rand.New(rand.NewPCG(1, 2))
	count := func() (leaves, depth int) {
		var walk func(n *node[number, int], level int)
		walk = func(n *node[number, int], level int) {
			depth = max(depth, level)
			for _, kid := range n.kids {
				walk(kid, level+1)
			}
			if n.kids == nil {
				leaves++
			}
		}
		walk(m.root, 1)
		return leaves, depth
	}
	for k := range number(100_000) {
		m.Put(e, k, 0)
	}
	if leaves, depth := count(); leaves > 100_000/maxItems+1 || depth > 5 {
		t.Errorf("in order: %d leaves, depth %d", leaves, depth)
	}
	for _, k := range r.Perm(100_000) {
		if k%50 != 0 {
			m.Delete(e, number(k))
		}
	}
	if leaves, depth := count(); leaves > 2_000/(maxItems/8) || depth > 4 {
		t.Errorf("after deletions: %d items in %d leaves, depth %d", m.Len(), leaves, depth)
	}
	for k := range number(100_000) {
		m.Delete(e, k)
	}
	if m.root != nil || m.Len() != 0 {
		t.Errorf("an emptied map has %d items and a root", m.Len())
	}
}

// TestMapConcurrentReaders lets the race detector watch readers of copies.
func TestMapConcurrentReaders(t *testing.T) {
	var m Map[number, int]
	var readers sync.WaitGroup
	for round := range 60 {
		e := new(Edit)
		for i := range 40 {
			m.Put(e, number((round*37+i*11)%500), round)
			m.Delete(e, number((round*53+i*7)%500))
		}
		copied := m
		readers.Go(func() {
			n := 0
			for _, v := range copied.All() {
				if n++; v > round {
					t.Errorf("round %d sees a value of round %d", round, v)
				}
			}
			if n != copied.Len() {
				t.Errorf("%d items, want %d", n, copied.Len())
			}
		})
	}
	readers.Wait()
}

// TestMapSharesInOneEdit checks that a batch copies each node once.
func TestMapSharesInOneEdit(t *testing.T) {
	var m Map[number, int]
	for k := range number(1_000) {
		m.Put(new(Edit), k, 0)
	}
	cost := func(fresh bool) float64 {
		copied, e := m, new(Edit)
		return testing.AllocsPerRun(1, func() {
			for i := range number(200) {
				if fresh {
					e = new(Edit)
				}
				copied.Put(e, 500+i%8, 1)
			}
		})
	}
	if once, each := cost(false), cost(true); once > 20 || each < 200 {
		t.Errorf("200 changes of 8 neighbours: %v allocations in one edit, %v in one each", once, each)
	}
}
