package bulkhead

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

// An adaptive limit moves after a period of at least samplePeriod and sampleCalls.
const (
	samplePeriod = 100 * time.Millisecond
	sampleCalls  = 16
)

// sample is what was seen since the limit moved last. Its words are not read in one
// instant: a result that comes in meanwhile may count half, among at least
// sampleCalls.
type sample struct {
	counts atomic.Uint64 // [calls:32 | dropped:32]
	took   atomic.Int64  // by all that were not dropped, in ns
	peak   atomic.Int64  // most places taken
	next   atomic.Int64  // when the period has lasted long enough
}

const oneCall = 1 << 32

// Observe tells an adaptive bulkhead how long a call took, before its Release, at a
// time in ns of a clock that does not go back. Dropped ones were out of time or
// refused for overload; calls that say nothing, such as cancelled ones, are not to
// be told. Other bulkheads do nothing.
func (b *Bulkhead) Observe(now int64, took time.Duration, dropped bool) {
	if b == nil {
		return
	}
	s := &b.sample
	if taken := b.state.Load() & useMask; taken > s.peak.Load() {
		s.peak.Store(taken) // a race for the highest is lost by a little
	}
	count := uint64(oneCall)
	if dropped {
		count++
	} else {
		s.took.Add(int64(took))
	}
	if s.counts.Add(count)/oneCall >= sampleCalls && now >= s.next.Load() {
		b.adapt(now)
	}
}

// adapt moves the limit; if somebody else is about to, that is enough.
func (b *Bulkhead) adapt(now int64) {
	if !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	if now < b.sample.next.Load() || !b.adaptive.Load() {
		return
	}
	b.sample.next.Store(now + int64(samplePeriod))
	b.adapted = b.settings.Adapt(b.adapted, b.sample.end())
	b.setLimit()
}

// end returns what was seen in the period, and begins another.
func (s *sample) end() policy.Period {
	counts := s.counts.Swap(0)
	p := policy.Period{Calls: counts / oneCall, Dropped: counts % oneCall, Peak: int(s.peak.Swap(0))}
	took := s.took.Swap(0)
	if good := p.Calls - p.Dropped; good > 0 {
		p.Mean = time.Duration(took / int64(good)) //nolint:gosec // 32 bits
	}
	return p
}
