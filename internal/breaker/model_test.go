package breaker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

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
	var canaries Canaries
	b.Share(&canaries)
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
		switch rapid.IntRange(0, 43).Draw(t, "operation") {
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
			if w.free = max(w.free, now) + int64(5*time.Second); rapid.Bool().Draw(t, "of another that goes well") {
				w.free = 0
			}
			canaries.free = w.free
		case 33:
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
