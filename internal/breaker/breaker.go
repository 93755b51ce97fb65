package breaker

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/hash"
)

// Class is what a result says about the dependency.
type Class uint8

// Classes of results. Neutral ones say nothing: cancelled by the caller, refused
// before they were sent, malformed. Overload says that the dependency refuses work
// that it could do at another time.
const (
	Success Class = iota
	Failure
	Slow // a success that took too long
	Neutral
	Overload
)

// Ticket names the round in which a call was admitted, and a probe's lease. The
// zero Ticket belongs to no round.
type Ticket struct{ word uint64 } // [generation:40 | lease:24]

// leaseBits hold the number of a lease; 0 is none. They come round after 16
// million leases of one generation, of which only a few are out.
const leaseBits = 24

func newTicket(generation uint64, lease uint32) Ticket {
	return Ticket{generation<<leaseBits | uint64(lease)}
}

func (t Ticket) generation() uint64 { return t.word >> leaseBits }
func (t Ticket) lease() uint32      { return uint32(t.word & (1<<leaseBits - 1)) } //nolint:gosec // masked

// Probe tells whether the call is a probe, which should end within ProbeTime.
func (t Ticket) Probe() bool { return t.lease() != 0 }

// Admission is the answer to a call, of four words: more would not travel in
// registers.
type Admission struct {
	Ticket   Ticket
	Admitted bool
	// RetryAfter is how soon a rejected call may be worth another try; 0 if nobody
	// knows, as while forced open.
	RetryAfter time.Duration
	// Event tells what changed on this occasion, nil for nothing.
	Event *Event
}

// Hearsay tells that the call was rejected because of what others say. It has no field for
// the reason that the size has: more than four would travel through memory as well.
func (a Admission) Hearsay() bool { return a.Ticket == unheard() }

// unheard is the ticket of a call that was rejected by hearsay. It belongs to no round.
func unheard() Ticket { return newTicket(0, 1) }

// Breaker guards one dependency. Its methods may be called at the same time; none
// waits.
type Breaker struct {
	round    atomic.Pointer[round]
	canaries *Canaries
	_        [48]byte // what is read by each call apart from what is written
	stale    atomic.Uint64
}

// New returns a closed breaker. The seed decides its jitter and which calls its
// ramp admits: breakers of different instances need different ones.
func New(now int64, s Settings, seed uint64) *Breaker {
	b := &Breaker{canaries: new(Canaries)}
	first := &round{rules: newRules(s), seed: hash.Nth(seed)}
	b.round.Store(first.next(now, Closed))
	return b
}

// Admit decides on a call.
func (b *Breaker) Admit(now int64) Admission {
	r := b.round.Load()
	if r.state <= ForcedClosed {
		return Admission{Ticket: newTicket(r.generation, 0), Admitted: true}
	}
	if wait := r.until - now; r.state == Open && wait > 0 {
		r.stats.reject()
		return Admission{RetryAfter: time.Duration(wait)}
	}
	return b.admit(now)
}

// ProbeTime is how long a probe that is admitted now may take.
func (b *Breaker) ProbeTime() time.Duration { return b.round.Load().probeTime() }

func (b *Breaker) admit(now int64) Admission {
	for {
		r := b.round.Load()
		switch r.state {
		case Closed, ForcedClosed:
			return admitted(r, nil)
		case ForcedOpen:
			return rejected(r, 0, nil)
		case Open:
			if now < r.until {
				return rejected(r, r.until-now, nil)
			}
			if next := r.probing(now); b.round.CompareAndSwap(r, next) {
				return admitted(next, newEvent(now, r, next, TimeIsUp))
			}
		case HalfOpen:
			if a, done := b.probe(now, r); done {
				return a
			}
		case Recovering, Hearsay:
			if a, done := b.ramp(now, r); done {
				return a
			}
		}
	}
}

// probe decides on a call while r is half-open, unless r is over.
func (b *Breaker) probe(now int64, r *round) (a Admission, done bool) {
	end := r.firstEnd()
	if end <= now {
		next := r.open(now, end, ProbeLapsed).after(now, BadProbe)
		if !b.round.CompareAndSwap(r, next) {
			return a, false
		}
		return rejected(next, next.until-now, newEvent(now, r, next, ProbeLapsed)), true
	}
	if len(r.leases) >= r.rules.Probes {
		return rejected(r, end-now, nil), true
	}
	next := r.with(func(n *round) { n.lend(now) })
	return admitted(next, nil), b.round.CompareAndSwap(r, next)
}

// ramp decides on a call while r lets a share pass, unless r is over.
func (b *Breaker) ramp(now int64, r *round) (a Admission, done bool) {
	if now < r.until {
		if r.admits() {
			return admitted(r, nil), true
		}
		return rejected(r, r.until-now, nil), true
	}
	if r.state == Hearsay {
		return b.canary(now, r)
	}
	next := r.stepped(now)
	if !b.round.CompareAndSwap(r, next) {
		return a, false
	}
	return admitted(next, newEvent(now, r, next, RampDone)), true
}

func admitted(r *round, e *Event) Admission {
	lease := uint32(0)
	if r.state == HalfOpen {
		lease = r.issued
	}
	return Admission{Ticket: newTicket(r.generation, lease), Admitted: true, Event: e}
}

func rejected(r *round, wait int64, e *Event) Admission {
	r.stats.reject()
	a := Admission{RetryAfter: time.Duration(max(wait, 0)), Event: e}
	if r.state == Hearsay {
		a.Ticket = unheard()
	}
	return a
}

// Record takes the result of an admitted call that took so long, and returns what
// changed, nil for nothing. A result of an earlier round is dropped.
func (b *Breaker) Record(now int64, t Ticket, c Class, took time.Duration) *Event {
	r := b.round.Load()
	if c == Success && r.state == Closed && newTicket(r.generation, 0) == t && took < r.rules.slowAfter {
		r.stats.success(now)
		return nil
	}
	return b.record(now, t, c, took)
}

func (b *Breaker) record(now int64, t Ticket, c Class, took time.Duration) *Event {
	counted := false
	for {
		r := b.round.Load()
		slow := c == Slow || (c == Success || c == Failure) && took >= r.rules.slowAfter
		if !r.admitted(t) {
			if !counted {
				b.stale.Add(1)
			}
			return nil
		}
		if !counted {
			r.stats.count(now, c, slow)
			counted = true
		}
		next, why := r.recorded(now, t, c, slow)
		if next == nil {
			return nil
		}
		if b.round.CompareAndSwap(r, next) {
			return newEvent(now, r, next, why)
		}
	}
}

// OpenFor records a call whose answer orders callers to stay away for so long, and
// opens. It does nothing where the breaker is forced or the round is over.
func (b *Breaker) OpenFor(now int64, t Ticket, pause time.Duration) *Event {
	counted := false
	for {
		r := b.round.Load()
		if !r.admitted(t) {
			if !counted {
				b.stale.Add(1)
			}
			return nil
		}
		if !counted {
			r.stats.count(now, Failure, false)
			counted = true
		}
		if r.state == ForcedClosed {
			return nil
		}
		next := r.opening(now, now+int64(min(max(pause, shortest), r.rules.MaxTimeout)), Ordered)
		next.ordered = true
		if b.round.CompareAndSwap(r, next) {
			return newEvent(now, r, next, Ordered)
		}
	}
}

// Force holds the breaker open or closed until it is released, whatever happens.
func (b *Breaker) Force(now int64, open bool) *Event {
	to := ForcedClosed
	if open {
		to = ForcedOpen
	}
	for {
		r := b.round.Load()
		if r.state == to {
			return nil
		}
		if next := r.next(now, to); b.round.CompareAndSwap(r, next) {
			return newEvent(now, r, next, Forced)
		}
	}
}

// Release ends what Force began. From forced open the next call is a probe; from
// forced closed it is closed, and what was seen meanwhile counts.
func (b *Breaker) Release(now int64) *Event {
	for {
		r := b.round.Load()
		if r.state != ForcedOpen && r.state != ForcedClosed {
			return nil
		}
		next := r.next(now, Open)
		next.until, next.own = now, now
		next.opened, next.openedBy, next.probed = Counts{}, Released, NoProbe // what it was held for says nothing of now
		if r.state == ForcedClosed {
			next = r.next(now, Closed)
			next.stats = r.stats
		}
		if b.round.CompareAndSwap(r, next) {
			return newEvent(now, r, next, Released)
		}
	}
}

// Configure exchanges the settings. State, generation and statistics stay; an open
// breaker stays open for as long as it said. Where Window changes, results that are
// recorded in the same instant may go uncounted.
func (b *Breaker) Configure(now int64, s Settings) {
	fresh := newRules(s)
	for {
		r := b.round.Load()
		next := r.with(func(n *round) { n.rules, n.stats = fresh, r.stats.resliced(now, fresh.width) })
		if b.round.CompareAndSwap(r, next) {
			return
		}
	}
}
