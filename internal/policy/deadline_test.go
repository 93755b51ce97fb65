package policy

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLimits(t *testing.T) {
	const ms = time.Millisecond
	timeouts := Timeouts{Call: time.Second, PerAttempt: 300 * ms, Margin: 5 * ms, Minimum: 10 * ms}
	for _, c := range []struct {
		name      string
		own, left time.Duration
		hop       bool
		want      time.Duration
		ok        bool
	}{
		{"nobody sets one", 0, Unbounded, false, Unbounded, true},
		{"nor for a hop", 0, Unbounded, true, Unbounded, true},
		{"the default alone", time.Second, Unbounded, false, time.Second, true},
		{"the default alone, for a hop", time.Second, Unbounded, true, time.Second, true},
		{"the caller's is later", time.Second, 3 * time.Second, false, time.Second, true},
		{"the caller's is earlier", time.Second, 400 * ms, false, 400 * ms, true},
		{"a hop keeps its margin", time.Second, 400 * ms, true, 395 * ms, true},
		{"the margin is of the caller's, not of the default", time.Second, 2 * time.Second, true, time.Second, true},
		{"the margin tells", time.Second, 1003 * ms, true, 998 * ms, true},
		{"a stream has the caller's only", 0, 400 * ms, false, 400 * ms, true},
		{"just enough", time.Second, 10 * ms, false, 10 * ms, true},
		{"just too little", time.Second, 10*ms - 1, false, 10*ms - 1, false},
		{"just enough for a hop", time.Second, 15 * ms, true, 10 * ms, true},
		{"just too little for a hop", time.Second, 15*ms - 1, true, 10*ms - 1, false},
		{"over", time.Second, 0, false, 0, false},
		{"long over", time.Second, -time.Second, true, -1005 * ms, false},
		{"a default below the minimum", 5 * ms, Unbounded, false, 5 * ms, false},
	} {
		if got, ok := timeouts.Limit(c.own, c.left, c.hop); got != c.want || ok != c.ok {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
	if _, ok := (Timeouts{}).Limit(0, 0, false); ok {
		t.Error("a call without any time is made where there is no minimum")
	}
	if _, ok := (Timeouts{}).Limit(0, 1, false); !ok {
		t.Error("a call is refused where there is no minimum")
	}
}

func TestAttempts(t *testing.T) {
	const ms = time.Millisecond
	timeouts := Timeouts{PerAttempt: 300 * ms, Minimum: 10 * ms}
	for _, c := range []struct {
		name     string
		timeouts Timeouts
		left     time.Duration
		want     time.Duration
		ok       bool
	}{
		{"its share", timeouts, time.Second, 300 * ms, true},
		{"its share of no bound", timeouts, Unbounded, 300 * ms, true},
		{"what is left", timeouts, 200 * ms, 200 * ms, true},
		{"no share", Timeouts{}, time.Second, time.Second, true},
		{"neither", Timeouts{}, Unbounded, Unbounded, true},
		{"just enough", timeouts, 10 * ms, 10 * ms, true},
		{"too little", timeouts, 9 * ms, 9 * ms, false},
		{"a share below the minimum", Timeouts{PerAttempt: ms, Minimum: 10 * ms}, time.Second, ms, true},
		{"after a pause", timeouts, Left(400*ms, 150*ms), 250 * ms, true},
		{"after too long a pause", timeouts, Left(400*ms, 395*ms), 5 * ms, false},
		{"after a pause that outlives the deadline", timeouts, Left(400*ms, time.Second), -600 * ms, false},
		{"after a pause of no bound", Timeouts{}, Left(Unbounded, time.Second), Unbounded, true},
	} {
		if got, ok := c.timeouts.Attempt(c.left); got != c.want || ok != c.ok {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

// TestNestedDeadlines: through any number of servers no call outlives the one that
// it serves, and each server that could keep its margin has kept it.
func TestNestedDeadlines(t *testing.T) {
	duration := func(most time.Duration) *rapid.Generator[time.Duration] {
		return rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, "ns"))
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		left := rapid.OneOf(rapid.Just(Unbounded), duration(time.Minute)).Draw(t, "left")
		for hop := range rapid.IntRange(1, 8).Draw(t, "hops") {
			timeouts := Timeouts{
				Margin: duration(time.Second).Draw(t, "margin"), Minimum: duration(time.Second).Draw(t, "minimum"),
				PerAttempt: duration(time.Minute).Draw(t, "attempt"),
			}
			own := duration(time.Minute).Draw(t, "own")
			limit, ok := timeouts.Limit(own, left, hop > 0)
			if limit > left || own > 0 && limit > own {
				t.Fatalf("%v of %v with a timeout of %v", limit, left, own)
			}
			if hop > 0 && left != Unbounded && left-limit < timeouts.Margin {
				t.Fatalf("%v of %v leaves no margin of %v", limit, left, timeouts.Margin)
			}
			if ok != (limit > 0 && limit >= timeouts.Minimum) {
				t.Fatalf("%v with a minimum of %v: %v", limit, timeouts.Minimum, ok)
			}
			if !ok {
				return
			}
			attempt, ok := timeouts.Attempt(limit)
			if !ok || attempt > limit || attempt <= 0 {
				t.Fatalf("an attempt of %v (%v) of %v", attempt, ok, limit)
			}
			left = attempt
		}
	})
}

func TestDeadlinesCostNothing(t *testing.T) {
	timeouts := Default().Timeouts
	var sum time.Duration
	if n := testing.AllocsPerRun(100, func() {
		limit, _ := timeouts.Limit(time.Second, math.MaxInt32, true)
		attempt, _ := timeouts.Attempt(Left(limit, time.Millisecond))
		sum += attempt
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDeadline(b *testing.B) {
	timeouts := Default().Timeouts
	left := 10 * time.Second
	for b.Loop() {
		limit, _ := timeouts.Limit(time.Second, left, true)
		attempt, _ := timeouts.Attempt(limit)
		if attempt == 0 {
			b.Fatal()
		}
	}
}
