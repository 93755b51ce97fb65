package breaker

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// heeding is closed, opens at the fifth failure in a row, and lets others have a say.
func heeding(s *Settings) {
	off(s)
	s.FailureThreshold, s.SuccessThreshold = 5, 1
	s.VetoSuccesses, s.VetoWindow, s.Canary = 3, 2*time.Second, 0
}

// heed brings it from closed to open by hearsay.
func (f *fixture) heed() {
	f.Helper()
	f.times(2, Failure)
	f.event = f.Heed(f.now, true, false)
	f.changed(Closed, Hearsay, Fleet)
}

// canary lets a call through that has waited for long enough.
func (f *fixture) canary(c Class) {
	f.Helper()
	f.pass(f.reject())
	f.calls(c)
}

// TestHearsay is about being open because others say so.
func TestHearsay(t *testing.T) {
	run(t, []acceptance{
		{"F1 it heeds others from the first failure in the window on", heeding, func(f *fixture) {
			f.calls(Success)
			if f.Heed(f.now, true, false) != nil || f.Heeds(f.now, true, false) {
				f.Fatal("heeds without a failure")
			}
			f.calls(Failure)
			if f.Heed(f.now, false, true) != nil || !f.Heeds(f.now, true, false) {
				f.Fatal("heeds as if it had no calls")
			}
			f.event = f.Heed(f.now, true, false)
			f.changed(Closed, Hearsay, Fleet)
			if f.Heed(f.now, true, true) != nil {
				f.Fatal("heeds twice")
			}
		}},
		{"F1 failures that have left the window are no suspicion", heeding, func(f *fixture) {
			f.times(2, Failure)
			f.pass(11 * time.Second)
			if f.Heed(f.now, true, false) != nil {
				f.Fatal("heeds")
			}
		}},
		{"F1 a failure that a success followed is no suspicion", heeding, func(f *fixture) {
			f.calls(Failure, Success)
			if f.Heed(f.now, true, false) != nil {
				f.Fatal("heeds")
			}
			f.calls(Failure)
			f.event = f.Heed(f.now, true, false)
			f.changed(Closed, Hearsay, Fleet)
		}},
		{"F2 successes of its own are a veto, as long as they are recent", heeding, func(f *fixture) {
			f.calls(Success, Success, Success, Failure, Failure)
			if f.Heed(f.now, true, true) != nil || !f.Vetoes(f.now) {
				f.Fatal("heeds in spite of successes")
			}
			f.pass(2 * time.Second)
			f.event = f.Heed(f.now, true, true)
			f.changed(Closed, Hearsay, Fleet)
		}},
		{"F3 without calls it heeds only who says so", heeding, func(f *fixture) {
			if f.Heed(f.now, true, false) != nil {
				f.Fatal("heeds without a suspicion")
			}
			f.event = f.Heed(f.now, true, true)
			f.changed(Closed, Hearsay, Fleet)
		}},
		{"F4 it rejects, says until when, and lets a call through now and then", heeding, func(f *fixture) {
			f.heed()
			for _, wait := range []time.Duration{5, 10, 20, 30, 30} {
				wait *= time.Second
				if d := f.reject(); d != wait {
					f.Fatal(d)
				}
				if a := f.Admit(f.now + int64(wait) - 1); a.Admitted || !a.Hearsay() || a.RetryAfter != 1 {
					f.Fatalf("%+v", a)
				}
				f.pass(wait)
				f.record(f.admit(), Neutral)
			}
			f.is(Hearsay)
			if c := f.snapshot().Counts; c.Rejected != 10 {
				f.Fatalf("%+v", c)
			}
		}},
		{"F4 a success lets the next one through soon", heeding, func(f *fixture) {
			f.heed()
			for range 4 {
				f.canary(Neutral)
			}
			f.canary(Success)
			if d := f.reject(); d != time.Second {
				f.Fatal(d)
			}
			f.pass(time.Second / 2)
			f.record(newTicket(f.Generation(), 0), Success) // which was under way
			if d := f.reject(); d != time.Second/2 {
				f.Fatal(d)
			}
		}},
		{"F4 it waits no longer than it would be open by its own evidence", func(s *Settings) { heeding(s); s.Timeout = 200 * time.Millisecond }, func(f *fixture) {
			f.heed()
			if d := f.reject(); d != 200*time.Millisecond {
				f.Fatal(d)
			}
			f.canary(Success)
			if d := f.reject(); d != 200*time.Millisecond {
				f.Fatal(d)
			}
		}},
		{"F4 a share of the calls goes through", func(s *Settings) { heeding(s); s.Canary = 0.1 }, func(f *fixture) {
			f.heed()
			admitted := 0
			for range 10_000 {
				if f.Admit(f.now).Admitted {
					admitted++
				}
			}
			if admitted < 900 || admitted > 1100 || f.snapshot().Share != 0.1 {
				f.Fatal(admitted)
			}
		}},
		{"F5 its own failures open it, those before and those under way too", heeding, func(f *fixture) {
			under := f.admit()
			f.heed()
			f.record(under, Failure)
			f.canary(Failure)
			f.is(Hearsay)
			f.canary(Failure)
			f.changed(Hearsay, Open, TooManyFailures)
			if s := f.snapshot(); s.OpenFor != 5*time.Second || s.Opened.Streak != 5 || s.OpenedBy != TooManyFailures {
				f.Fatalf("%+v", s)
			}
		}},
		{"F5 a ratio needs its volume there as well", func(s *Settings) { heeding(s); s.FailureThreshold, s.FailureRatio = 0, 0.5 }, func(f *fixture) {
			f.heed()
			for range 7 {
				f.canary(Failure)
			}
			f.is(Hearsay)
		}},
		{"F5 the dependency may order it to stay away", heeding, func(f *fixture) {
			under := f.admit()
			f.heed()
			f.event = f.OpenFor(f.now, under, 20*time.Second)
			f.changed(Hearsay, Open, Ordered)
		}},
		{"F6 so many good results in a row are a veto", heeding, func(f *fixture) {
			f.heed()
			f.canary(Success)
			f.canary(Success)
			f.canary(Failure)
			f.canary(Success)
			f.canary(Neutral)
			f.canary(Success)
			f.is(Hearsay)
			late := f.snapshot().Generation
			f.canary(Success)
			f.changed(Hearsay, Closed, Vetoed)
			f.record(newTicket(late, 0), Failure)
			isNoted(f, 1)
		}},
		{"F6 after a veto it takes new failures, and a while, to heed again", heeding, func(f *fixture) {
			f.Heed(f.now, false, true)
			f.canary(Success)
			f.canary(Success)
			f.canary(Success)
			f.is(Closed)
			if f.times(2, Failure); f.Heed(f.now, true, true) != nil {
				f.Fatal("heeds again at once")
			}
			f.pass(3 * time.Second)
			f.event = f.Heed(f.now, true, false)
			f.changed(Closed, Hearsay, Fleet)
		}},
		{"F6 slow ones are no veto where slowness opens", func(s *Settings) { heeding(s); s.SlowRatio, s.VolumeThreshold = 1, 100 }, func(f *fixture) {
			f.heed()
			for range 5 {
				f.canary(Slow)
			}
			f.is(Hearsay)
		}},
		{"F7 when others say so no more, it ramps", heeding, func(f *fixture) {
			f.heed()
			under := f.snapshot().Generation
			f.event = f.Dismiss(f.now)
			f.changed(Hearsay, Recovering, FleetOver)
			f.record(newTicket(under, 0), Failure)
			isNoted(f, 1)
			f.climb()
			f.changed(Recovering, Closed, RampDone)
		}},
		{"F7 without a ramp it closes", func(s *Settings) { heeding(s); s.Ramp = nil }, func(f *fixture) {
			f.heed()
			f.event = f.Dismiss(f.now)
			f.changed(Hearsay, Closed, FleetOver)
		}},
		{"F8 others have no say where it is not closed", heeding, func(f *fixture) {
			for range 4 {
				if f.state() != Hearsay && f.Dismiss(f.now) != nil {
					f.Fatal("dismissed", f.state())
				}
				switch f.state() { //nolint:exhaustive // the others come later
				case Closed:
					f.trip()
				case Open:
					f.probe()
				case HalfOpen:
					f.pass(time.Hour)
					f.reject()
					f.recover()
				case Recovering:
				}
				if f.Heed(f.now, true, true) != nil {
					f.Fatal("heeds while", f.state())
				}
			}
			f.is(Recovering)
		}},
		{"F9 an operator's word beats hearsay, both ways", heeding, func(f *fixture) {
			for _, open := range []bool{true, false} {
				f.heed()
				f.event = f.Force(f.now, open)
				f.changed(Hearsay, f.state(), Forced)
				if f.Heed(f.now, true, true) != nil || f.Dismiss(f.now) != nil {
					f.Fatal("heeds while", f.state())
				}
				f.Release(f.now)
				if open {
					f.is(Open)
					f.recover()
					f.climb()
				}
				f.is(Closed)
				f.pass(time.Minute)
			}
		}},
		{"F10 other settings hold at once", heeding, func(f *fixture) {
			f.heed()
			f.canary(Success)
			f.Configure(f.now, func() Settings {
				s := f.round.Load().rules.Settings
				s.VetoSuccesses, s.Canary, s.Window = 2, 1, time.Minute
				return s
			}())
			f.is(Hearsay)
			if f.snapshot().Good != 1 {
				f.Fatalf("%+v", f.snapshot())
			}
			f.calls(Success)
			f.changed(Hearsay, Closed, Vetoed)
		}},
	})
}

// TestFleetProbes is about what others know of a dependency that is coming back.
func TestFleetProbes(t *testing.T) {
	generation := func(f *fixture) uint64 { return f.snapshot().Generation }
	run(t, []acceptance{
		{"P1 probes begin later, or earlier", ramped, func(f *fixture) {
			f.trip()
			for _, d := range []time.Duration{time.Minute, time.Second, 20 * time.Second} {
				if !f.Postpone(generation(f), f.now+int64(d)) || f.reject() != d {
					f.Fatal(d, f.snapshot())
				}
			}
			if s := f.snapshot(); s.Own != 5*time.Second {
				f.Fatalf("%+v", s)
			}
			f.Unpostpone(generation(f))
			if d := f.reject(); d != 5*time.Second {
				f.Fatal(d)
			}
			f.pass(5 * time.Second)
			f.admit()
			f.is(HalfOpen)
			if f.Postpone(generation(f), f.now) || f.Unpostpone(generation(f)) {
				f.Fatal("postponed while half-open")
			}
		}},
		{"P1 but not for ever", ramped, func(f *fixture) {
			f.trip()
			if !f.Postpone(generation(f), f.now+int64(1000*time.Hour)) || f.Postpone(generation(f), f.now+int64(2000*time.Hour)) {
				f.Fatal("not moved once")
			}
			if d := f.snapshot().OpenFor; d != 5*time.Second+patience*time.Minute {
				f.Fatal(d)
			}
		}},
		{"P1 and not before what the dependency ordered", ramped, func(f *fixture) {
			f.OpenFor(f.now, f.admit(), 30*time.Second)
			f.Postpone(generation(f), f.now)
			if d := f.reject(); d != 30*time.Second {
				f.Fatal(d)
			}
			if f.Recover(f.now, generation(f)) != nil {
				f.Fatal("recovers")
			}
			f.pass(30 * time.Second)
			f.event = f.Recover(f.now, generation(f))
			f.changed(Open, Recovering, FleetProbes)
		}},
		{"P2 good probes of others begin the ramp", ramped, func(f *fixture) {
			f.trip()
			f.event = f.Recover(f.now, generation(f))
			f.changed(Open, Recovering, FleetProbes)
			if s := f.snapshot(); s.Opened.Failures != 3 || s.Probed != NoProbe {
				f.Fatalf("%+v", s)
			}
			f.climb()
			if s := f.snapshot(); s.Opened != (Counts{}) || s.OpenedBy != 0 {
				f.Fatalf("%+v", s)
			}
		}},
		{"P2 its own probe under way no longer counts", ramped, func(f *fixture) {
			f.trip()
			own := f.probe()
			f.event = f.Recover(f.now, generation(f))
			f.changed(HalfOpen, Recovering, FleetProbes)
			f.record(own, Failure)
			f.is(Recovering)
			isNoted(f, 1)
		}},
		{"P3 what was decided about another round does nothing", ramped, func(f *fixture) {
			f.trip()
			old := generation(f)
			f.record(f.probe(), Failure)
			f.is(Open)
			if f.Postpone(old, f.now) || f.Recover(f.now, old) != nil || f.reject() != 10*time.Second {
				f.Fatalf("%+v", f.snapshot())
			}
		}},
		{"P4 it shows what its probes found, and when", three, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Neutral)
			if s := f.snapshot(); s.Probed != NoProbe {
				f.Fatalf("%+v", s)
			}
			f.calls(Success)
			if s := f.snapshot(); s.State != HalfOpen || s.Probed != GoodProbe || s.ProbedAt != f.now {
				f.Fatalf("%+v", s)
			}
			f.admit()
			f.pass(time.Hour)
			f.reject()
			if s := f.snapshot(); s.Probed != BadProbe || s.ProbedAt != f.now {
				f.Fatalf("%+v", s)
			}
			f.record(f.probe(), Failure)
			if s := f.snapshot(); s.Probed != BadProbe || s.ProbedAt != f.now || s.Opened.Failures != 3 || s.OpenedBy != TooManyFailures {
				f.Fatalf("%+v", s)
			}
		}},
		{"P5 it is idle after a window in which nobody called", ramped, func(f *fixture) {
			idle := func(want bool) {
				f.Helper()
				if s := f.snapshot(); s.Idle != want {
					f.Fatalf("idle is %v while %s for %v", s.Idle, s.State, time.Duration(f.now-s.Since))
				}
			}
			waits := func(d time.Duration) {
				f.Helper()
				f.pass(d - time.Second)
				idle(false)
				f.pass(time.Second)
				idle(true)
			}
			idle(true)
			f.trip()
			waits(15 * time.Second)
			f.admit()
			waits(15 * time.Second) // a lease of 5 s
			f.reject()
			f.record(f.probe(), Success)
			f.is(Recovering)
			waits(11 * time.Second)
			f.Force(f.now, false)
			f.Release(f.now)
			f.calls(Failure, Failure, Failure)
			f.Recover(f.now, generation(f))
			f.Force(f.now, false)
			f.Release(f.now)
			f.Heed(f.now, false, true)
			waits(15 * time.Second)
		}},
	})
}

// TestHearsayAtTheSameInstant: of two changes at once one is made, and told once.
func TestHearsayAtTheSameInstant(t *testing.T) {
	const rounds = 1000
	var f *fixture
	var got [2]*Event
	closed := func() { f = newFixture(t, heeding) }
	heard := func() { closed(); f.heed() }
	one := func(want ...State) func() {
		return func() {
			if (got[0] == nil) == (got[1] == nil) || !slices.Contains(want, f.state()) {
				t.Fatalf("%+v and %+v: %s", got[0], got[1], f.state())
			}
		}
	}
	t.Run("heeded twice", func(*testing.T) {
		duel(rounds, closed, func(who int) { got[who] = f.Heed(f.now, false, true) }, one(Hearsay))
	})
	t.Run("dismissed twice", func(*testing.T) {
		duel(rounds, heard, func(who int) { got[who] = f.Dismiss(f.now) }, one(Recovering))
	})
	t.Run("dismissed and opened", func(*testing.T) {
		var last Ticket
		duel(rounds, func() {
			heard()
			f.canary(Failure)
			f.canary(Failure)
			f.pass(f.reject())
			last = f.admit()
		}, func(who int) {
			if who == 0 {
				got[0] = f.Dismiss(f.now)
			} else {
				got[1] = f.Record(f.now, last, Failure, 0)
			}
		}, one(Recovering, Open))
	})
	t.Run("two canaries are the veto", func(*testing.T) {
		var tickets [2]Ticket
		duel(rounds, func() {
			heard()
			f.canary(Success)
			tickets[0], tickets[1] = newTicket(f.Generation(), 0), newTicket(f.Generation(), 0)
		}, func(who int) { got[who] = f.Record(f.now, tickets[who], Success, 0) }, one(Closed))
	})
	t.Run("recovered and postponed", func(*testing.T) {
		var postponed atomic.Bool
		duel(rounds, func() { closed(); f.trip() }, func(who int) {
			if who == 0 {
				got[0] = f.Recover(f.now, 2)
			} else {
				postponed.Store(f.Postpone(2, f.now))
			}
		}, func() {
			if got[0] == nil || f.state() != Recovering {
				t.Fatalf("%+v: %s, postponed: %v", got[0], f.state(), postponed.Load())
			}
		})
	})
}
