package bulkhead

import (
	"math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestPriorities(t *testing.T) {
	for _, p := range []Priority{Low, Normal, High, Critical} {
		if got, ok := ParsePriority(p.String()); got != p || !ok {
			t.Errorf("%v is read as %v, %v", p, got, ok)
		}
	}
	if p, ok := ParsePriority(""); p != Normal || !ok {
		t.Errorf("unsaid is %v, %v", p, ok)
	}
	if p, ok := ParsePriority("urgent"); p != Normal || ok {
		t.Errorf("an unknown word is %v, %v", p, ok)
	}
	var zero Priority
	if zero != Normal || Priority(-128).String() != "low" || Priority(127).String() != "critical" {
		t.Error("priorities are not in order")
	}
}

// shed makes n calls of a mix and returns the share of each class that was dropped,
// and of all.
func shed(s *Shedder, draw *rand.Rand, mix [priorities]float64, share float64, n int) (class [priorities]float64, all float64) {
	var calls [priorities]float64
	for range n {
		rank, r := 0, draw.Float64()
		for r >= mix[rank] && rank < priorities-1 {
			r -= mix[rank]
			rank++
		}
		calls[rank]++
		if s.Drop(Priority(rank)+Low, share, draw.Float64()) {
			class[rank]++
			all++
		}
	}
	for rank := range class {
		class[rank] /= max(calls[rank], 1)
	}
	return class, all / float64(n)
}

func TestShare(t *testing.T) {
	const n = 50_000
	for _, c := range []struct {
		name  string
		mix   [priorities]float64
		share float64
		class [priorities]float64
		all   float64
	}{
		{"nothing", [4]float64{0.25, 0.25, 0.25, 0.25}, 0, [4]float64{}, 0},
		{"one class", [4]float64{0, 1, 0, 0}, 0.3, [4]float64{0, 0.3, 0, 0}, 0.3},
		{"a part of the lowest", [4]float64{0.4, 0.4, 0.1, 0.1}, 0.1, [4]float64{0.25, 0, 0, 0}, 0.1},
		{"the lowest and a part of the next", [4]float64{0.2, 0.4, 0.3, 0.1}, 0.4, [4]float64{1, 0.5, 0, 0}, 0.4},
		{"up to the critical ones", [4]float64{0.2, 0.2, 0.2, 0.4}, 0.5, [4]float64{1, 1, 0.5, 0}, 0.5},
		{"not the critical ones", [4]float64{0.1, 0.1, 0.1, 0.7}, 0.9, [4]float64{1, 1, 1, 0}, 0.3},
		{"all of it", [4]float64{0.1, 0.4, 0.4, 0.1}, 1, [4]float64{1, 1, 1, 0}, 0.9},
		{"a rare class", [4]float64{0.001, 0.999, 0, 0}, 0.5, [4]float64{1, 0.4995, 0, 0}, 0.5},
	} {
		class, all := shed(new(Shedder), rand.New(rand.NewPCG(1, 2)), c.mix, c.share, n)
		near := func(what string, got, want, by float64) {
			if got < want-by || got > want+by {
				t.Errorf("%s: %.3f of %s dropped, want %.3f", c.name, got, what, want)
			}
		}
		near("all", all, c.all, 0.01)
		for rank := range class {
			if c.mix[rank] > 0.01 {
				near((Priority(rank) + Low).String(), class[rank], c.class[rank], 0.06)
			}
		}
	}
}

// TestMixIsLearnt from the first call on, and anew when it changes.
func TestMixIsLearnt(t *testing.T) {
	s, draw := new(Shedder), rand.New(rand.NewPCG(3, 4))
	if _, all := shed(s, draw, [4]float64{0.5, 0.5, 0, 0}, 0.5, 200); all < 0.4 || all > 0.6 {
		t.Errorf("%v of the first calls", all)
	}
	shed(s, draw, [4]float64{1, 0, 0, 0}, 0.5, 10_000)
	shed(s, draw, [4]float64{0, 0, 1, 0}, 0.5, 3*recent)
	if _, all := shed(s, draw, [4]float64{0, 0, 1, 0}, 0.5, 1000); all < 0.4 {
		t.Errorf("%v, after the mix has changed", all)
	}
}

// naiveShedder is what a Shedder does, with plain numbers.
type naiveShedder struct{ calls [priorities]int }

func (n *naiveShedder) drop(p Priority, share, u float64) bool {
	rank := int(p - Low)
	n.calls[rank]++
	total, below, own := 0, 0, n.calls[rank]
	for r, calls := range n.calls {
		total += calls
		if r < rank {
			below += calls
		}
	}
	if total >= recent {
		for r := range n.calls {
			n.calls[r] /= 2
		}
	}
	return p != Critical && u*float64(own) < share*float64(total)-float64(below)
}

func TestShedderIsTheNaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Shedder
		var naive naiveShedder
		draw := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range 5 {
			top := rapid.IntRange(1, 4).Draw(t, "classes")
			share := rapid.Float64Range(0, 1).Draw(t, "share")
			for range 700 {
				p, u := Priority(draw.IntN(top))+Low, draw.Float64()
				if got, want := s.Drop(p, share, u), naive.drop(p, share, u); got != want {
					t.Fatalf("%v with %v and %v: %v, want %v", p, share, u, got, want)
				}
			}
		}
	})
}

// TestShedderUnderStress: lanes do not run into each other.
func TestShedderUnderStress(t *testing.T) {
	var s Shedder
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 5000 {
				p := Priority(worker%2) + Normal // Normal and High
				if s.Drop(p, 0, 0) || s.mix.Load()&laneMask != 0 || s.mix.Load()>>(3*laneBits) != 0 {
					t.Errorf("call %d: mix %x", i, s.mix.Load())
					return
				}
			}
		})
	}
	group.Wait()
	if mix := s.mix.Load(); mix*sumLanes>>(3*laneBits) >= recent {
		t.Errorf("mix %x", mix)
	}
}

func TestShedderCostsNothing(t *testing.T) {
	var s Shedder
	if n := testing.AllocsPerRun(2000, func() { s.Drop(Normal, 0.5, 0.7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkShedder(b *testing.B) {
	var s Shedder
	for b.Loop() {
		s.Drop(Normal, 0.5, 0.7)
	}
}
