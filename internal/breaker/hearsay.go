package breaker

import (
	"sync"
	"time"
)

const (
	// firstCanary is how long one that is open by hearsay waits, give or take Jitter, until it
	// lets a call through whatever the share is, or Timeout where that is less: hearsay holds
	// back no longer than own evidence would. Each such call doubles the wait for the next
	// one, up to lastCanary. After a good result it is nextCanary.
	firstCanary = 5 * time.Second
	nextCanary  = time.Second
	lastCanary  = 30 * time.Second
	// patience is how many times MaxTimeout, give or take Jitter, probes can be postponed
	// beyond the breaker's own time: others may be lying, or gone.
	patience = 10
)

// Canaries is what the breakers of one dependency share, so that one that is dead gets few
// canaries from an instance however many methods it calls: beside its own wait each canary
// stays firstCanary, or Timeout, away from those of the others. They line up in the order of
// the first call after their own wait, so that none is left out, however seldom it is called:
// one method may be well while others are not. Once one has gone well nobody waits for
// another. The zero value is ready to use.
type Canaries struct {
	mu   sync.Mutex // only ever tried: no call waits
	free int64      // the first turn that nobody has; 0 if nobody has one
}

// Share lets the breaker take turns with others in letting canaries through. It has to be
// called before any other method.
func (b *Breaker) Share(c *Canaries) { b.canaries = c }

// canary decides on a call in r, open by hearsay and with its own wait over, unless r is
// over. Of calls in the same instant one takes its turn or lines up.
func (b *Breaker) canary(now int64, r *round) (a Admission, done bool) {
	c := b.canaries
	if !c.mu.TryLock() {
		return rejected(r, 0, nil), true
	}
	defer c.mu.Unlock()
	next, turn, free := r.stepped(now), r.turn, c.free
	switch {
	case r.good > 0:
		turn, free = 0, 0
	case turn == 0 || turn >= free: // or the line that it stood in is gone
		turn = max(free, now)
		free = turn + next.apart()
	}
	if turn > now {
		next = r.with(func(n *round) { n.turn = turn })
	}
	if !b.round.CompareAndSwap(r, next) {
		return a, false
	}
	c.free = free
	if turn > now {
		return rejected(next, turn-now, nil), true
	}
	return admitted(next, nil), true
}

// apart is how long the next turn of any comes after the one that made the round what it
// is: never longer than the round's own wait, so one alone waits for itself only.
func (r *round) apart() int64 {
	return int64(r.jittered(min(r.wait, firstCanary, r.rules.Timeout)))
}

// ProbeResult is what a probe found.
type ProbeResult uint8

// What probes find. One that lapses is bad.
const (
	NoProbe ProbeResult = iota
	GoodProbe
	BadProbe
)

func (p ProbeResult) String() string { return [...]string{"none", "good", "bad"}[p] }

// Heed opens by hearsay, if the breaker is closed and Heeds. It returns what changed, nil for
// nothing.
//
// The round goes on: calls under way still count, and what opened the breaker on its own
// account would open it now.
func (b *Breaker) Heed(now int64, suspects, idle bool) *Event {
	for {
		r := b.round.Load()
		if !r.heeds(now, suspects, idle) {
			return nil
		}
		next := r.with(func(n *round) {
			n.state, n.since, n.good, n.turn = Hearsay, now, 0, 0
			n.waits(now, min(firstCanary, n.rules.Timeout))
		})
		if b.round.CompareAndSwap(r, next) {
			return newEvent(now, r, next, Fleet)
		}
	}
}

// Dismiss ends being open by hearsay: with the ramp, since all who heeded the same come back
// at the same time.
func (b *Breaker) Dismiss(now int64) *Event {
	for {
		r := b.round.Load()
		if r.state != Hearsay {
			return nil
		}
		if next := r.recovering(now); b.round.CompareAndSwap(r, next) {
			return newEvent(now, r, next, FleetOver)
		}
	}
}

// Postpone says when probes may begin, earlier or later than by the breaker's own rules,
// but not earlier than what the dependency ordered and not later than patience allows. It
// tells whether that is another time than before: the breaker is open, and of this generation.
func (b *Breaker) Postpone(generation uint64, until int64) bool {
	for {
		r := b.round.Load()
		if r.state != Open || r.generation != generation {
			return false
		}
		at := min(until, r.own+patience*int64(r.jittered(r.rules.MaxTimeout)))
		if r.ordered {
			at = max(at, r.own)
		}
		if at == r.until {
			return false
		}
		if b.round.CompareAndSwap(r, r.with(func(n *round) { n.until = at })) {
			return true
		}
	}
}

// Unpostpone lets probes begin by the breaker's own rules again, and tells whether it is
// open and of this generation.
func (b *Breaker) Unpostpone(generation uint64) bool {
	for {
		r := b.round.Load()
		if r.state != Open || r.generation != generation {
			return false
		}
		if r.until == r.own || b.round.CompareAndSwap(r, r.with(func(n *round) { n.until = n.own })) {
			return true
		}
	}
}

// Recover begins the ramp because probes of others succeeded, if the breaker is open or
// half-open, of this generation, and not open for as long as the dependency ordered. What
// its own probes find that are under way no longer counts.
func (b *Breaker) Recover(now int64, generation uint64) *Event {
	for {
		r := b.round.Load()
		if r.state != Open && r.state != HalfOpen || r.generation != generation || r.ordered && now < r.own {
			return nil
		}
		if next := r.recovering(now); b.round.CompareAndSwap(r, next) {
			return newEvent(now, r, next, FleetProbes)
		}
	}
}

// Heeds tells whether the breaker is closed and would believe others: where suspects is true
// because its last result is a failure and in the window, where idle is true for want of
// calls. Its own successes within VetoWindow let it believe nobody.
func (b *Breaker) Heeds(now int64, suspects, idle bool) bool {
	return b.round.Load().heeds(now, suspects, idle)
}

// Vetoes tells whether its own successes would keep the breaker from believing others.
func (b *Breaker) Vetoes(now int64) bool { return b.round.Load().vetoes(now) }

// Generation returns that of the round, which each opening, probing and recovery changes.
func (b *Breaker) Generation() uint64 { return b.round.Load().generation }

// Trouble counts the failures in the window, and tells whether the breaker is open or
// half-open by what it saw itself.
func (b *Breaker) Trouble(now int64) (failures uint64, open bool) {
	r := b.round.Load()
	return r.stats.failed.sum(r.stats.slice(now)), r.state == Open || r.state == HalfOpen
}

func (r *round) heeds(now int64, suspects, idle bool) bool {
	if r.state != Closed || r.vetoes(now) {
		return false
	}
	if suspects && r.stats.streak.Load() > 0 && r.stats.failed.sum(r.stats.slice(now)) > 0 {
		return true
	}
	return idle && r.stats.counts(now).Calls == 0
}

func (r *round) vetoes(now int64) bool {
	return r.stats.recent(now, r.rules.VetoWindow) >= uint64(r.rules.VetoSuccesses) //nolint:gosec // at least 1
}

// waits lets the next call through after a wait, in a round that nobody else has seen yet.
func (r *round) waits(now int64, wait time.Duration) {
	r.wait = wait
	r.until = now + int64(r.jittered(r.wait))
}

// heard is the round after a result while it is open by hearsay. The successes that veto
// it are the first ones of the round that follows: else it would heed again at once.
func (r *round) heard(now int64, c Class, slow bool) (*round, Reason) {
	switch {
	case c == Neutral || c == Overload:
		return nil, 0
	case c == Failure || slow && r.rules.SlowRatio > 0:
		if r.good == 0 {
			return nil, 0
		}
		return r.with(func(n *round) { n.good = 0 }), 0
	case r.good+1 < r.rules.VetoSuccesses:
		return r.with(func(n *round) {
			n.good++
			if n.waits(now, min(nextCanary, n.rules.Timeout)); n.until > r.until {
				n.until = r.until
			}
		}), 0
	}
	next := r.next(now, Closed)
	for range r.rules.VetoSuccesses {
		next.stats.success(now)
	}
	return next, Vetoed
}
