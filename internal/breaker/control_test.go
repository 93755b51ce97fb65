package breaker

import (
	"testing"
	"time"
)

// TestForced is about what operators do.
func TestForced(t *testing.T) {
	run(t, []acceptance{
		{"M1 forced open rejects for ever and sees nothing", oneProbe, func(f *fixture) {
			old := f.admit()
			f.event = f.Force(f.now, true)
			f.changed(Closed, ForcedOpen, Forced)
			for range 10 {
				f.pass(1000 * time.Hour)
				if d := f.reject(); d != 0 {
					f.Fatal(d)
				}
			}
			f.record(old, Failure)
			isNoted(f, 1)
			if c := f.snapshot().Counts; c != (Counts{Rejected: 10}) {
				f.Fatalf("%+v", c)
			}
		}},
		{"M1 forced closed admits all, counts, and tells nothing", oneProbe, func(f *fixture) {
			f.trip()
			f.event = f.Force(f.now, false)
			f.changed(Open, ForcedClosed, Forced)
			f.times(100, Failure)
			f.OpenFor(f.now, f.admit(), time.Second)
			f.is(ForcedClosed)
			if c := f.snapshot().Counts; c.Failures != 101 || f.event != nil {
				f.Fatalf("%+v %+v", c, f.event)
			}
		}},
		{"M1 released from forced open it probes and ramps", ramped, func(f *fixture) {
			f.Force(f.now, true)
			f.pass(time.Hour)
			f.event = f.Release(f.now)
			f.changed(ForcedOpen, Open, Released)
			f.admit()
			f.is(HalfOpen)
			f.reject()
		}},
		{"M1 a probe that fails after that opens it for the first time", oneProbe, func(f *fixture) {
			f.Force(f.now, true)
			f.Release(f.now)
			f.calls(Failure)
			if d := f.snapshot().OpenFor; d != 5*time.Second {
				f.Fatal(d)
			}
		}},
		{"M1 released from forced closed it keeps what it saw", oneProbe, func(f *fixture) {
			f.Force(f.now, false)
			f.times(2, Failure)
			late := f.admit()
			f.event = f.Release(f.now)
			f.changed(ForcedClosed, Closed, Released)
			f.record(late, Failure)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"M3 what is so already is no change", oneProbe, func(f *fixture) {
			for _, e := range []*Event{f.Release(f.now), nil} {
				if e != nil {
					f.Fatalf("%+v", e)
				}
			}
			for _, open := range []bool{true, false} {
				generation := f.snapshot().Generation
				if f.Force(f.now, open) == nil || f.Force(f.now, open) != nil || f.snapshot().Generation != generation+1 {
					f.Fatal("forced twice")
				}
			}
		}},
		{"M4 forced and released it is closed, from any state", three, func(f *fixture) {
			to := map[State]func(){
				Closed: func() {}, Open: func() { f.trip() }, HalfOpen: func() { f.trip(); f.probe() },
				ForcedOpen: func() { f.Force(f.now, true) },
			}
			for state, bring := range to {
				bring()
				f.is(state)
				f.Force(f.now, false)
				f.Release(f.now)
				f.is(Closed)
				if c := f.snapshot().Counts; c != (Counts{}) {
					f.Fatalf("from %s: %+v", state, c)
				}
			}
		}},
		{"M6 an event tells old and new, when, why, and what was seen", oneProbe, func(f *fixture) {
			f.calls(Success, Neutral, Overload, Failure, Failure, Failure)
			want := Event{
				At: f.now, From: Closed, To: Open, Generation: 2, Reason: TooManyFailures, OpenFor: 5 * time.Second,
				Counts: Counts{Calls: 4, Failures: 3, Neutral: 1, Overload: 1, Streak: 3, Last: 7},
			}
			if *f.event != want {
				f.Fatalf("%+v, want %+v", *f.event, want)
			}
		}},
		{"M12 a probe recorded twice counts once", three, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Success, Success, Success)
			if s := f.snapshot(); s.State != HalfOpen || s.Good != 1 || s.Stale != 2 {
				f.Fatalf("%+v", s)
			}
		}},
	})
}

// TestEveryChangeTellsItsReason goes round and looks at each event.
func TestEveryChangeTellsItsReason(t *testing.T) {
	f := newFixture(t, ramped)
	last, since := uint64(1), f.now
	expect := func(from, to State, why Reason, next uint64) {
		t.Helper()
		f.changed(from, to, why)
		if s := f.snapshot(); s.Generation != last+next || s.Since != f.now || s.Since < since {
			t.Fatalf("%+v after generation %d", s, last)
		}
		last, since = f.snapshot().Generation, f.now
	}
	f.trip()
	expect(Closed, Open, TooManyFailures, 1)
	ticket := f.probe()
	expect(Open, HalfOpen, TimeIsUp, 1)
	f.pass(time.Second)
	f.record(ticket, Success)
	expect(HalfOpen, Recovering, ProbesSucceeded, 1)
	f.climb()
	expect(Recovering, Closed, RampDone, 0)
}

// TestConfigure exchanges settings.
func TestConfigure(t *testing.T) {
	configure := func(f *fixture, change func(*Settings)) {
		s := f.round.Load().rules.Settings
		change(&s)
		f.Configure(f.now, s)
	}
	run(t, []acceptance{
		{"M10 statistics stay, and calls under way still count", inARow, func(f *fixture) {
			f.calls(Success, Failure, Failure, Neutral)
			under, before := f.admit(), f.snapshot()
			configure(f, func(s *Settings) { s.FailureThreshold, s.FailureRatio = 4, 0 })
			if after := f.snapshot(); after != before {
				f.Fatalf("%+v, before %+v", after, before)
			}
			f.record(under, Failure)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"M10 a window of another length keeps what it saw, as new", ofFive, func(f *fixture) {
			f.calls(Success, Failure, Success, Neutral)
			before := f.snapshot()
			configure(f, func(s *Settings) { s.Window = time.Minute })
			if after := f.snapshot(); after != before {
				f.Fatalf("%+v, before %+v", after, before)
			}
			f.pass(59*time.Second - 6*time.Second)
			if n := f.snapshot().Counts.Calls; n != 3 {
				f.Fatal(n)
			}
			f.pass(time.Minute)
			if n := f.snapshot().Counts.Calls; n != 0 {
				f.Fatal(n)
			}
		}},
		{"M10 the successes of a shorter window still undo openings", oneProbe, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Failure)
			f.recover()
			f.times(10, Success)
			f.pass(time.Minute)
			f.times(10, Success)
			configure(f, func(s *Settings) { s.Window = time.Second })
			f.times(20, Success)
			if d := f.trip(); d != 5*time.Second {
				f.Fatal(d)
			}
		}},
		{"open stays open for as long as it said", oneProbe, func(f *fixture) {
			f.trip()
			configure(f, func(s *Settings) { s.Timeout = time.Hour })
			if d := f.reject(); d != 5*time.Second {
				f.Fatal(d)
			}
			f.record(f.probe(), Failure)
			if d := f.reject(); d != time.Hour {
				f.Fatal(d)
			}
		}},
		{"fewer probes: those under way may end", three, func(f *fixture) {
			f.trip()
			tickets := []Ticket{f.probe(), f.admit(), f.admit()}
			configure(f, func(s *Settings) { s.Probes = 1 })
			f.record(tickets[0], Success)
			f.reject()
			f.record(tickets[1], Success)
			f.record(tickets[2], Success)
			f.is(Closed)
		}},
		{"a shorter ramp ends", ramped, func(f *fixture) {
			f.trip()
			f.recover()
			configure(f, func(s *Settings) { s.Ramp = nil })
			f.admit()
			if n := f.snapshot().Share; n != 1 {
				f.Fatal(n)
			}
			f.pass(time.Second)
			f.admit()
			f.is(Closed)
		}},
	})
}

// TestSettingsOutOfRange (M9): whatever the settings are, nothing wedges.
func TestSettingsOutOfRange(t *testing.T) {
	nan := 0.0
	nan /= nan
	for name, s := range map[string]Settings{
		"zero": {FailureThreshold: 1},
		"negative": {
			FailureThreshold: 1, FailureWindow: -1, FailureRatio: -1, SlowRatio: -1, SlowAfter: -1, VolumeThreshold: -1,
			Window: -1, Timeout: -1, MaxTimeout: -1, Multiplier: -1, Jitter: -1, Probes: -1, ProbeTimeout: -1, SuccessThreshold: -1,
			Ramp: []float64{-1}, RampStep: -1,
		},
		"no numbers": {FailureThreshold: 1, FailureRatio: nan, SlowRatio: nan, Multiplier: nan, Jitter: nan, Ramp: []float64{nan, nan}},
		"huge": {
			FailureThreshold: 1 << 62, FailureWindow: 1, FailureRatio: 1e300, SlowRatio: 1e300, SlowAfter: 1 << 62, VolumeThreshold: 1,
			Window: 1 << 62, Timeout: 1 << 62, MaxTimeout: 1 << 62, Multiplier: 1e300, Jitter: 1e300, Probes: 1 << 62,
			ProbeTimeout: 1 << 62, SuccessThreshold: 1, Ramp: []float64{1e300}, RampStep: 1 << 62,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(to *Settings) { *to = s })
			r := f.round.Load().rules
			for _, x := range append([]float64{r.FailureRatio, r.SlowRatio, r.Jitter}, r.Ramp...) {
				if !(x >= 0 && x <= 1) || !(r.Multiplier >= 1) {
					t.Fatalf("%+v", r)
				}
			}
			f.trip()
			f.record(f.probe(), Failure)
			f.record(f.probe(), Neutral)
			f.record(f.admit(), Success)
			for n := 0; f.state() != Closed; n++ {
				if n == 10 {
					t.Fatal(f.state())
				}
				f.pass(longest)
				f.record(f.admit(), Success)
			}
		})
	}
}
