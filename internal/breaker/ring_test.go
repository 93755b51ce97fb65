package breaker

import (
	"testing"
	"time"
)

// TestWindow is about what counts, and for how long.
func TestWindow(t *testing.T) {
	run(t, []acceptance{
		{"W1 of nothing there is no ratio", off, func(f *fixture) {
			c := f.snapshot().Counts
			if _, known := c.FailureRatio(); known || c != (Counts{}) {
				f.Fatalf("%+v", c)
			}
			if _, known := c.SlowRatio(); known {
				f.Fatal("slow ratio of nothing")
			}
		}},
		{"W2 the last 64 results; the next one pushes out the first", off, func(f *fixture) {
			f.calls(Failure)
			f.times(63, Success)
			if last := f.snapshot().Counts.Last; last != 1<<63 {
				f.Fatalf("%b", last)
			}
			f.calls(Failure)
			if last := f.snapshot().Counts.Last; last != 1 {
				f.Fatalf("%b", last)
			}
		}},
		{"W3 slices leave one by one; after an idle window all have", off, func(f *fixture) {
			for i := range 10 {
				f.times(i+1, Failure)
				f.pass(time.Second)
			}
			for left := range 10 { // 1+…+10 less 1, 2, …
				want := uint64(55 - (left+1)*(left+2)/2)
				if c := f.snapshot().Counts; c.Calls != want || c.Failures != want {
					f.Fatalf("%+v, want %d", c, want)
				}
				f.pass(time.Second)
			}
		}},
		{"W5 a late result belongs to its own slice, if that is still there", off, func(f *fixture) {
			early := f.now
			f.pass(9 * time.Second)
			f.calls(Success)
			f.Record(early, f.admit(), Failure, 0)
			if n := f.snapshot().Counts.Failures; n != 1 {
				f.Fatal(n)
			}
			f.pass(time.Second)
			if n := f.snapshot().Counts.Failures; n != 0 {
				f.Fatal(n)
			}
			f.times(9, Failure)
			f.Record(early, f.admit(), Failure, 0)
			if c := f.snapshot().Counts; c.Failures != 9 || c.Calls != 10 {
				f.Fatalf("%+v", c)
			}
		}},
		{"W6 slow successes, slow failures and fast ones apart", measured, func(f *fixture) {
			f.Configure(f.now, func() Settings { s := defaults(); off(&s); s.SlowAfter = time.Second; return s }())
			f.Record(f.now, f.admit(), Success, time.Second)
			f.Record(f.now, f.admit(), Success, time.Second)
			f.Record(f.now, f.admit(), Failure, time.Second)
			f.Record(f.now, f.admit(), Failure, 0)
			f.Record(f.now, f.admit(), Success, 0)
			f.calls(Slow, Success, Success)
			c := f.snapshot().Counts
			slow, _ := c.SlowRatio()
			failed, _ := c.FailureRatio()
			if c.Calls != 8 || slow != 0.5 || failed != 0.25 {
				f.Fatalf("%+v", c)
			}
		}},
		{"W9 E12 after a pause nothing old is seen, though nobody recorded", off, func(f *fixture) {
			f.times(100, Failure)
			for _, d := range []time.Duration{10 * time.Second, time.Second, 100 * time.Second, 1000 * time.Hour} {
				f.pass(d)
				if c := f.snapshot().Counts; c.Calls != 0 || c.Failures != 0 {
					f.Fatalf("%+v after %v", c, d)
				}
			}
		}},
		{"W9 what is old does not open", ofFive, func(f *fixture) {
			f.times(4, Failure)
			f.pass(10 * time.Second)
			f.calls(Failure)
			f.is(Closed)
		}},
		{"W10 a clock that steps back: within a window it counts again", ofFive, func(f *fixture) {
			f.times(4, Failure)
			f.now -= int64(999 * time.Hour)
			for range 11 {
				f.pass(time.Second)
				f.times(2, Success)
			}
			if n := f.snapshot().Counts.Calls; n < 18 || n > 20 {
				f.Fatal(n)
			}
		}},
		{"W10 a clock that steps forward forgets, no more", ofFive, func(f *fixture) {
			f.times(4, Failure)
			f.pass(100_000 * time.Hour)
			if n := f.snapshot().Counts.Calls; n != 0 {
				f.Fatal(n)
			}
			f.times(5, Failure)
			f.is(Open)
		}},
	})
}

// TestSlices (W4, W8): slices begin and end where they should, for every reader.
func TestSlices(t *testing.T) {
	const width = 7
	var r ring
	for at := range uint64(1000) {
		r.add(at / width)
		want := uint64(0)
		for other := range at + 1 {
			if at/width-other/width < slots {
				want++
			}
		}
		if got := r.sum(at / width); got != want {
			t.Fatalf("%d at %d, want %d", got, at, want)
		}
	}
	if got := r.total(); got != 1000 {
		t.Fatalf("%d in all", got)
	}
}

// TestRingIsFull (W10): a slice that is full stays so, and its neighbours are right.
func TestRingIsFull(t *testing.T) {
	var r ring
	r.add(41)
	r.slot[42%slots].Store(42<<countBits | full - 1)
	for range 5 {
		r.add(42)
		r.take(&r.slot[42%slots], 42)
	}
	r.add(43)
	if got := r.sum(43); got != full+2 {
		t.Fatalf("%d, want %d", got, uint64(full+2))
	}
}

// TestSlicesComeRound (W10): where the number of a slice is beyond what a slot can
// hold, windows work as before.
func TestSlicesComeRound(t *testing.T) {
	const round = 1 << (64 - countBits)
	for _, first := range []uint64{0, round/2 - 5, round - 5, 3*round - 5, 1<<63 - 5} {
		var r ring
		for i := range uint64(100) {
			r.add(first + i)
			if got, want := r.sum(first+i), min(i+1, slots); got != want {
				t.Fatalf("%d at %d+%d, want %d", got, first, i, want)
			}
		}
		if got := r.sum(first + 99 + slots); got != 0 {
			t.Fatalf("%d when all is over", got)
		}
	}
}
