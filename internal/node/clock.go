package node

import (
	"sync/atomic"
	"time"
)

// clock knows state time: it stamps commands while this server leads, and
// estimates it otherwise. It is safe for concurrent use.
//
// A leader stamps max(state time, wall clock at its election) plus what its
// monotonic clock has counted since: its wall clock may jump, the stamps do not,
// and ends of overrides keep their distance across a change of leaders.
type clock struct {
	leading atomic.Pointer[anchor] // nil while this server does not lead
	applied atomic.Pointer[anchor] // the newest stamp applied
}

// anchor ties a state time to an instant of the monotonic clock.
type anchor struct {
	state int64 // unix milliseconds
	at    time.Time
}

func (a *anchor) now() int64 { return a.state + time.Since(a.at).Milliseconds() }

// lead begins stamping.
func (c *clock) lead(stateTime int64) {
	now := time.Now()
	c.leading.Store(&anchor{state: max(stateTime, now.UnixMilli()), at: now})
}

// follow ends stamping.
func (c *clock) follow() { c.leading.Store(nil) }

// stamp returns the time for a command; ok is false while this server does not
// lead.
func (c *clock) stamp() (ms int64, ok bool) {
	a := c.leading.Load()
	if a == nil {
		return 0, false
	}
	return a.now(), true
}

// advance notes the state time after commands were applied.
func (c *clock) advance(stateTime int64) {
	if a := c.applied.Load(); a != nil && a.state == stateTime {
		return // an older instant makes the better estimate
	}
	c.applied.Store(&anchor{state: stateTime, at: time.Now()})
}

// estimate returns what state time is now, as well as this server can tell: late
// by as much as it is behind the leader.
func (c *clock) estimate() time.Time {
	if a := c.leading.Load(); a != nil {
		return time.UnixMilli(a.now())
	}
	if a := c.applied.Load(); a != nil {
		return time.UnixMilli(a.now())
	}
	return time.UnixMilli(0)
}
