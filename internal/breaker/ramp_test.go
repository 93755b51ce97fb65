package breaker

import (
	"math"
	"testing"
	"time"
)

// TestRamp is about what comes after the probes.
func TestRamp(t *testing.T) {
	run(t, []acceptance{
		{"each step admits its share", func(s *Settings) { ramped(s); s.Ramp, s.RampStep = []float64{0.01, 0.05, 0.25}, time.Minute }, func(f *fixture) {
			f.trip()
			f.recover()
			f.changed(HalfOpen, Recovering, ProbesSucceeded)
			for _, share := range []float64{0.01, 0.05, 0.25} {
				n := 0
				for range 100_000 {
					if a := f.Admit(f.now); a.Admitted {
						n++
						f.record(a.Ticket, Success)
					}
				}
				if got := float64(n) / 100_000; math.Abs(got-share) > share/5 || f.snapshot().Share != share {
					f.Fatalf("admits %v, want %v, says %v", got, share, f.snapshot().Share)
				}
				f.pass(time.Minute)
			}
			f.admit()
			f.changed(Recovering, Closed, RampDone)
		}},
		{"the first step that fails ends it, without a minimum volume", ramped, func(f *fixture) {
			f.trip()
			f.recover()
			f.pass(time.Second)
			f.record(f.admit(), Failure)
			f.changed(Recovering, Open, FailureRatio)
			if d := f.snapshot().OpenFor; d != 10*time.Second {
				f.Fatal(d)
			}
		}},
		{"a failure among many successes does not", func(s *Settings) { ramped(s); s.Ramp = []float64{0.5} }, func(f *fixture) {
			f.trip()
			f.recover()
			var tickets []Ticket
			for len(tickets) < 50 {
				if a := f.Admit(f.now); a.Admitted {
					tickets = append(tickets, a.Ticket)
				}
			}
			for _, t := range tickets {
				f.record(t, Success)
			}
			f.record(tickets[0], Failure)
			f.is(Recovering)
		}},
		{"a slow step ends it", func(s *Settings) { ramped(s); s.SlowRatio = 0.8 }, func(f *fixture) {
			f.trip()
			f.recover()
			f.pass(time.Second)
			f.record(f.admit(), Slow)
			f.changed(Recovering, Open, SlowRatio)
		}},
		{"a slow success is one where slowness is no trigger", ramped, func(f *fixture) {
			f.trip()
			f.recover()
			for range 3 {
				f.pass(time.Second)
				f.record(f.admit(), Slow)
			}
			f.pass(time.Second)
			f.admit()
			f.is(Closed)
		}},
		{"a step without a success does not end, but lets one call by for each RampStep", ramped, func(f *fixture) {
			f.trip()
			f.recover()
			for range 10 {
				f.pass(time.Second)
				f.admit()
				if s := f.snapshot(); s.Share != 0.01 || s.State != Recovering {
					f.Fatalf("%+v", s)
				}
			}
		}},
		{"few calls are enough", ramped, func(f *fixture) {
			f.trip()
			f.recover()
			f.climb()
			if n := f.snapshot().Counts.Streak; n != 0 {
				f.Fatal(n)
			}
		}},
		{"what was admitted on the ramp and fails later counts", ramped, func(f *fixture) {
			f.trip()
			f.recover()
			f.pass(time.Second)
			late := []Ticket{f.admit()}
			f.climb()
			for _, t := range late {
				f.record(t, Failure, Failure, Failure)
			}
			f.is(Open)
			isNoted(f, 0)
		}},
		{"a rejected call is told when the step ends", func(s *Settings) { ramped(s); s.Ramp = []float64{0} }, func(f *fixture) {
			f.trip()
			f.recover()
			f.pass(time.Second / 4)
			if d := f.reject(); d != 3*time.Second/4 {
				f.Fatal(d)
			}
		}},
		{"another seed admits other calls", func(s *Settings) { ramped(s); s.Ramp = []float64{0.5} }, func(f *fixture) {
			same := 0
			other := newFixture(f.T, func(s *Settings) { ramped(s); s.Ramp = []float64{0.5} })
			other.Breaker = New(other.now, other.round.Load().rules.Settings, 2)
			f.trip()
			f.recover()
			other.trip()
			other.recover()
			for range 1000 {
				if f.Admit(f.now).Admitted == other.Admit(other.now).Admitted {
					same++
				}
			}
			if same < 400 || same > 600 {
				f.Fatalf("%d of 1000 alike", same)
			}
		}},
	})
}
