package mirror

import "time"

// Clock is an instance's estimate of state time, the clock by which overrides end.
// It is an offset to a monotonic clock of the instance, so it goes on while the
// instance is cut off. The zero value knows nothing. Clocks are values.
//
// Messages arrive late, never early, so of all estimates the largest is the nearest.
// It does not count for ever, because the monotonic clock may be too fast: it sinks as
// fast as that explains. State time is in milliseconds since 1970; the monotonic clock
// in nanoseconds since any moment, the same in every call.
type Clock struct {
	offset int64 // nanoseconds between the two
	seen   int64 // when the offset was looked at, by the monotonic clock
	set    bool
	guess  bool
}

// drift is the part by which the monotonic clock may be too fast: the most by which
// NTP lets a clock run fast or slow.
const drift = 500e-6

// tolerance is how far a guess may be ahead of what a server says and still count.
// An override ends early by so much at most.
const tolerance = 5 * time.Second

// latest is the last state time that is believed, in the year 2248, so that nothing
// overflows that is computed from one.
const latest = 1 << 43

// offset returns how far state time is ahead of the monotonic clock.
func offset(stateTime, mono int64) int64 {
	return min(max(stateTime, 0), latest)*int64(time.Millisecond) - mono
}

// Guess returns the clock of an instance that has only its disk to go by. A server
// that contradicts it by more than 5 s is believed.
func Guess(stateTime, mono int64) Clock {
	return Clock{offset: offset(stateTime, mono), seen: mono, set: true, guess: true}
}

// Observe returns the clock after a message of a server. It tells whether the clock
// was set back, which only a guess is: what has ended by the guess is to be looked at
// again. Otherwise it goes back by less than went by since the call before.
func (c Clock) Observe(stateTime, mono int64) (next Clock, back bool) {
	next = Clock{offset: offset(stateTime, mono), seen: mono, set: true}
	if !c.set {
		return next, false
	}
	known := c.offset - int64(drift*float64(max(0, mono-c.seen)))
	if c.guess && known-next.offset > int64(tolerance) {
		return next, true
	}
	next.offset = max(next.offset, known)
	return next, false
}

// AtLeast returns the clock of who learns, by a signed word that may have been on its
// way for long, that state time is not before this. It never goes back, and what was
// known by a server stays known by it.
func (c Clock) AtLeast(stateTime, mono int64) Clock {
	if !c.set {
		return Guess(stateTime, mono)
	}
	if told := offset(stateTime, mono); told > c.offset {
		c.offset, c.seen = told, mono
	}
	return c
}

// At returns the state time at a moment; 0 if it is not known.
func (c Clock) At(mono int64) int64 {
	if !c.set {
		return 0
	}
	return (c.offset + mono) / int64(time.Millisecond)
}

// Known tells whether state time is known, by a server or by a guess.
func (c Clock) Known() bool { return c.set }
