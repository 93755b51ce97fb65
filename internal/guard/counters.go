package guard

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/stripe"
)

// counter is something that a target counts.
type counter uint16

const (
	// clean counts calls whose first attempt succeeded: nearly all of them, hence one
	// addition for each and not one for the call, the attempt and its result.
	clean counter = iota
	// unclean counts calls of which an attempt was made, and that are not clean.
	unclean
	// gone counts calls that were given up by their callers before an attempt.
	gone
	results     // by class
	rejected    = results + classes
	observed    = rejected + reasons // by reason
	transitions = observed + reasons // by state
	retries     = transitions + states
)

const (
	retriesRefusedBudget = retries + 1 + iota
	retriesRefusedDeadline
	retriesRejected
	retrySuccesses
	hedges
	hedgeWins
	timeouts
	timeoutTime
	waits
	waitTime
	hearsay // attempts that were, or would have been, rejected by it
	counted // how many counters there are
)

const (
	classes = 5 // of results
	states  = 7 // of breakers
)

// counters are counted in stripes, so that cores do not wait for each other.
type counters [stripe.Count]struct {
	n [counted]atomic.Uint64
	_ [128 - counted*8%128]byte
}

// add counts, and returns what the stripe has now.
func (c *counters) add(which counter, n uint64) uint64 { return c[stripe.Index()].n[which].Add(n) }

// duration returns a sum of nanoseconds.
func (c *counters) duration(which counter) time.Duration {
	return time.Duration(c.sum(which)) //nolint:gosec // 292 years
}

func (c *counters) sum(which counter) uint64 {
	var n uint64
	for i := range c {
		n += c[i].n[which].Load()
	}
	return n
}
