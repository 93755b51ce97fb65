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
)

func (r Reason) String() string {
	return [...]string{
		"", "too many failures", "failure ratio", "slow ratio", "probe failed", "probe lapsed", "probes succeeded",
		"ramp done", "time is up", "ordered", "forced", "released",
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
	// Probes are under way, and Good ones have answered well.
	Probes, Good int
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
		OpenFor: r.openFor(now), Pause: r.pause, Probes: len(r.leases), Good: r.good, Stale: b.stale.Load(),
	}
	switch {
	case r.state == Recovering && r.step < len(r.rules.Ramp):
		s.Share = r.rules.Ramp[r.step]
	case r.state <= Recovering:
		s.Share = 1
	}
	return s
}
