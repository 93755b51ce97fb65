package breaker

import (
	"testing"
	"time"
)

// acceptance is a case that breakers elsewhere are tested for, or fail.
type acceptance struct {
	name     string
	settings func(*Settings)
	test     func(f *fixture)
}

func run(t *testing.T, cases []acceptance) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.test(newFixture(t, c.settings)) })
	}
}

func off(s *Settings) { s.FailureThreshold, s.FailureRatio, s.SlowRatio = 0, 0, 0 }

func inARow(s *Settings) { off(s); s.FailureThreshold = 3 }

func ofFive(s *Settings) { off(s); s.FailureRatio, s.VolumeThreshold = 0.6, 5 }

func slowHalf(s *Settings) { off(s); s.SlowRatio, s.VolumeThreshold = 0.5, 4 }

func three(s *Settings) { inARow(s); s.Probes, s.SuccessThreshold, s.Ramp = 3, 3, nil }

func oneProbe(s *Settings) { inARow(s); s.Probes, s.SuccessThreshold, s.Ramp = 1, 1, nil }

func ramped(s *Settings) {
	inARow(s)
	s.SuccessThreshold, s.FailureRatio, s.VolumeThreshold = 1, 0.5, 20
}

func measured(s *Settings) { slowHalf(s); s.SlowAfter = time.Second }

func threeOfTen(s *Settings) { off(s); s.FailureThreshold, s.FailureWindow = 3, 10 }

// TestClosed is about Closed, and how it opens.
func TestClosed(t *testing.T) {
	run(t, []acceptance{
		{"C1 defaults open at the fifth failure in a row, for five seconds", nil, func(f *fixture) {
			f.times(4, Failure)
			f.is(Closed)
			f.calls(Failure)
			f.changed(Closed, Open, TooManyFailures)
			if d := f.snapshot().OpenFor; d != 5*time.Second {
				f.Fatal(d)
			}
		}},
		{"C2 N in a row open at N; a success begins anew", inARow, func(f *fixture) {
			f.calls(Failure, Failure, Success, Failure, Failure)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"C2 neutral results and overload neither add to a streak nor end it", inARow, func(f *fixture) {
			f.calls(Failure, Neutral, Failure, Overload)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"C3 three of ten open, wherever they are", threeOfTen, func(f *fixture) {
			f.calls(Failure)
			f.times(8, Success)
			f.calls(Failure) // the tenth
			f.calls(Success) // the first has left
			f.calls(Failure)
			f.is(Closed)
			f.calls(Failure)
			f.changed(Closed, Open, TooManyFailures)
		}},
		{"C3 two of ten and one before do not", threeOfTen, func(f *fixture) {
			f.calls(Failure)
			f.times(8, Success)
			f.calls(Failure, Success)
			f.times(8, Success)
			f.calls(Failure, Failure)
			f.is(Closed)
		}},
		{"C3 C6 a ratio opens at its threshold", ofFive, func(f *fixture) {
			f.calls(Success, Success, Failure, Failure, Failure)
			f.changed(Closed, Open, FailureRatio)
		}},
		{"C3 a ratio does not open below its threshold", ofFive, func(f *fixture) {
			f.calls(Success, Failure, Success, Failure, Success, Failure, Success, Failure, Success, Failure)
			f.is(Closed)
		}},
		{"C4 below the minimum volume nothing opens", ofFive, func(f *fixture) {
			f.times(4, Failure)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"C4 neutral results and overload are no volume", ofFive, func(f *fixture) {
			f.times(4, Failure)
			f.times(9, Neutral)
			f.times(9, Overload)
			f.is(Closed)
		}},
		{"C5 a success that completes the volume does not open; the next failure does", ofFive, func(f *fixture) {
			f.calls(Failure, Failure, Failure, Failure, Success)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"C7 slow successes alone open", slowHalf, func(f *fixture) {
			f.calls(Slow, Success, Success)
			f.calls(Slow)
			f.changed(Closed, Open, SlowRatio)
		}},
		{"C7 a call is slow at SlowAfter, by what it took", measured, func(f *fixture) {
			for range 20 {
				f.Record(f.now, f.admit(), Success, time.Second-1)
			}
			f.is(Closed)
			for range 20 {
				f.Record(f.now, f.admit(), Success, time.Second)
			}
			f.is(Open)
		}},
		{"C7 what neutral calls took says nothing", measured, func(f *fixture) {
			for range 20 {
				f.Record(f.now, f.admit(), Neutral, time.Hour)
				f.Record(f.now, f.admit(), Overload, time.Hour)
			}
			if c := f.snapshot().Counts; c.Slow+c.Calls != 0 {
				f.Fatalf("%+v", c)
			}
		}},
		{"C8 a count of errors is a threshold in the last results", func(s *Settings) { off(s); s.FailureThreshold, s.FailureWindow = 64, 64 }, func(f *fixture) {
			f.times(63, Failure)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"C9 one result orders a pause", nil, func(f *fixture) {
			f.event = f.OpenFor(f.now, f.admit(), 30*time.Second)
			f.changed(Closed, Open, Ordered)
			if d := f.reject(); d != 30*time.Second {
				f.Fatal(d)
			}
		}},
		{"C9 an ordered pause is bounded, and one of an old round ignored", nil, func(f *fixture) {
			old := f.admit()
			f.OpenFor(f.now, f.admit(), 1000*time.Hour)
			if d := f.reject(); d != time.Minute {
				f.Fatal(d)
			}
			f.OpenFor(f.now, old, time.Second)
			if d := f.reject(); d != time.Minute {
				f.Fatal(d)
			}
			isNoted(f, 1)
		}},
		{"C11 E6 failures in a row count however far apart", inARow, func(f *fixture) {
			for range 3 {
				f.is(Closed)
				f.calls(Failure)
				f.pass(time.Hour)
			}
			f.is(Open)
		}},
		{"a thousand in a row", func(s *Settings) { off(s); s.FailureThreshold = 1000 }, func(f *fixture) {
			f.times(999, Failure)
			f.is(Closed)
			f.calls(Failure)
			f.is(Open)
		}},
		{"without triggers it never opens", off, func(f *fixture) {
			f.times(500, Failure)
			f.times(500, Slow)
			f.is(Closed)
		}},
	})
}

// TestOpen is about Open.
func TestOpen(t *testing.T) {
	run(t, []acceptance{
		{"O1 rejects, and counts that", nil, func(f *fixture) {
			f.trip()
			for range 7 {
				f.reject()
			}
			if c := f.snapshot().Counts; c.Rejected != 7 || c.Calls != 0 {
				f.Fatalf("%+v", c)
			}
		}},
		{"O2 open before its time is up, half-open at it, with nothing counted", nil, func(f *fixture) {
			d := f.trip()
			f.pass(d - 1)
			f.reject()
			f.pass(1)
			f.is(Open)
			f.admit()
			f.changed(Open, HalfOpen, TimeIsUp)
			if c := f.snapshot().Counts; c != (Counts{}) {
				f.Fatalf("%+v", c)
			}
		}},
		{"O3 each opening is longer, up to a limit", oneProbe, func(f *fixture) {
			f.trip()
			for _, want := range []time.Duration{10, 20, 40, 60, 60} {
				f.record(f.probe(), Failure)
				if d := f.snapshot().OpenFor; d != want*time.Second {
					f.Fatalf("%v, want %v s", d, want)
				}
			}
		}},
		{"O3 time does not shorten it", oneProbe, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Failure)
			f.recover()
			f.pass(1000 * time.Hour)
			if d := f.trip(); d != 20*time.Second {
				f.Fatal(d)
			}
		}},
		{"O3 successes do, one growth for each volume of them, old ones too", oneProbe, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Failure)
			f.record(f.probe(), Failure) // 20 s
			f.recover()
			for range 20 {
				f.calls(Success)
				f.pass(3 * time.Second)
			}
			if d := f.trip(); d != 20*time.Second {
				f.Fatal(d)
			}
			f.recover()
			for range 60 {
				f.calls(Success)
				f.pass(3 * time.Second)
			}
			if d := f.trip(); d != 5*time.Second {
				f.Fatal(d)
			}
		}},
		{"O3 jitter stays in its bounds and differs", func(s *Settings) { oneProbe(s); s.Jitter, s.Multiplier = 0.2, 1 }, func(f *fixture) {
			low, high := time.Hour, time.Duration(0)
			f.trip()
			for range 500 {
				d := f.snapshot().OpenFor
				low, high = min(low, d), max(high, d)
				f.record(f.probe(), Failure)
			}
			if low < 4*time.Second || low > 4100*time.Millisecond || high > 6*time.Second || high < 5900*time.Millisecond {
				f.Fatalf("from %v to %v", low, high)
			}
		}},
		{"O4 the rest of the time is told, and 0 in other states", oneProbe, func(f *fixture) {
			if d := f.snapshot().OpenFor; d != 0 {
				f.Fatal(d)
			}
			f.trip()
			f.pass(2 * time.Second)
			if d, told := f.reject(), f.snapshot().OpenFor; d != 3*time.Second || told != d {
				f.Fatal(d, told)
			}
			f.probe()
			if d := f.snapshot().OpenFor; d != 0 {
				f.Fatal(d)
			}
		}},
		{"its own rejections are no results", nil, func(f *fixture) {
			f.trip()
			f.record(Ticket{}, Failure, Success)
			f.is(Open)
			isNoted(f, 2)
		}},
	})
}

// TestHalfOpen is about probes and their leases.
func TestHalfOpen(t *testing.T) {
	run(t, []acceptance{
		{"H1 H2 k probes with the one that found it, no k+1st", three, func(f *fixture) {
			f.trip()
			f.probe()
			f.admit()
			f.admit()
			if d := f.reject(); d != 5*time.Second {
				f.Fatal(d)
			}
			if s := f.snapshot(); s.Probes != 3 || s.Counts.Rejected != 1 {
				f.Fatalf("%+v", s)
			}
		}},
		{"H3 a neutral result gives one lease back, once", three, func(f *fixture) {
			f.trip()
			t := f.probe()
			f.admit()
			f.admit()
			f.record(t, Neutral, Neutral, Overload, Success)
			if s := f.snapshot(); s.Probes != 2 || s.Good != 0 || s.Stale != 3 {
				f.Fatalf("%+v", s)
			}
			f.admit()
			f.reject()
		}},
		{"H4 any number of neutral results neither closes nor wedges", three, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Neutral)
			f.times(1000, Neutral)
			f.times(1000, Overload)
			f.is(HalfOpen)
			f.times(3, Success)
			f.is(Closed)
		}},
		{"H5 closes at enough good probes, not before", three, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Success)
			f.calls(Success)
			f.is(HalfOpen)
			f.calls(Success)
			f.changed(HalfOpen, Closed, ProbesSucceeded)
		}},
		{"H5 opens at the first bad one, whatever was good before", three, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Success)
			f.calls(Success, Failure)
			f.changed(HalfOpen, Open, ProbeFailed)
		}},
		{"H6 a slow probe opens", func(s *Settings) { three(s); s.SlowRatio = 0.8 }, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Slow)
			f.changed(HalfOpen, Open, ProbeFailed)
		}},
		{"H6 a slow probe is good where slowness is no trigger", oneProbe, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Slow)
			f.is(Closed)
		}},
		{"H7 E4 a probe without an answer opens at the end of its lease, for longer", oneProbe, func(f *fixture) {
			f.trip()
			f.probe()
			f.pass(5*time.Second - 1)
			f.reject()
			f.is(HalfOpen)
			f.pass(1)
			if d := f.reject(); d != 10*time.Second {
				f.Fatal(d)
			}
			f.changed(HalfOpen, Open, ProbeLapsed)
		}},
		{"H9 E2 E3 a panic, Goexit or lost ticket wedges nothing; its late result is fenced", oneProbe, func(f *fixture) {
			f.trip()
			lost := f.probe()
			f.pass(time.Hour)
			f.reject()
			f.record(lost, Success, Failure)
			f.is(Open)
			again := f.admit() // long since its time
			f.record(lost, Success, Failure)
			f.is(HalfOpen)
			isNoted(f, 4)
			f.record(again, Success)
			f.is(Closed)
		}},
		{"H9 the lost probe of several does not hold up the others", three, func(f *fixture) {
			f.trip()
			f.probe()
			f.times(3, Success)
			f.is(Closed)
		}},
		{"a probe that fails at the end of its lease still counts", oneProbe, func(f *fixture) {
			f.trip()
			t := f.probe()
			f.pass(6 * time.Second)
			f.record(t, Failure)
			f.changed(HalfOpen, Open, ProbeFailed)
		}},
		{"H8 E1 the success of a call from before does not close", oneProbe, func(f *fixture) {
			old := f.admit()
			f.trip()
			f.probe()
			f.record(old, Success)
			f.is(HalfOpen)
			isNoted(f, 1)
		}},
		{"H8 its failure does not open", oneProbe, func(f *fixture) {
			old := f.admit()
			f.trip()
			f.record(f.probe(), Success)
			f.record(old, Failure, Failure, Failure)
			f.is(Closed)
			if s := f.snapshot(); s.Counts != (Counts{}) || s.Stale != 3 {
				f.Fatalf("%+v", s)
			}
		}},
		{"H8 an old success does not end a streak of this round", three, func(f *fixture) {
			old := f.admit()
			f.trip()
			f.recover()
			f.calls(Failure, Failure)
			f.record(old, Success)
			f.calls(Failure)
			f.is(Open)
		}},
		{"H8 E1b E11 results from before give back no lease that they never had", three, func(f *fixture) {
			var old []Ticket
			for range 9 {
				old = append(old, f.admit())
			}
			f.trip()
			f.probe()
			f.admit()
			f.admit()
			for i, t := range old {
				f.record(t, Class(i%5))
			}
			f.reject()
			if s := f.snapshot(); s.Probes != 3 || s.Good != 0 {
				f.Fatalf("%+v", s)
			}
		}},
		{"H8 a probe of the round before neither closes nor opens this one", oneProbe, func(f *fixture) {
			f.trip()
			old := f.probe()
			f.record(old, Failure)
			f.probe()
			f.record(old, Success, Failure)
			f.is(HalfOpen)
		}},
		{"M13 a probe that its caller cancels leaves things as they are", oneProbe, func(f *fixture) {
			f.trip()
			f.record(f.probe(), Neutral)
			f.is(HalfOpen)
			if n := f.snapshot().Probes; n != 0 {
				f.Fatal(n)
			}
		}},
	})
}
