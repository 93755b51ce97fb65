package hamt

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// TestMapAgainstMap changes a map at random beside a plain one, and checks every
// version that an edit was given up at again at the end: one that shares too much
// has changed.
func TestMapAgainstMap(t *testing.T) {
	type version struct {
		trie  Map[int]
		plain map[string]int
	}
	rapid.Check(t, func(t *rapid.T) {
		now := version{plain: map[string]int{}}
		var sealed []version
		e := new(Edit)
		for i := range rapid.IntRange(1, 400).Draw(t, "changes") {
			key := fmt.Sprint(rapid.IntRange(0, 150).Draw(t, "key"))
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1, 2:
				now.trie.Delete(e, key)
				delete(now.plain, key)
			case 3:
				sealed = append(sealed, version{now.trie, maps.Clone(now.plain)})
				e = new(Edit)
			default:
				now.trie.Put(e, key, i)
				now.plain[key] = i
			}
		}
		for _, v := range append(sealed, now) {
			for i := range 151 {
				key := fmt.Sprint(i)
				want, has := v.plain[key]
				if got, ok := v.trie.Get(key); got != want || ok != has {
					t.Fatalf("%s is %d, %v, want %d, %v", key, got, ok, want, has)
				}
			}
			if n := count(v.trie.root); n != len(v.plain) {
				t.Fatalf("%d keys, want %d", n, len(v.plain))
			}
		}
	})
}

func count[V any](n *node[V]) int {
	if n == nil {
		return 0
	}
	total := 0
	for i := range n.slots {
		if n.slots[i].kid != nil {
			total += count(n.slots[i].kid)
		} else {
			total++
		}
	}
	return total
}

// TestKeysOfOneHash puts keys below where the hash tells them apart.
func TestKeysOfOneHash(t *testing.T) {
	m, e := &Map[int]{}, new(Edit)
	m.Put(e, "first", 0)
	const hash = 0x123456789abcdef
	n := &node[int]{owner: e}
	for i, key := range []string{"a", "b", "c"} {
		n = m.put(n, e, deep, hash, slot[int]{key: key, val: i})
	}
	n = m.put(n, e, deep, hash, slot[int]{key: "b", val: 7})
	if i := n.find("b"); i < 0 || n.slots[i].val != 7 || len(n.slots) != 3 {
		t.Errorf("slots are %+v", n.slots)
	}
	left := n.without(new(Edit), deep, hash, "a")
	if left.find("a") >= 0 || left.find("c") < 0 || n.find("a") < 0 {
		t.Errorf("without a key: %+v, and before %+v", left.slots, n.slots)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		m, e, keys := &Map[int]{}, new(Edit), make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprintf("flag-%05d", i)
			m.Put(e, keys[i], i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, ok := m.Get(keys[i%n]); !ok {
					b.Fatal("gone")
				}
			}
		})
	}
}
