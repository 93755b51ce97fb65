package breaker

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// twin is a breaker in the most obvious way: one lock, and every result kept.
type twin struct {
	mu         sync.Mutex
	s          Settings
	state      State
	generation uint64
	since      int64
	results    []twinResult // of this round, oldest first
	neutral    int
	overload   int
	rejected   int
	stale      int
	pause      time.Duration
	until      int64
	leases     map[uint32]int64
	issued     uint32
	good       int
	step       int
	seen       bool
	wait       time.Duration // for a canary
	turn       int64         // for that, in the line of all targets
	free       int64         // the next turn in that line
	own        int64
	ordered    bool
	opened     Counts
	openedBy   Reason
	probed     ProbeResult
	probedAt   int64
}

type twinResult struct {
	at           int64
	gone         bool // no longer in the window, whatever at says
	failed, slow bool
}

func newTwin(now int64, s Settings) *twin {
	t := &twin{s: s}
	t.begin(now, Closed)
	return t
}

func (t *twin) begin(now int64, s State) {
	t.state, t.since = s, now
	t.generation++
	t.results, t.neutral, t.overload, t.rejected = nil, 0, 0, 0
	t.leases, t.issued, t.good, t.step, t.seen, t.until = map[uint32]int64{}, 0, 0, 0, false, 0
	t.own, t.ordered = 0, false
	if s == Closed || s == ForcedClosed {
		t.opened, t.openedBy = Counts{}, 0
	}
}

// recent counts the good results in the slices that VetoWindow has begun.
func (t *twin) recent(now int64) uint64 {
	width := int64(t.s.Window) / 10
	slices := int64(math.Ceil(float64(t.s.VetoWindow) / float64(width)))
	good := 0
	for _, r := range t.inWindow(now) {
		if now/width-r.at/width >= slices {
			continue
		}
		good++
		if r.failed {
			good--
		}
		if r.slow {
			good--
		}
	}
	return uint64(max(good, 0))
}

func (t *twin) idle(now int64) bool {
	last := t.until
	switch t.state {
	case Closed, ForcedClosed:
		return len(t.inWindow(now)) == 0
	case ForcedOpen:
		return false
	case HalfOpen:
		last = t.since
		for i, end := range slices.Sorted(maps.Values(t.leases)) {
			if i == 0 {
				last = end
			}
		}
	default:
	}
	return now >= last+int64(t.s.Window)
}

func (t *twin) inWindow(now int64) []twinResult {
	width := int64(t.s.Window) / 10
	return slices.DeleteFunc(slices.Clone(t.results), func(r twinResult) bool { return r.gone || now/width-r.at/width >= 10 })
}

func (t *twin) counts(now int64) Counts {
	c := Counts{Neutral: uint64(t.neutral), Overload: uint64(t.overload), Rejected: uint64(t.rejected)}
	for _, r := range t.inWindow(now) {
		c.Calls++
		if r.failed {
			c.Failures++
		}
		if r.slow {
			c.Slow++
		}
	}
	for i, r := range t.results {
		if r.failed {
			c.Streak++
		} else {
			c.Streak = 0
		}
		if newer := len(t.results) - 1 - i; r.failed && newer < 64 {
			c.Last += uint64(math.Pow(2, float64(newer)))
		}
	}
	return c
}

func (t *twin) snapshot(now int64) Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Snapshot{
		State: t.state, Since: t.since, Generation: t.generation, Counts: t.counts(now), Pause: t.pause,
		Probes: len(t.leases), Good: t.good, Stale: uint64(t.stale), Opened: t.opened, OpenedBy: t.openedBy,
		Probed: t.probed, ProbedAt: t.probedAt, Recent: t.recent(now), Idle: t.idle(now),
	}
	switch t.state { //nolint:exhaustive // the others have nothing to add
	case Open:
		s.OpenFor, s.Own = time.Duration(max(t.until-now, 0)), time.Duration(t.own-now)
	case Hearsay:
		s.Share = t.s.Canary
	case Closed, ForcedClosed:
		s.Share = 1
	case Recovering:
		s.Share = 1
		if t.step < len(t.s.Ramp) {
			s.Share = t.s.Ramp[t.step]
		}
	}
	return s
}

// change runs what changes the state, and tells of it as an event.
func (t *twin) change(now int64, why Reason, to func()) *Event {
	e := Event{At: now, From: t.state, Reason: why, Counts: t.counts(now)}
	to()
	e.To, e.Generation = t.state, t.generation
	if t.state == Open {
		e.OpenFor = time.Duration(max(t.until-now, 0))
	}
	return &e
}

func (t *twin) open(now, from int64, why Reason) *Event {
	return t.change(now, why, func() {
		next := t.s.Timeout
		if t.pause > 0 {
			p := float64(t.pause)
			if t.state != HalfOpen {
				// A slow failure weighs as two bad results.
				good := len(t.results)
				for _, r := range t.results {
					if r.failed {
						good--
					}
					if r.slow {
						good--
					}
				}
				for ; good >= t.s.VolumeThreshold; good -= t.s.VolumeThreshold {
					p /= t.s.Multiplier
				}
			}
			if time.Duration(p) >= t.s.Timeout {
				next = min(time.Duration(p*t.s.Multiplier), t.s.MaxTimeout)
			}
		}
		t.opening(now, from+int64(next), why)
		t.pause = next
	})
}

func (t *twin) opening(now, until int64, why Reason) {
	if t.state != HalfOpen || t.openedBy == 0 {
		t.openedBy = why
	}
	if c := t.counts(now); c.Calls >= t.opened.Calls {
		t.opened = c
	}
	t.begin(now, Open)
	t.until, t.own = until, until
}

func (t *twin) probe(now int64, found ProbeResult) { t.probed, t.probedAt = found, now }

func (t *twin) recovering(now int64) {
	if len(t.s.Ramp) == 0 {
		t.begin(now, Closed)
		return
	}
	t.begin(now, Recovering)
	t.until = now + int64(t.s.RampStep)
}

// admit decides as the breaker should. Where chance decides, so did the breaker.
func (t *twin) admit(now int64, chance bool) (ok bool, lease uint32, wait time.Duration, e *Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	no := func(until int64) (bool, uint32, time.Duration, *Event) {
		t.rejected++
		return false, 0, time.Duration(max(until-now, 0)), e
	}
	switch t.state { //nolint:exhaustive // the others admit all
	case ForcedOpen:
		return no(now)
	case Open:
		if now < t.until {
			return no(t.until)
		}
		e = t.change(now, TimeIsUp, func() { t.begin(now, HalfOpen) })
		return true, t.lend(now), 0, e
	case HalfOpen:
		first := int64(math.MaxInt64)
		for _, end := range t.leases {
			first = min(first, end)
		}
		if first <= now {
			t.probe(now, BadProbe)
			e = t.open(now, first, ProbeLapsed)
			return no(t.until)
		}
		if len(t.leases) >= t.s.Probes {
			return no(first)
		}
		return true, t.lend(now), 0, nil
	case Recovering, Hearsay:
		if now < t.until {
			if chance {
				return true, 0, 0, nil
			}
			return no(t.until)
		}
		if t.state == Hearsay {
			longer := min(2*t.wait, 30*time.Second)
			if t.good == 0 && (t.turn == 0 || t.turn >= t.free) {
				t.turn = max(t.free, now)
				t.free = t.turn + int64(min(longer, 5*time.Second, t.s.Timeout))
			}
			if t.good == 0 && now < t.turn {
				return no(t.turn)
			}
			if t.good > 0 {
				t.free = 0
			}
			t.wait, t.until, t.turn = longer, now+int64(longer), 0
			return true, 0, 0, nil
		}
		if t.seen {
			t.step++
		}
		if t.step >= len(t.s.Ramp) {
			return true, 0, 0, t.change(now, RampDone, func() { t.state, t.since, t.until, t.opened, t.openedBy = Closed, now, 0, Counts{}, 0 })
		}
		t.seen, t.until = false, now+int64(t.s.RampStep)
	}
	return true, 0, 0, nil
}

func (t *twin) lend(now int64) uint32 {
	t.issued++
	most, had := t.s.ProbeTimeout, t.s.ProbeTimeout
	if t.pause > t.s.Timeout {
		had = time.Duration(float64(had) * (float64(t.pause) / float64(t.s.Timeout)))
		most = max(most, t.s.MaxTimeout)
	}
	t.leases[t.issued] = now + int64(min(had, most))
	return t.issued
}

func (t *twin) record(now int64, generation uint64, lease uint32, c Class, took time.Duration) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, held := t.leases[lease]; generation != t.generation || t.state == HalfOpen && !held {
		t.stale++
		return nil
	}
	slow := c == Slow || t.s.SlowAfter > 0 && took >= t.s.SlowAfter
	says := true
	switch c {
	case Neutral:
		t.neutral++
		says = false
	case Overload:
		t.overload++
		says = false
	default:
		t.results = append(t.results, twinResult{at: now, failed: c == Failure, slow: slow})
	}
	switch t.state {
	case HalfOpen:
		return t.answer(now, lease, c, says, slow)
	case Closed, Recovering, Hearsay:
	default:
		return nil
	}
	if says && (c == Failure || slow) {
		if why := t.verdict(now); why != 0 {
			return t.open(now, now, why)
		}
	}
	if says && t.state == Hearsay {
		return t.canary(now, c != Failure && !(slow && t.s.SlowRatio > 0))
	}
	if c == Success || c == Slow {
		t.seen = true
	}
	return nil
}

func (t *twin) answer(now int64, lease uint32, c Class, says, slow bool) *Event {
	if c == Failure || says && slow && t.s.SlowRatio > 0 {
		t.probe(now, BadProbe)
		return t.open(now, now, ProbeFailed)
	}
	delete(t.leases, lease)
	if !says {
		return nil
	}
	t.probe(now, GoodProbe)
	if t.good++; t.good < t.s.SuccessThreshold {
		return nil
	}
	return t.change(now, ProbesSucceeded, func() { t.recovering(now) })
}

// canary counts good results in a row while it is open by hearsay.
func (t *twin) canary(now int64, good bool) *Event {
	if !good {
		t.good = 0
		return nil
	}
	if t.good++; t.good < t.s.VetoSuccesses {
		t.wait = min(time.Second, t.s.Timeout)
		t.until = min(t.until, now+int64(t.wait))
		return nil
	}
	return t.change(now, Vetoed, func() {
		t.begin(now, Closed)
		for range t.s.VetoSuccesses {
			t.results = append(t.results, twinResult{at: now})
		}
	})
}

func (t *twin) heeds(now int64, suspects, idle bool) bool {
	c := t.counts(now)
	suspicious := suspects && c.Failures > 0 && c.Streak > 0 || idle && c.Calls == 0
	return t.state == Closed && suspicious && t.recent(now) < uint64(t.s.VetoSuccesses)
}

func (t *twin) heed(now int64, suspects, idle bool) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.heeds(now, suspects, idle) {
		return nil
	}
	return t.change(now, Fleet, func() {
		t.state, t.since, t.good, t.turn, t.wait = Hearsay, now, 0, 0, min(5*time.Second, t.s.Timeout)
		t.until = now + int64(t.wait)
	})
}

func (t *twin) dismiss(now int64) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Hearsay {
		return nil
	}
	return t.change(now, FleetOver, func() { t.recovering(now) })
}

func (t *twin) postpone(generation uint64, until int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Open || generation != t.generation {
		return false
	}
	if t.ordered && until < t.own {
		until = t.own
	}
	was := t.until
	t.until = min(until, t.own+10*int64(t.s.MaxTimeout))
	return t.until != was
}

func (t *twin) unpostpone() {
	if t.state == Open {
		t.until = t.own
	}
}

func (t *twin) recover(now int64, generation uint64) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Open && t.state != HalfOpen || generation != t.generation || t.ordered && now < t.own {
		return nil
	}
	return t.change(now, FleetProbes, func() { t.recovering(now) })
}

func (t *twin) verdict(now int64) Reason {
	c, volume := t.counts(now), uint64(t.s.VolumeThreshold)
	if t.state == Recovering {
		volume = 1
	}
	bad := int(c.Streak)
	if n := t.s.FailureWindow; n > 0 {
		bad = 0
		for _, r := range t.results[max(0, len(t.results)-n):] {
			if r.failed {
				bad++
			}
		}
	}
	switch enough := c.Calls >= volume; {
	case t.s.FailureThreshold > 0 && bad >= t.s.FailureThreshold:
		return TooManyFailures
	case enough && t.s.FailureRatio > 0 && float64(c.Failures)/float64(c.Calls) >= t.s.FailureRatio:
		return FailureRatio
	case enough && t.s.SlowRatio > 0 && float64(c.Slow)/float64(c.Calls) >= t.s.SlowRatio:
		return SlowRatio
	}
	return 0
}
