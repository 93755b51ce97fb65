package workload

import (
	"fmt"
	"math/rand/v2"
	"sync"
)

const (
	// registerCount is how many registers are in use at a time.
	registerCount = 10
	// A checker's work grows with what happens to one register, and steeply with the
	// writes of unknown outcome: a register gives way to a fresh one in time.
	opsPerRegister      = 200
	unknownsPerRegister = 15
)

// registers deals out the names of registers. Its methods may be called at the same
// time.
type registers struct {
	mu    sync.Mutex // guards slots
	slots [registerCount]slot
}

type slot struct {
	generation    int
	ops, unknowns int
}

func (r *registers) name(i int) string { return fmt.Sprintf("reg-%d-%d", i, r.slots[i].generation) }

// take returns one for an operation.
func (r *registers) take(random *rand.Rand) string {
	i := random.IntN(registerCount)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.slots[i]
	if s.ops >= opsPerRegister || s.unknowns >= unknownsPerRegister {
		*s = slot{generation: s.generation + 1}
	}
	s.ops++
	return r.name(i)
}

// watch returns one to look at, which does not count.
func (r *registers) watch(random *rand.Rand) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name(random.IntN(registerCount))
}

// unknown tells that nobody knows what became of a write.
func (r *registers) unknown(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.slots {
		if r.name(i) == name {
			r.slots[i].unknowns++
		}
	}
}
