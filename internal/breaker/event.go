package breaker

import "time"

// Reason is why a breaker changed its state.
type Reason uint8

// Reasons of changes.
const (
	TooManyFailures Reason = iota + 1
	FailureRatio
	SlowRatio
	ProbeFailed
	ProbeLapsed     // a probe did not answer in its time
	ProbesSucceeded // enough of them
	RampDone
	TimeIsUp // of being open
	Ordered  // by the dependency
	Forced
	Released
	Fleet       // others say that the dependency is broken
	FleetOver   // they no longer do
	Vetoed      // enough results of one's own are good
	FleetProbes // probes of others succeeded
)

func (r Reason) String() string {
	return [...]string{
		"", "too many failures", "failure ratio", "slow ratio", "probe failed", "probe lapsed", "probes succeeded",
		"ramp done", "time is up", "ordered", "forced", "released", "fleet", "fleet over", "vetoed", "fleet probes",
	}[r]
}

// Event is a change of state, made once and told to whoever made it.
type Event struct {
	At         int64
	From, To   State
	Generation uint64 // of the new round
	Reason     Reason
	// Counts are what the round that ended saw, with what ended it.
	Counts Counts
	// OpenFor is how long it will be open.
	OpenFor time.Duration
}

func newEvent(now int64, from, to *round, why Reason) *Event {
	if from.state == to.state {
		return nil
	}
	return &Event{
		At: now, From: from.state, To: to.state, Generation: to.generation, Reason: why,
		Counts: from.stats.counts(now), OpenFor: to.openFor(now),
	}
}

func (r *round) openFor(now int64) time.Duration {
	if r.state != Open {
		return 0
	}
	return time.Duration(max(r.until-now, 0))
}

// Snapshot is what a breaker shows of itself.
type Snapshot struct {
	State      State
	Since      int64
	Generation uint64
	Counts     Counts
	// OpenFor is how long it will be open yet; at 0 the next call is a probe.
	OpenFor time.Duration
	// Pause is how long it was meant to be open last, before jitter; 0 if it never was.
	Pause time.Duration
	// Own is how long it would be open by its own rules, which differs from OpenFor once it
	// was postponed; below 0 where that time is over.
	Own time.Duration
	// Opened is what it saw when it opened, until it is closed again.
	Opened Counts
	// OpenedBy is why it opened, whatever probes found since; until it is closed again.
	OpenedBy Reason
	// Probes are under way, and Good ones have answered well; of one that is open by hearsay,
	// so many results in a row are good.
	Probes, Good int
	// Probed is the last answer of a probe, which came at ProbedAt.
	Probed   ProbeResult
	ProbedAt int64
	// Recent are the successes within VetoWindow.
	Recent uint64
	// Idle tells that there was no call for at least Window.
	Idle bool
	// Share is that of the calls which may pass, leaving probes aside.
	Share float64
	// Stale results came too late for their round.
	Stale uint64
}

// Snapshot shows the breaker as it is, and changes nothing: one that is Open for no
// longer becomes half-open with the next call.
func (b *Breaker) Snapshot(now int64) Snapshot {
	r := b.round.Load()
	s := Snapshot{
		State: r.state, Since: r.since, Generation: r.generation, Counts: r.stats.counts(now),
		OpenFor: r.openFor(now), Pause: r.pause, Opened: r.opened, OpenedBy: r.openedBy, Probes: len(r.leases), Good: r.good,
		Probed: r.probed, ProbedAt: r.probedAt, Share: r.share(), Stale: b.stale.Load(),
	}
	if s.Counts.Calls > 0 {
		s.Recent = r.stats.recent(now, r.rules.VetoWindow)
	}
	if r.state == Open {
		s.Own = time.Duration(r.own - now)
	}
	s.Idle = r.idle(now, s.Counts.Calls)
	return s
}

// share is that of the calls which may pass, leaving probes aside.
func (r *round) share() float64 {
	switch {
	case r.state == Hearsay:
		return r.rules.Canary
	case r.state == Recovering && r.step < len(r.rules.Ramp):
		return r.rules.Ramp[r.step]
	case r.state <= Recovering:
		return 1
	}
	return 0
}

// idle tells whether no call can have come for as long as the window is: one would have
// moved the round on.
func (r *round) idle(now int64, calls uint64) bool {
	from := r.until
	switch r.state {
	case Closed, ForcedClosed:
		return calls == 0
	case ForcedOpen:
		return false
	case HalfOpen:
		if from = r.since; len(r.leases) > 0 {
			from = r.firstEnd()
		}
	case Recovering, Hearsay, Open:
	}
	return now-from >= int64(r.rules.Window)
}
