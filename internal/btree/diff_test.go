package btree

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// diffed is a change with its key, as a value that can be compared.
type diffed struct {
	key number
	Change[int]
}

// plainDiff compares two maps as plainly as possible.
func plainDiff(old, now map[number]int) []diffed {
	var out []diffed
	for k, was := range old {
		if is, ok := now[k]; !ok || is != was {
			out = append(out, diffed{k, Change[int]{was, is, true, ok}})
		}
	}
	for k, is := range now {
		if _, ok := old[k]; !ok {
			out = append(out, diffed{k, Change[int]{Is: is, HasIs: true}})
		}
	}
	slices.SortFunc(out, func(a, b diffed) int { return a.key.Compare(b.key) })
	return out
}

func equal(a, b int) bool { return a == b }

// TestDiffAgainstPlainMap compares versions that share much, little and nothing,
// in both directions.
func TestDiffAgainstPlainMap(t *testing.T) {
	type version struct {
		made  Map[number, int]
		plain map[number]int
	}
	rapid.Check(t, func(t *rapid.T) {
		versions := []version{{}}
		for range rapid.IntRange(1, 8).Draw(t, "versions") {
			v := rapid.SampledFrom(versions).Draw(t, "base")
			v.plain = maps.Clone(v.plain)
			if v.plain == nil {
				v.plain = map[number]int{}
			}
			e := new(Edit)
			for range rapid.IntRange(0, 6).Draw(t, "runs") {
				k, length := number(rapid.IntRange(0, 1_500).Draw(t, "from")), rapid.IntRange(1, 500).Draw(t, "length")
				remove, value := rapid.IntRange(0, 9).Draw(t, "remove") < 4, rapid.IntRange(0, 2).Draw(t, "value")
				if rapid.Bool().Draw(t, "short") {
					length = 1 + length%3
				}
				for range length {
					if remove {
						v.made.Delete(e, k)
						delete(v.plain, k)
					} else {
						v.made.Put(e, k, value)
						v.plain[k] = value
					}
					k++
				}
			}
			versions = append(versions, v)
		}
		for i, old := range versions {
			for j, now := range versions {
				var have []diffed
				for k, c := range now.made.Diff(&old.made, equal) {
					have = append(have, diffed{k, c})
				}
				if want := plainDiff(old.plain, now.plain); !slices.Equal(have, want) {
					t.Fatalf("from version %d to %d: have %v, want %v", i, j, have, want)
				}
			}
		}
	})
}

// TestDiffSkipsWhatIsShared changes little in a large map and counts the steps of
// comparing the versions.
func TestDiffSkipsWhatIsShared(t *testing.T) {
	const size = 10_000
	var old Map[number, int]
	e := new(Edit)
	for i := range number(size) {
		// Not in order, so that nodes are filled as they are in practice.
		old.Put(e, i*7919%size*2, 0)
	}
	count := func(now *Map[number, int]) (changes, steps int) {
		steps = diff(newCursor(old.root), newCursor(now.root), equal, func(number, Change[int]) bool {
			changes++
			return true
		})
		return changes, steps
	}
	// Into each child of the nodes on the way to a change, and out again.
	most := 2 * 2 * newCursor(old.root).height * maxKids
	for name, change := range map[string]func(m *Map[number, int], k number){
		"replaced": func(m *Map[number, int], k number) { m.Put(new(Edit), k*2, 1) },
		"added":    func(m *Map[number, int], k number) { m.Put(new(Edit), k*2+1, 1) },
		"removed":  func(m *Map[number, int], k number) { m.Delete(new(Edit), k*2) },
	} {
		for k := number(0); k < size; k += 97 {
			now := old
			change(&now, k)
			if changes, steps := count(&now); changes != 1 || steps > most {
				t.Fatalf("%d %s: %d changes in %d steps, want at most %d", k, name, changes, steps, most)
			}
		}
	}
	if changes, steps := count(&old); changes != 0 || steps > 1 {
		t.Errorf("of itself: %d changes in %d steps", changes, steps)
	}
	now, few := old, new(Edit)
	for k := range number(20) {
		now.Put(few, k*1_000, 1)
	}
	if changes, steps := count(&now); changes != 20 || steps > 20*most/2 {
		t.Errorf("20 replaced: %d changes in %d steps, want at most %d", changes, steps, 20*most/2)
	}
}

// TestDiffStops checks that nothing is yielded to who has stopped.
func TestDiffStops(t *testing.T) {
	var empty, m Map[number, int]
	for k := range number(100) {
		m.Put(new(Edit), k, 1)
	}
	for _, maps := range [][2]*Map[number, int]{{&empty, &m}, {&m, &empty}} {
		n := 0
		for range maps[0].Diff(maps[1], equal) {
			if n++; n == 3 {
				break
			}
		}
		if n != 3 {
			t.Errorf("%d changes before the end", n)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, size := range []int{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			var old Map[number, int]
			e := new(Edit)
			for k := range number(size) {
				old.Put(e, k, 0)
			}
			now := old
			now.Put(new(Edit), number(size/2), 1)
			b.ReportAllocs()
			for b.Loop() {
				for range now.Diff(&old, equal) {
				}
			}
		})
	}
}
