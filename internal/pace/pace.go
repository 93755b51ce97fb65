// Package pace bounds how often something happens.
package pace

import (
	"sync/atomic"
	"time"
)

// Limit is how many events may pass in a second, and how many at once. Both have to be
// above zero.
type Limit struct{ Rate, Burst float64 }

// span is how long it takes until so many events may have passed.
func (l Limit) span(events float64) int64 {
	return int64(events / l.Rate * float64(time.Second))
}

// Bucket lets events pass within a limit, always the same one. It is a token bucket that
// is kept as the moment at which it is full again (the generic cell rate algorithm, ITU-T
// I.371). The zero value is full. It may be used concurrently.
//
// Times are in nanoseconds of one clock that begins at zero or later. Where the clock is
// set back, the bucket is empty at worst from the next Take on; where it leaps ahead, full.
type Bucket struct{ full atomic.Int64 }

// owed is how long it takes until a bucket is full again.
func owed(full, now int64, l Limit) int64 {
	return min(max(0, full-now), l.span(l.Burst))
}

// Take tells whether so many events may pass now, and counts them if they may. More than
// the burst never may.
func (b *Bucket) Take(now int64, events float64, l Limit) bool {
	for {
		full := b.full.Load()
		next := owed(full, now, l)
		passes := next+l.span(events) <= l.span(l.Burst)
		if passes {
			next += l.span(events)
		}
		if b.full.CompareAndSwap(full, now+next) {
			return passes
		}
	}
}

// Wait returns how long it takes until so many events, at most the burst, may pass; zero
// if they may now.
func (b *Bucket) Wait(now int64, events float64, l Limit) time.Duration {
	return time.Duration(max(0, owed(b.full.Load(), now, l)+l.span(events)-l.span(l.Burst)))
}
