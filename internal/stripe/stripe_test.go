package stripe_test

import (
	"sync"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/stripe"
)

// A goroutine keeps its stripe while its stack stays where it is, many use several,
// and asking allocates nothing.
func TestIndex(t *testing.T) {
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var asked, group sync.WaitGroup
	asked.Add(200)
	for range 200 {
		group.Go(func() {
			first, moves := stripe.Index(), 0
			for range 100 {
				if i := stripe.Index(); i != first {
					first, moves = i, moves+1
				}
			}
			if first >= stripe.Count || moves > 2 { // a stack may move
				t.Errorf("stripe %d of %d after %d moves", first, stripe.Count, moves)
			}
			mu.Lock()
			seen[first] = true
			mu.Unlock()
			asked.Done()
			asked.Wait() // all live at the same time, with stacks of their own
		})
	}
	group.Wait()
	if len(seen) < stripe.Count/2 {
		t.Errorf("200 goroutines use the stripes %v", seen)
	}
	if n := testing.AllocsPerRun(100, func() { stripe.Index() }); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}
