package breaker

import (
	"math"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/hash"
)

// State is what a breaker does with calls.
type State uint8

// Closed and ForcedClosed admit all calls, HalfOpen a few probes, Recovering and Hearsay
// a share; Open and ForcedOpen none. Hearsay is open because others say so, which tells
// nothing about the dependency. The later, the more is closed off.
const (
	Closed State = iota
	ForcedClosed
	Recovering
	Hearsay
	HalfOpen
	Open
	ForcedOpen
)

func (s State) String() string {
	return [...]string{"closed", "forced closed", "recovering", "hearsay", "half-open", "open", "forced open"}[s]
}

// round is what a breaker is between two transitions. It does not change, except
// for what its statistics count.
type round struct {
	state      State
	generation uint64 // of the tickets that it gives out
	since      int64
	rules      *rules
	stats      *stats
	seed       uint64

	pause time.Duration // how long it was meant to be open last, before jitter; 0 if never

	opened   Counts      // what was seen when it opened, until it is closed
	openedBy Reason      // likewise
	probed   ProbeResult // the last one
	probedAt int64

	until int64 // Open: when probes may begin; Recovering: when the step may end; Hearsay: when the next canary goes

	wait time.Duration // Hearsay: for that canary
	turn int64         // Hearsay: its turn among those of other breakers; 0 if it has not lined up

	own     int64 // Open: until by its own rules
	ordered bool  // Open: by the dependency

	leases []lease // HalfOpen: probes without an answer
	issued uint32  // leases so far
	good   int     // probes that answered well; Hearsay: good results in a row

	step int  // Recovering: the index of its share
	seen bool // whether the step saw a success
}

// lease is the right of one call to be a probe.
type lease struct {
	id    uint32
	until int64
}

// next begins a round of a new generation, with nothing seen.
func (r *round) next(now int64, s State) *round {
	next := &round{
		state: s, generation: r.generation + 1, since: now,
		rules: r.rules, stats: newStats(r.rules.width), seed: r.seed, pause: r.pause,
		probed: r.probed, probedAt: r.probedAt,
	}
	if s > ForcedClosed {
		next.opened, next.openedBy = r.opened, r.openedBy
	}
	return next
}

// with is the same round changed a little.
func (r *round) with(change func(*round)) *round {
	next := *r
	change(&next)
	return &next
}

// open opens from a point in time on, for longer than the last time.
func (r *round) open(now, from int64, why Reason) *round {
	next := r.opening(now, from, why)
	next.pause = r.longer()
	next.until = from + int64(next.jittered(next.pause))
	next.own = next.until
	return next
}

// opening opens until a point in time and keeps what was seen: of an outage that goes on
// the most, since probes are few.
func (r *round) opening(now, until int64, why Reason) *round {
	next := r.next(now, Open)
	next.until, next.own = until, until
	if r.state != HalfOpen || r.openedBy == 0 {
		next.openedBy = why
	}
	if c := r.stats.counts(now); c.Calls >= r.opened.Calls {
		next.opened = c
	}
	return next
}

// longer is how long to stay open this time. Successes of the round undo what
// earlier openings added.
func (r *round) longer() time.Duration {
	s := r.rules
	if r.pause == 0 {
		return s.Timeout
	}
	undone := math.Floor(float64(r.stats.successes()) / float64(s.VolumeThreshold))
	pause := float64(r.pause)
	if r.state != HalfOpen {
		pause /= math.Pow(s.Multiplier, undone)
	}
	if pause < float64(s.Timeout) {
		return s.Timeout
	}
	return time.Duration(min(pause*s.Multiplier, float64(s.MaxTimeout)))
}

// jittered draws a time from around d, always the same one in the same generation.
func (r *round) jittered(d time.Duration) time.Duration {
	u := float64(hash.Nth(r.seed+r.generation)>>11)/(1<<53)*2 - 1
	return max(time.Duration(float64(d)*(1+r.rules.Jitter*u)), 1)
}

// probing is half-open with its first probe under way.
func (r *round) probing(now int64) *round {
	next := r.next(now, HalfOpen)
	next.lend(now)
	return next
}

// lend adds a lease to a round that nobody else has seen yet.
func (r *round) lend(now int64) {
	r.issued = r.issued%(1<<leaseBits-1) + 1
	r.leases = append(slices.Clip(r.leases), lease{r.issued, now + int64(r.probeTime())})
}

// probeTime is how long a probe may take: as many times ProbeTimeout as the last open
// time was of the first, up to MaxTimeout.
func (r *round) probeTime() time.Duration {
	s := r.rules
	if r.pause <= s.Timeout {
		return s.ProbeTimeout
	}
	longer := float64(s.ProbeTimeout) * (float64(r.pause) / float64(s.Timeout))
	return max(s.ProbeTimeout, time.Duration(min(longer, float64(s.MaxTimeout))))
}

// firstEnd is when the first lease ends.
func (r *round) firstEnd() int64 {
	end := int64(math.MaxInt64)
	for _, l := range r.leases {
		end = min(end, l.until)
	}
	return end
}

func (r *round) lease(id uint32) int {
	return slices.IndexFunc(r.leases, func(l lease) bool { return l.id == id })
}

// admitted tells whether a call with this ticket belongs to the round.
func (r *round) admitted(t Ticket) bool {
	return r.generation == t.generation() && (r.state != HalfOpen || r.lease(t.lease()) >= 0)
}

// answered is the round after a probe's answer.
func (r *round) answered(now int64, t Ticket, c Class, slow bool) (*round, Reason) {
	switch {
	case c == Failure || slow && r.rules.SlowRatio > 0:
		return r.open(now, now, ProbeFailed).after(now, BadProbe), ProbeFailed
	case c != Neutral && c != Overload && r.good+1 >= r.rules.SuccessThreshold:
		return r.recovering(now).after(now, GoodProbe), ProbesSucceeded
	}
	return r.with(func(n *round) {
		i := r.lease(t.lease())
		n.leases = slices.Delete(slices.Clone(r.leases), i, i+1)
		if c != Neutral && c != Overload {
			n.good++
			n.after(now, GoodProbe)
		}
	}), 0
}

// after adds the answer of a probe to a round that nobody else has seen yet.
func (r *round) after(now int64, p ProbeResult) *round {
	r.probed, r.probedAt = p, now
	return r
}

// recovering begins the ramp, if there is one.
func (r *round) recovering(now int64) *round {
	if len(r.rules.Ramp) == 0 {
		return r.next(now, Closed)
	}
	next := r.next(now, Recovering)
	next.until = now + int64(r.rules.RampStep)
	return next
}

// stepped is the round after a call that went through whatever the share is. Of a ramp
// that is the same step again unless it saw a success, the next step, or Closed in the
// same generation, since the calls that are still under way tell of the same recovery.
func (r *round) stepped(now int64) *round {
	return r.with(func(n *round) {
		if r.state == Hearsay {
			n.turn = 0
			n.waits(now, min(2*r.wait, lastCanary))
			return
		}
		n.seen, n.until = false, now+int64(r.rules.RampStep)
		if r.seen {
			n.step++
		}
		if n.step >= len(r.rules.Ramp) {
			n.state, n.since, n.step, n.until, n.opened, n.openedBy = Closed, now, 0, 0, Counts{}, 0
		}
	})
}

// admits draws whether a call belongs to the share that may pass.
func (r *round) admits() bool {
	share := r.share()
	if share == 1 {
		return true
	}
	draw := hash.Nth(r.seed ^ hash.Nth(r.generation+r.stats.offered.Add(1)))
	return float64(draw>>11)/(1<<53) < share
}

// recorded is the round after a result that its statistics hold already, or nil if
// it stays.
func (r *round) recorded(now int64, t Ticket, c Class, slow bool) (*round, Reason) {
	volume := r.rules.VolumeThreshold
	switch r.state {
	case HalfOpen:
		return r.answered(now, t, c, slow)
	case Recovering:
		volume = 1
	case Closed, Hearsay:
	default:
		return nil, 0
	}
	if c == Failure || slow {
		if why := r.stats.reason(now, r.rules, volume); why != 0 {
			return r.open(now, now, why), why
		}
	}
	if r.state == Hearsay {
		return r.heard(now, c, slow)
	}
	if r.state == Recovering && !r.seen && (c == Success || c == Slow) {
		return r.with(func(n *round) { n.seen = true }), 0
	}
	return nil, 0
}
