// Package clock tells monotonic time in nanoseconds, exactly or cheaply.
package clock

import (
	"sync/atomic"
	"time"
)

// Clock tells the time since some moment. Its methods may be called at the same
// time. The zero value is not a clock; see New and Manual.
type Clock struct {
	base   time.Time
	manual *atomic.Int64 // nil: base tells the time
}

// New returns the clock of the process: it does not go back, and pays no attention
// to the wall clock being set. In a bubble of testing/synctest it tells the time
// of the bubble.
func New() *Clock { return &Clock{base: time.Now()} }

// Manual returns a clock that stands still but for Advance, with the wall time
// that it begins at.
func Manual(wall time.Time) *Clock {
	return &Clock{base: wall.Round(0), manual: new(atomic.Int64)}
}

// Now returns the nanoseconds since the clock was made.
func (c *Clock) Now() int64 {
	if c.manual != nil {
		return c.manual.Load()
	}
	return int64(time.Since(c.base))
}

// Wall returns the wall time.
func (c *Clock) Wall() time.Time {
	if c.manual != nil {
		return c.base.Add(time.Duration(c.manual.Load()))
	}
	return time.Now()
}

// Left returns how long it is, at a time that Now told, until the deadline of a
// context. Unlike Until it reads no clock, unless it has to.
func (c *Clock) Left(deadline time.Time, now int64) time.Duration {
	// Contexts do not know a manual clock, and the wall clock may be set.
	if c.manual != nil || deadline == deadline.Round(0) { //nolint:staticcheck // whether it has a monotonic part
		return Until(deadline)
	}
	return deadline.Sub(c.base) - time.Duration(now)
}

// Deadline returns the moment, for a context, that is so long after a time that Now
// told.
func (c *Clock) Deadline(now int64, in time.Duration) time.Time {
	if c.manual != nil {
		return time.Now().Add(in)
	}
	return c.base.Add(time.Duration(now) + in)
}

// Until returns how long it is until a moment of the wall clock, such as the
// deadline of a context; it reads the clock of the process also where c is manual,
// because contexts do.
func Until(deadline time.Time) time.Duration { return time.Until(deadline) }

// Advance moves a manual clock. It panics for another one, which only a test can
// come to.
func (c *Clock) Advance(d time.Duration) {
	if c.manual == nil {
		panic("clock: Advance of a clock that runs by itself")
	}
	c.manual.Add(int64(d))
}
