package bulkhead

import "sync/atomic"

// Shedder drops a share of calls, the least important first, and critical ones
// never. It learns from the calls themselves how many of them are of which
// priority, so that the share is one of all calls. The zero Shedder is ready; its
// methods may be called at the same time.
type Shedder struct {
	// mix counts the calls of late by rank, in four lanes of 16 bits, Low lowest. At
	// recent calls all lanes are halved.
	mix atomic.Uint64
}

const (
	laneBits = 16
	laneMask = 1<<laneBits - 1
	recent   = 1024
	// sumLanes times a mix has the sum of the lanes in the highest one.
	sumLanes = 1<<0 | 1<<16 | 1<<32 | 1<<48
	halfMask = sumLanes * (1<<(laneBits-1) - 1)
)

// Drop counts a call and tells whether to drop it, so that about share of all calls
// is dropped. u is a random number in [0, 1).
//
// Of n calls of late of which `below` were less important and `own` as important,
// share × n are to go: all those below first, and the rest of them from the own.
func (s *Shedder) Drop(p Priority, share, u float64) bool {
	lane := laneBits * p.rank()
	mix := s.mix.Add(1 << lane)
	total := mix * sumLanes >> (3 * laneBits)
	if total >= recent {
		s.forget()
	}
	below := (mix & (1<<lane - 1)) * sumLanes >> (3 * laneBits)
	own := mix >> lane & laneMask
	return p < Critical && u*float64(own) < share*float64(total)-float64(below)
}

// forget halves the lanes. Nobody leaves before that is done, so that no lane
// overflows.
func (s *Shedder) forget() {
	for {
		mix := s.mix.Load()
		if mix*sumLanes>>(3*laneBits) < recent || s.mix.CompareAndSwap(mix, mix>>1&halfMask) {
			return
		}
	}
}
