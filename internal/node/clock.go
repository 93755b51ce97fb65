package node

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// clock knows state time: it stamps commands while this server leads, and
// estimates it otherwise. It is safe for concurrent use.
//
// A leader stamps max(state time, wall clock at its election) plus what its
// monotonic clock has counted since: its wall clock may jump, the stamps do not,
// and ends of overrides keep their distance across a change of leaders.
type clock struct {
	leading atomic.Pointer[anchor] // nil while this server does not lead
	lower   atomic.Pointer[anchor] // the best lower bound known
	told    atomic.Bool            // see known
}

// anchor ties a state time to an instant of the monotonic clock.
type anchor struct {
	state int64 // unix milliseconds
	at    time.Time
}

func (a *anchor) now() int64 { return a.state + time.Since(a.at).Milliseconds() }

// lead begins stamping. The estimate counts as state time: others may have made
// the same, and time must not go back for them.
func (c *clock) lead() {
	now := time.Now()
	c.leading.Store(&anchor{state: max(c.estimate().UnixMilli(), now.UnixMilli()), at: now})
	c.told.Store(true)
}

// follow ends stamping.
func (c *clock) follow() {
	if a := c.leading.Swap(nil); a != nil {
		c.advance(a.now())
	}
}

// stamp returns the time for a command; ok is false while this server does not
// lead.
func (c *clock) stamp() (ms int64, ok bool) {
	a := c.leading.Load()
	if a == nil {
		return 0, false
	}
	if seam.Bug(seam.StampsByWallClock) {
		return time.Now().UnixMilli(), true
	}
	return a.now(), true
}

// advance notes that state time is at least this, because a command with this
// stamp was applied. Commands that are applied late, after a restart or a cut
// link, say less than what is known already.
func (c *clock) advance(stateTime int64) {
	next := &anchor{state: stateTime, at: time.Now()}
	for {
		have := c.lower.Load()
		if have != nil && have.now() >= stateTime || c.lower.CompareAndSwap(have, next) {
			return
		}
	}
}

// learn notes that the leader's clock shows this or more.
func (c *clock) learn(stateTime int64) {
	c.advance(stateTime)
	c.told.Store(true)
}

// known tells whether the estimate rests on a leader's word. After a restart it
// rests on commands alone first, and is late by as long as the server was away.
func (c *clock) known() bool { return c.told.Load() }

// estimate returns what state time is now, as well as this server can tell: late
// by what the leader's messages took, never early.
func (c *clock) estimate() time.Time {
	if a := c.leading.Load(); a != nil {
		return time.UnixMilli(a.now())
	}
	if a := c.lower.Load(); a != nil {
		return time.UnixMilli(a.now())
	}
	return time.UnixMilli(0)
}
