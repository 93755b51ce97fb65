package breaker

import (
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/holdfast-dev/holdfast/internal/stripe"
)

// stats are what one round saw. Successes touch a stripe and otherwise only look.
type stats struct {
	width  uint64        // of a slice of time
	streak atomic.Uint32 // failures in a row
	last   atomic.Uint64 // the last results, newest lowest; 1 is a failure
	failed ring
	slow   ring

	neutral  atomic.Uint64
	overload atomic.Uint64
	offered  atomic.Uint64 // calls for which the ramp drew
	stripes  [stripe.Count]struct {
		calls    ring
		rejected atomic.Uint64
		_        [128 - unsafe.Sizeof(ring{}) - 8]byte
	}
}

// Counts are what a round saw: Calls, Failures and Slow in the window, the others
// since it began. Calls are those that say something about the dependency; Neutral
// and Overload are not among them.
type Counts struct {
	Calls, Failures, Slow       uint64
	Neutral, Overload, Rejected uint64
	// Streak counts the failures since the last success, and the lowest bit of
	// Last is the newest of the last 64 results; a 1 is a failure.
	Streak uint32
	Last   uint64
}

// FailureRatio is the share of failures, unless there were no calls.
func (c Counts) FailureRatio() (float64, bool) { return ratio(c.Failures, c.Calls) }

// SlowRatio is the share of slow calls, unless there were no calls.
func (c Counts) SlowRatio() (float64, bool) { return ratio(c.Slow, c.Calls) }

func ratio(part, whole uint64) (float64, bool) {
	if whole == 0 {
		return 0, false
	}
	return float64(part) / float64(whole), true
}

func newStats(width uint64) *stats { return &stats{width: width} }

func (s *stats) slice(now int64) uint64 { return uint64(now) / s.width } //nolint:gosec // the clock starts at 0 or later

func (s *stats) success(now int64) {
	s.stripes[stripe.Index()].calls.add(s.slice(now))
	if s.streak.Load() != 0 {
		s.streak.Store(0)
	}
	if s.last.Load() != 0 {
		s.remember(0)
	}
}

// count notes a result. A failure is in place everywhere before its caller weighs
// it, so that of several at once at least one sees them all.
func (s *stats) count(now int64, c Class, slow bool) {
	switch c {
	case Neutral:
		s.neutral.Add(1)
		return
	case Overload:
		s.overload.Add(1)
		return
	case Success, Slow:
		s.success(now)
	case Failure:
		s.stripes[stripe.Index()].calls.add(s.slice(now))
		s.failed.add(s.slice(now))
		s.streak.Add(1)
		s.remember(1)
	}
	if slow {
		s.slow.add(s.slice(now))
	}
}

func (s *stats) remember(bit uint64) {
	for {
		w := s.last.Load()
		if s.last.CompareAndSwap(w, w<<1|bit) {
			return
		}
	}
}

func (s *stats) reject() { s.stripes[stripe.Index()].rejected.Add(1) }

func (s *stats) counts(now int64) Counts {
	slice := s.slice(now)
	c := Counts{
		Failures: s.failed.sum(slice), Slow: s.slow.sum(slice),
		Neutral: s.neutral.Load(), Overload: s.overload.Load(),
		Streak: s.streak.Load(), Last: s.last.Load(),
	}
	for i := range s.stripes {
		c.Calls += s.stripes[i].calls.sum(slice)
		c.Rejected += s.stripes[i].rejected.Load()
	}
	return c
}

// successes counts all good results of the round, old ones too.
func (s *stats) successes() uint64 {
	var calls uint64
	for i := range s.stripes {
		calls += s.stripes[i].calls.total()
	}
	bad := s.failed.total() + s.slow.total()
	return calls - min(bad, calls)
}

// recent counts good results of the last d, in whole slices: at least of the current one, and
// none that is older than d where d is longer than a slice.
func (s *stats) recent(now int64, d time.Duration) uint64 {
	slice, most := s.slice(now), min((uint64(d)+s.width-1)/s.width, slots) //nolint:gosec // positive
	var calls uint64
	for i := range s.stripes {
		calls += s.stripes[i].calls.recent(slice, most)
	}
	bad := s.failed.recent(slice, most) + s.slow.recent(slice, most)
	return calls - min(bad, calls)
}

// resliced are the same statistics for a window of another width. What was in the
// window counts as new, since how old it is gets lost.
func (s *stats) resliced(now int64, width uint64) *stats {
	if s.width == width {
		return s
	}
	next, from := newStats(width), s.slice(now)
	next.streak.Store(s.streak.Load())
	next.last.Store(s.last.Load())
	next.neutral.Store(s.neutral.Load())
	next.overload.Store(s.overload.Load())
	move := func(to, of *ring) {
		n := of.sum(from)
		total := of.total()
		to.carry(n, total-min(n, total), next.slice(now))
	}
	move(&next.failed, &s.failed)
	move(&next.slow, &s.slow)
	for i := range s.stripes {
		move(&next.stripes[i].calls, &s.stripes[i].calls)
		next.stripes[i].rejected.Store(s.stripes[i].rejected.Load())
	}
	return next
}

// reason weighs what was seen against the triggers.
func (s *stats) reason(now int64, of *rules, volume int) Reason {
	if of.FailureThreshold > 0 {
		failures := int(s.streak.Load())
		if of.last != 0 {
			failures = bits.OnesCount64(s.last.Load() & of.last)
		}
		if failures >= of.FailureThreshold {
			return TooManyFailures
		}
	}
	if of.FailureRatio == 0 && of.SlowRatio == 0 {
		return 0
	}
	c := s.counts(now)
	if c.Calls < uint64(volume) { //nolint:gosec // at least 1
		return 0
	}
	if share, _ := c.FailureRatio(); of.FailureRatio > 0 && share >= of.FailureRatio {
		return FailureRatio
	}
	if share, _ := c.SlowRatio(); of.SlowRatio > 0 && share >= of.SlowRatio {
		return SlowRatio
	}
	return 0
}
