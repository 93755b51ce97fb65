package breaker

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// together runs n goroutines that begin at once, and waits for them.
func together(n int, do func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			do(i)
		})
	}
	close(begin)
	wg.Wait()
}

// duel lets two goroutines do something in the same instant, again and again, and
// looks before and after each time. Now one is a little ahead, now the other.
func duel(rounds int64, before func(), do func(who int), after func()) {
	var round, done atomic.Int64
	await := func(n *atomic.Int64, want int64) {
		for spins := 0; n.Load() != want; spins++ {
			if spins > 300 {
				runtime.Gosched()
			}
		}
	}
	var wg sync.WaitGroup
	var lag atomic.Int64
	wg.Go(func() {
		for i := range rounds {
			await(&round, i+1)
			do(1)
			done.Store(i + 1)
		}
	})
	for i := range rounds {
		before()
		round.Store(i + 1)
		for range i % 1024 {
			lag.Load()
		}
		do(0)
		await(&done, i+1)
		after()
	}
	wg.Wait()
}

// TestAtTheSameInstant is about the gaps of a few nanoseconds in which a look and a
// change that belong together could be parted.
func TestAtTheSameInstant(t *testing.T) {
	const rounds = 10_000
	t.Run("one probe is free", func(t *testing.T) {
		f := newFixture(t, oneProbe)
		f.trip()
		f.record(f.probe(), Neutral)
		var got [2]Admission
		duel(rounds, func() {}, func(who int) { got[who] = f.Admit(f.now) }, func() {
			if got[0].Admitted == got[1].Admitted || f.snapshot().Probes != 1 {
				t.Fatalf("%+v and %+v", got[0], got[1])
			}
			f.record(got[0].Ticket, Neutral)
			f.record(got[1].Ticket, Neutral)
		})
	})
	t.Run("two probes answer", func(t *testing.T) {
		f := newFixture(t, func(s *Settings) { oneProbe(s); s.Probes, s.SuccessThreshold = 2, 1<<30 })
		f.trip()
		f.record(f.probe(), Neutral)
		var tickets [2]Ticket
		good := 0
		duel(rounds, func() { tickets = [2]Ticket{f.admit(), f.admit()} }, func(who int) { f.Record(f.now, tickets[who], Success, 0) }, func() {
			if s := f.snapshot(); s.Good != good+2 || s.Probes != 0 {
				t.Fatalf("%+v after %d", s, good)
			}
			good += 2
		})
	})
	t.Run("two failures are enough", func(t *testing.T) {
		var f *fixture
		var events [2]*Event
		duel(rounds/10, func() { f = newFixture(t, func(s *Settings) { off(s); s.FailureThreshold = 2 }) },
			func(who int) { events[who] = f.Record(f.now, f.Admit(f.now).Ticket, Failure, 0) }, func() {
				if (events[0] == nil) == (events[1] == nil) || f.state() != Open {
					t.Fatalf("%+v and %+v: %s", events[0], events[1], f.state())
				}
			})
	})
	t.Run("it is time to probe", func(t *testing.T) {
		f := newFixture(t, oneProbe)
		var got [2]Admission
		duel(rounds, func() {
			f.Force(f.now, true)
			f.Release(f.now)
		}, func(who int) { got[who] = f.Admit(f.now) }, func() {
			if got[0].Admitted == got[1].Admitted || (got[0].Event == nil) == (got[1].Event == nil) {
				t.Fatalf("%+v and %+v", got[0], got[1])
			}
		})
	})
	t.Run("both remember", func(t *testing.T) {
		var s *stats
		duel(3*rounds, func() { s = newStats(1) }, func(int) {
			for range 32 {
				s.remember(1)
			}
		}, func() {
			if got := s.last.Load(); got != math.MaxUint64 {
				t.Fatalf("%b", got)
			}
		})
	})
	t.Run("each failure is remembered", func(t *testing.T) {
		var f *fixture
		duel(rounds/10, func() { f = newFixture(t, off) }, func(int) {
			for range 32 {
				f.Record(f.now, f.Admit(f.now).Ticket, Failure, 0)
			}
		}, func() {
			if c := f.snapshot().Counts; c.Streak != 64 || c.Last != math.MaxUint64 || c.Failures != 64 || c.Calls != 64 {
				t.Fatalf("%+v", c)
			}
		})
	})
	t.Run("both begin slices", func(t *testing.T) {
		var r ring
		slice := uint64(0)
		duel(rounds, func() { slice += slots }, func(int) {
			for i := range uint64(slots) {
				r.add(slice + i)
			}
		}, func() {
			if n := r.total(); n != 2*slice {
				t.Fatalf("%d in %d slices", n, slice)
			}
		})
	})
	t.Run("a streak", func(t *testing.T) {
		f := newFixture(t, off)
		duel(1, func() {}, func(int) {
			for range 20_000 {
				f.Record(f.now, f.Admit(f.now).Ticket, Failure, 0)
			}
		}, func() {
			if n := f.snapshot().Counts.Streak; n != 40_000 {
				t.Fatal(n)
			}
		})
	})
}

// TestProbesAtOnce (H10, E9): of a thousand calls at the instant at which it is
// over, k are probes.
func TestProbesAtOnce(t *testing.T) {
	for range 20 {
		f := newFixture(t, func(s *Settings) { three(s); s.Probes = 7; s.SuccessThreshold = 100 })
		f.pass(f.trip())
		var probes, events atomic.Int64
		together(1000, func(int) {
			a := f.Admit(f.now)
			if a.Admitted {
				probes.Add(1)
			}
			if a.Event != nil {
				events.Add(1)
			}
		})
		if probes.Load() != 7 || events.Load() != 1 || f.snapshot().Counts.Rejected != 993 {
			t.Fatalf("%d probes, %d events, %+v", probes.Load(), events.Load(), f.snapshot())
		}
	}
}

// TestTripIsNeverLost (C10): failures at once that are exactly enough open it, and
// one of them makes the event.
func TestTripIsNeverLost(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"in a row":    func(s *Settings) { off(s); s.FailureThreshold = 64 },
		"of the last": func(s *Settings) { off(s); s.FailureThreshold, s.FailureWindow = 64, 64 },
		"ratio":       func(s *Settings) { off(s); s.FailureRatio, s.VolumeThreshold = 1, 64 },
		"slow ratio":  func(s *Settings) { off(s); s.SlowRatio, s.VolumeThreshold = 1, 64 },
	} {
		t.Run(name, func(t *testing.T) {
			class := Failure
			if name == "slow ratio" {
				class = Slow
			}
			for range 300 {
				f := newFixture(t, change)
				var events atomic.Int64
				together(8, func(i int) {
					for range 8 {
						if a := f.Admit(f.now); f.Record(f.now, a.Ticket, class, 0) != nil {
							events.Add(1)
						}
						if i%2 == 0 {
							runtime.Gosched()
						}
					}
				})
				if f.state() != Open || events.Load() != 1 {
					t.Fatalf("%s, %d events, %+v", f.state(), events.Load(), f.snapshot())
				}
			}
		})
	}
}

// TestNothingIsLostOrCountedTwice (W7): in one slice, and while slices change.
func TestNothingIsLostOrCountedTwice(t *testing.T) {
	const goroutines, each = 8, 5000
	for name, step := range map[string]time.Duration{"one slice": 0, "many slices": 20 * time.Microsecond} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(s *Settings) { off(s); s.Window = 10 * time.Second })
			var clock atomic.Int64
			clock.Store(f.now)
			together(goroutines, func(i int) {
				for range each {
					now := clock.Add(int64(step))
					f.Record(now, f.Admit(now).Ticket, Class(i%3), 0)
				}
			})
			s := f.round.Load().stats
			c, all := s.counts(clock.Load()), uint64(goroutines*each)
			if c.Calls != all || c.Failures != all*3/8 || c.Slow != all*2/8 {
				t.Fatalf("%+v of %d", c, all)
			}
			if good := s.successes(); good != all*3/8 {
				t.Fatalf("%d successes of %d", good, all)
			}
		})
	}
}

// TestOldResultsNeverCount (H8): while it opens, probes and closes, results of
// before arrive; one of them would open it again.
func TestOldResultsNeverCount(t *testing.T) {
	for range 200 {
		f := newFixture(t, func(s *Settings) { oneProbe(s); s.FailureThreshold = 1 })
		var old []Ticket
		for range 400 {
			old = append(old, f.admit())
		}
		f.trip()
		before := f.now
		together(5, func(i int) {
			if i == 4 {
				f.record(f.probe(), Success)
				return
			}
			for _, ticket := range old[i*100:][:100] {
				f.Record(before, ticket, Failure, 0)
				runtime.Gosched()
			}
		})
		f.is(Closed)
		if s := f.snapshot(); s.Counts.Failures != 0 || s.Stale != 400 {
			t.Fatalf("%+v", s)
		}
	}
}

// TestChaos runs everything at once, and then looks at what was told.
func TestChaos(t *testing.T) {
	const goroutines, each, most = 8, 4000, 3
	s := Settings{
		FailureThreshold: 4, FailureRatio: 0.5, VolumeThreshold: 10, Window: time.Second,
		Timeout: time.Millisecond, MaxTimeout: 5 * time.Millisecond, Multiplier: 2, Jitter: 0.5,
		Probes: most, ProbeTimeout: 200 * time.Millisecond, SuccessThreshold: 2, Ramp: []float64{0.1, 0.5}, RampStep: time.Millisecond,
		VetoSuccesses: 2, VetoWindow: time.Microsecond, Canary: 0.5,
	}
	b := New(0, s, 1)
	var clock, good atomic.Int64
	var out sync.Map // generation to probes at least out
	var mu sync.Mutex
	told := map[uint64][]Event{}
	tell := func(e *Event) {
		if e != nil {
			mu.Lock()
			defer mu.Unlock()
			told[e.Generation] = append(told[e.Generation], *e)
		}
	}
	together(goroutines, func(i int) {
		r := rand.New(rand.NewPCG(uint64(i), 1)) //nolint:gosec // a test
		for n := range each {
			now := clock.Add(int64(r.IntN(200)) * int64(time.Microsecond))
			if i == 0 && n%200 == 0 {
				tell(b.Force(now, r.IntN(2) == 0))
				tell(b.Release(now))
				s := s
				s.Window = time.Duration(1+r.IntN(3)) * time.Second
				b.Configure(now, s)
			}
			switch n % 100 {
			case 0, 10, 20, 30, 40, 50, 60, 70:
				tell(b.Heed(now, true, true))
			case 5, 35, 65:
				tell(b.Dismiss(now))
			case 80:
				tell(b.Recover(now, b.Generation()))
			case 90:
				b.Postpone(b.Generation(), now+int64(r.IntN(10)-5)*int64(time.Millisecond))
			}
			a := b.Admit(now)
			tell(a.Event)
			if !a.Admitted {
				continue
			}
			if a.Ticket.Probe() {
				counter, _ := out.LoadOrStore(a.Ticket.generation(), new(atomic.Int64))
				if n := counter.(*atomic.Int64).Add(1); n > most {
					t.Errorf("%d probes at once", n)
				}
				if r.IntN(20) == 0 {
					continue // lost
				}
				runtime.Gosched()
				counter.(*atomic.Int64).Add(-1)
			}
			class := Class(r.IntN(5))
			if good.Add(1)/1000%2 == 0 && class < Neutral { // good and bad times
				class = Success
			}
			tell(b.Record(now, a.Ticket, class, 0))
		}
	})
	end := b.Snapshot(clock.Load())
	state, reasons := Closed, map[Reason]int{}
	within := map[Reason]int{RampDone: 1, Fleet: 2} // what begins no generation, in this order
	for g := uint64(1); g <= end.Generation; g++ {
		events := told[g]
		slices.SortFunc(events, func(a, b Event) int { return within[a.Reason] - within[b.Reason] })
		for i, e := range events {
			if e.Generation != g || (i == 0 && g > 1) != (within[e.Reason] == 0) {
				t.Fatalf("generation %d: %+v", g, events)
			}
		}
		if len(events) == 0 && g > 1 {
			t.Fatalf("generation %d began unnoticed", g)
		}
		for _, e := range events {
			if e.From != state {
				t.Fatalf("%+v, but it was %s", e, state)
			}
			state = e.To
			reasons[e.Reason]++
		}
	}
	if state != end.State {
		t.Fatalf("%s at the end of the events, %s in the end", state, end.State)
	}
	t.Log(reasons)
	for _, why := range []Reason{TooManyFailures, TimeIsUp, Forced, Released, Fleet, FleetProbes} {
		if reasons[why] == 0 {
			t.Errorf("never %s: %v", why, reasons)
		}
	}
}

// TestNothingIsAllocated holds for everything that happens often.
func TestNothingIsAllocated(t *testing.T) {
	f := newFixture(t, func(s *Settings) {
		off(s)
		s.FailureThreshold = 1 << 30
		s.SlowRatio = 1
		s.Probes = 1
		s.SuccessThreshold = 1
	})
	check := func(what string, do func()) {
		t.Helper()
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	for _, c := range []Class{Success, Failure, Slow, Neutral, Overload} {
		check("a call", func() {
			f.now += int64(time.Second) / 3
			f.Record(f.now, f.Admit(f.now).Ticket, c, 0)
			f.Record(f.now, f.Admit(f.now).Ticket, Success, 0)
		})
	}
	check("a stale result", func() { f.Record(f.now, Ticket{}, Failure, 0) })
	check("a snapshot", func() { f.snapshot() })
	f.Force(f.now, true)
	check("forced open", func() { f.reject() })
	f.Release(f.now)
	f.now++
	probe := f.admit()
	check("half-open", func() { f.reject() })
	f.record(probe, Success)
	check("on the ramp", func() { f.Admit(f.now) })
	f.OpenFor(f.now, newTicket(f.snapshot().Generation, 0), time.Minute)
	check("open", func() { f.reject() })
	f.Force(f.now, false)
	f.Release(f.now)
	f.now += int64(time.Minute)
	check("nobody to heed", func() { f.Heed(f.now, true, false) })
	check("nothing to dismiss", func() { f.Dismiss(f.now) })
	f.Heed(f.now, false, true)
	f.is(Hearsay)
	check("by hearsay", func() { f.reject() })
}
