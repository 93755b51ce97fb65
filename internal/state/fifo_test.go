package state

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"weak"

	"pgregory.net/rapid"
)

// TestFifoSnapshots checks every copy of a fifo against a copy of a slice, after
// all of the writes.
func TestFifoSnapshots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type snapshot struct {
			have fifo[int]
			want []int
		}
		var f fifo[int]
		var plain []int
		var all []snapshot
		for i := range rapid.IntRange(0, 300).Draw(t, "operations") {
			if len(plain) > 0 && rapid.IntRange(0, 9).Draw(t, "operation") < 4 {
				if have := f.pop(); have != plain[0] {
					t.Fatalf("popped %d, want %d", have, plain[0])
				}
				plain = plain[1:]
			} else {
				f.push(i)
				plain = append(plain, i)
			}
			all = append(all, snapshot{f, slices.Clone(plain)})
		}
		for _, s := range all {
			if have := itemsOf(s.have); !slices.Equal(have, s.want) {
				t.Fatalf("have %v, want %v", have, s.want)
			}
		}
	})
}

// TestFifoConcurrentReaders lets the race detector watch readers of copies.
func TestFifoConcurrentReaders(t *testing.T) {
	var f fifo[int]
	var wg sync.WaitGroup
	for i := range 2_000 {
		f.push(i)
		if i%3 == 0 {
			f.pop()
		}
		if i%50 == 0 {
			copied := f
			wg.Go(func() {
				items := itemsOf(copied)
				for j := 1; j < len(items); j++ {
					if items[j] != items[j-1]+1 {
						t.Errorf("%d follows %d", items[j], items[j-1])
					}
				}
			})
		}
	}
	wg.Wait()
	if dead := f.cut; dead > len(f.chunks)/8 {
		t.Fatalf("%d dead chunks beside %d", dead, len(f.chunks))
	}
}

// TestFifoLetsGo checks that what was dropped is not held on to: the array behind
// the chunks keeps a fraction at most.
func TestFifoLetsGo(t *testing.T) {
	var f fifo[*[64]byte]
	var dropped []weak.Pointer[[64]byte]
	for i := range 10_000 {
		f.push(new([64]byte))
		if i >= 1_600 {
			dropped = append(dropped, weak.Make(f.pop()))
			if i%1_000 != 0 {
				continue
			}
			runtime.GC()
			held := 0
			for _, p := range dropped {
				if p.Value() != nil {
					held++
				}
			}
			if held > f.len()/8+3*chunkSize {
				t.Fatalf("%d of %d dropped items are held, beside %d that are there", held, len(dropped), f.len())
			}
		}
	}
}

func itemsOf(f fifo[int]) []int {
	var items []int
	for i := range f.len() {
		items = append(items, f.at(i))
	}
	return items
}
