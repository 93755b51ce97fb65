package breaker

import (
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
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
			t.wait *= 2
			t.until = now + int64(min(t.wait, 30*time.Second))
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
		t.wait, t.until = time.Second, min(t.until, now+int64(time.Second))
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
	suspicious := suspects && c.Failures > 0 || idle && c.Calls == 0
	return t.state == Closed && suspicious && t.recent(now) < uint64(t.s.VetoSuccesses)
}

func (t *twin) heed(now int64, suspects, idle bool) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.heeds(now, suspects, idle) {
		return nil
	}
	return t.change(now, Fleet, func() {
		t.state, t.since, t.good, t.wait, t.until = Hearsay, now, 0, time.Second, now+int64(time.Second)
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
	t.until = min(until, t.own+10*int64(t.s.MaxTimeout))
	return true
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

func (t *twin) force(now int64, open bool) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := ForcedClosed
	if open {
		to = ForcedOpen
	}
	if t.state == to {
		return nil
	}
	return t.change(now, Forced, func() { t.begin(now, to) })
}

func (t *twin) release(now int64) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state {
	case ForcedOpen:
		return t.change(now, Released, func() {
			t.begin(now, Open)
			t.until, t.own = now, now
		})
	case ForcedClosed:
		return t.change(now, Released, func() {
			results, neutral, overload, rejected := t.results, t.neutral, t.overload, t.rejected
			t.begin(now, Closed)
			t.results, t.neutral, t.overload, t.rejected = results, neutral, overload, rejected
		})
	default:
		return nil
	}
}

func (t *twin) openFor(now int64, generation uint64, lease uint32, pause time.Duration) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, held := t.leases[lease]; generation != t.generation || t.state == HalfOpen && !held {
		t.stale++
		return nil
	}
	t.results = append(t.results, twinResult{at: now, failed: true})
	if t.state == ForcedClosed {
		return nil
	}
	return t.change(now, Ordered, func() {
		t.opening(now, now+int64(min(pause, t.s.MaxTimeout)), Ordered)
		t.ordered = true
	})
}

func (t *twin) configure(now int64, s Settings) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Window != t.s.Window {
		in := len(t.inWindow(now))
		for i := range t.results {
			if i < len(t.results)-in {
				t.results[i].gone = true
			} else {
				t.results[i].at = now
			}
		}
	}
	t.s = s
}

func drawSettings(t *rapid.T) Settings {
	duration := func(name string, most int) time.Duration {
		return time.Duration(rapid.IntRange(1, most).Draw(t, name)) * time.Second
	}
	s := Settings{
		FailureThreshold: rapid.IntRange(0, 6).Draw(t, "failure threshold"),
		FailureRatio:     rapid.SampledFrom([]float64{0, 0.1, 0.5, 1}).Draw(t, "failure ratio"),
		SlowRatio:        rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "slow ratio"),
		SlowAfter:        rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "slow after"),
		VolumeThreshold:  rapid.IntRange(1, 8).Draw(t, "volume"),
		Window:           duration("window", 4) * 5,
		Timeout:          duration("timeout", 10),
		Multiplier:       rapid.SampledFrom([]float64{1, 2, 4}).Draw(t, "multiplier"),
		Probes:           rapid.IntRange(1, 3).Draw(t, "probes"),
		ProbeTimeout:     duration("probe timeout", 10),
		SuccessThreshold: rapid.IntRange(1, 4).Draw(t, "success threshold"),
		Ramp:             rapid.SampledFrom([][]float64{nil, {0.5}, {0.1, 0.3, 0.6}}).Draw(t, "ramp"),
		RampStep:         duration("ramp step", 5),
		VetoSuccesses:    rapid.IntRange(1, 4).Draw(t, "veto successes"),
		VetoWindow:       duration("veto window", 30),
		Canary:           rapid.SampledFrom([]float64{0, 0.1, 0.5, 1}).Draw(t, "canary"),
	}
	s.MaxTimeout = s.Timeout * time.Duration(rapid.IntRange(1, 8).Draw(t, "max timeout"))
	if s.FailureThreshold > 0 && rapid.Bool().Draw(t, "of the last") {
		s.FailureWindow = s.FailureThreshold + rapid.IntRange(0, 58).Draw(t, "failure window")
	}
	return s
}

// TestAgainstTwin drives a breaker and its twin alike, and compares every answer,
// every event and all that they show.
func TestAgainstTwin(t *testing.T) {
	for range 20 {
		rapid.Check(t, againstTwin)
	}
}

func againstTwin(t *rapid.T) {
	s := drawSettings(t)
	now := int64(1000 * time.Hour)
	b, w := New(now, s, rapid.Uint64().Draw(t, "seed")), newTwin(now, s)
	tickets := []Ticket{{}}
	ticket := func() Ticket {
		// Mostly recent ones: calls end in about the order in which they begin.
		i := rapid.IntRange(0, min(len(tickets), 8)-1).Draw(t, "ticket")
		return tickets[len(tickets)-1-i]
	}
	compare := func(what string, got, want *Event) {
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Fatalf("%s: %+v, want %+v", what, got, want)
		}
	}
	admit := func() {
		a := b.Admit(now)
		ok, lease, wait, e := w.admit(now, a.Admitted)
		if a.Admitted != ok || ok && a.Ticket.lease() != lease || a.RetryAfter != wait || a.Hearsay() != (!ok && w.state == Hearsay) {
			t.Fatalf("%+v, want %v, lease %d, %v", a, ok, lease, wait)
		}
		compare("admit", a.Event, e)
		if ok {
			tickets = append(tickets, a.Ticket)
		}
	}
	record := func() {
		x := ticket()
		c := rapid.SampledFrom([]Class{Success, Success, Success, Failure, Failure, Failure, Slow, Neutral, Overload}).Draw(t, "class")
		took := rapid.SampledFrom([]time.Duration{0, time.Second - 1, time.Second}).Draw(t, "took")
		compare("record", b.Record(now, x, c, took), w.record(now, x.generation(), x.lease(), c, took))
	}
	for range rapid.IntRange(1, 400).Draw(t, "operations") {
		// Small numbers are drawn more often.
		switch rapid.IntRange(0, 42).Draw(t, "operation") {
		case 0, 1, 2, 3, 4, 5:
			admit()
			record()
		case 6, 7, 8, 9, 10, 11, 12, 13:
			admit()
		case 14, 15, 16, 17:
			record()
		case 18, 19, 20, 21:
			now += int64(rapid.IntRange(0, 2000).Draw(t, "ms")) * int64(time.Millisecond)
		case 22, 23:
			compare("release", b.Release(now), w.release(now))
		case 24:
			s := drawSettings(t)
			b.Configure(now, s)
			w.configure(now, s)
		case 25:
			x, pause := ticket(), time.Duration(rapid.IntRange(1, 30).Draw(t, "pause"))*time.Second
			compare("open for", b.OpenFor(now, x, pause), w.openFor(now, x.generation(), x.lease(), pause))
		case 26, 27, 28:
			suspects, idle := rapid.Bool().Draw(t, "suspects"), rapid.Bool().Draw(t, "idle")
			failures, open := b.Trouble(now)
			if b.Heeds(now, suspects, idle) != w.heeds(now, suspects, idle) || failures != w.counts(now).Failures || open != (w.state == Open || w.state == HalfOpen) {
				t.Fatalf("would not heed alike: %+v", b.Snapshot(now))
			}
			compare("heed", b.Heed(now, suspects, idle), w.heed(now, suspects, idle))
		case 29:
			compare("dismiss", b.Dismiss(now), w.dismiss(now))
		case 30:
			x, until := ticket(), now+int64(rapid.IntRange(-5, 100).Draw(t, "postponed"))*int64(time.Second)
			if got, want := b.Postpone(x.generation(), until), w.postpone(x.generation(), until); got != want {
				t.Fatalf("postponed: %v, want %v", got, want)
			}
			g := b.Generation()
			if rapid.IntRange(0, 3).Draw(t, "un") == 0 {
				if b.Unpostpone(g) != (w.state == Open) || b.Unpostpone(g-1) {
					t.Fatal("unpostponed")
				}
				w.unpostpone()
				break
			}
			if got, want := b.Postpone(g, until), w.postpone(g, until); got != want {
				t.Fatalf("postponed now: %v, want %v", got, want)
			}
		case 31:
			g := b.Generation() - uint64(rapid.IntRange(0, 1).Draw(t, "late"))
			compare("recover", b.Recover(now, g), w.recover(now, g))
		case 32:
			open := rapid.Bool().Draw(t, "open")
			compare("force", b.Force(now, open), w.force(now, open))
		default:
			now += int64(rapid.IntRange(0, 20).Draw(t, "s")) * int64(time.Second)
		}
		if got, want := b.Snapshot(now), w.snapshot(now); got != want {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	}
}
