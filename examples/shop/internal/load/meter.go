package load

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
)

// Outcome is what a customer got.
type Outcome uint8

// The outcomes, from good to bad.
const (
	// OK is the real thing.
	OK Outcome = iota
	// Degraded is a lesser answer, which says so.
	Degraded
	// Refused is a call that an operator decided not to serve.
	Refused
	// Failed is everything else.
	Failed
	outcomes
)

// String returns the word.
func (o Outcome) String() string { return [...]string{"ok", "degraded", "refused", "failed"}[o] }

// The meter looks back over so many slices of time.
const (
	sliceCount = 5
	sliceWidth = time.Second
)

// Latencies are counted in buckets that grow by a fifth from 100 µs: 70 reach to
// half a minute.
const (
	buckets     = 70
	firstBucket = 100 * time.Microsecond
	growth      = 1.2
)

// Counts are how many calls had each outcome.
type Counts [outcomes]uint64

// String names what there is.
func (c Counts) String() string {
	var parts []string
	for o, n := range c {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, Outcome(o)))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// All is the sum.
func (c Counts) All() uint64 { return c[OK] + c[Degraded] + c[Refused] + c[Failed] }

// Minus is what was added since an earlier count.
func (c Counts) Minus(before Counts) Counts {
	for i := range c {
		c[i] -= before[i]
	}
	return c
}

// Share is that of an outcome among all, from 0 to 1.
func (c Counts) Share(o Outcome) float64 {
	if c.All() == 0 {
		return 0
	}
	return float64(c[o]) / float64(c.All())
}

// Reading is what a meter shows.
type Reading struct {
	// Total counts since the beginning, Recent in the last seconds.
	Total, Recent Counts
	// PerSecond is how many calls ended, P50 and P99 how long they took; of the last
	// seconds, too.
	PerSecond float64
	P50, P99  time.Duration
}

// meter counts calls. Its zero value is ready.
type meter struct {
	mu     sync.Mutex // guards the rest
	total  Counts
	slices [sliceCount]slice
}

type slice struct {
	number  int64 // which slice since the beginning; others are out of date
	counts  Counts
	latency [buckets]uint32
}

// add counts a call that ended at a time since the beginning.
func (m *meter) add(at time.Duration, outcome Outcome, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	number := int64(at / sliceWidth)
	s := &m.slices[number%sliceCount]
	if s.number != number {
		*s = slice{number: number}
	}
	m.total[outcome]++
	s.counts[outcome]++
	s.latency[bucketOf(took)]++
}

// read sums the slices that ended last before a time, so that a slice which has
// just begun makes no dent.
func (m *meter) read(at time.Duration) Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := Reading{Total: m.total}
	now := int64(at / sliceWidth)
	var latency [buckets]uint32
	for i := range m.slices {
		s := &m.slices[i]
		if s.number >= now || s.number <= now-sliceCount {
			continue
		}
		for o, n := range s.counts {
			r.Recent[o] += n
		}
		for b, n := range s.latency {
			latency[b] += n
		}
	}
	if span := min(now, sliceCount-1); span > 0 {
		r.PerSecond = float64(r.Recent.All()) / (time.Duration(span) * sliceWidth).Seconds()
	}
	r.P50, r.P99 = quantile(&latency, r.Recent.All(), 0.5), quantile(&latency, r.Recent.All(), 0.99)
	return r
}

func bucketOf(took time.Duration) int {
	if took <= firstBucket {
		return 0
	}
	return min(buckets-1, int(math.Ceil(math.Log(float64(took)/float64(firstBucket))/math.Log(growth))))
}

// quantile is the upper end of the bucket that holds it.
func quantile(latency *[buckets]uint32, all uint64, q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(all)))
	var seen uint64
	for b, n := range latency {
		if seen += uint64(n); n > 0 && seen >= rank {
			return time.Duration(float64(firstBucket) * math.Pow(growth, float64(b)))
		}
	}
	return 0
}
