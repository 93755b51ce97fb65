package policy

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPauses(t *testing.T) {
	const ms = time.Millisecond
	exponential := Retry{InitialDelay: 100 * ms, MaxDelay: 2 * time.Second, Multiplier: 2, Backoff: Exponential, Jitter: Jitter{Kind: NoJitter}}
	fibonacci := exponential
	fibonacci.Backoff = Fibonacci
	with := func(kind JitterKind, share float64) Retry {
		r := exponential
		r.Jitter = Jitter{kind, share}
		return r
	}
	const almost = 1 - 1.0/(1<<53)
	for _, c := range []struct {
		name   string
		r      Retry
		n      int
		before time.Duration
		u      float64
		want   time.Duration
	}{
		{"exponential 1", exponential, 1, 0, 0.7, 100 * ms},
		{"exponential 2", exponential, 2, 0, 0.7, 200 * ms},
		{"exponential 5", exponential, 5, 0, 0.7, 1600 * ms},
		{"exponential at its cap", exponential, 6, 0, 0.7, 2 * time.Second},
		{"exponential far beyond", exponential, math.MaxInt, 0, 0.7, 2 * time.Second},
		{"no retry counts as the first", exponential, 0, 0, 0.7, 100 * ms},
		{"nor does less", exponential, math.MinInt, 0, 0.7, 100 * ms},
		{"fibonacci 1", fibonacci, 1, 0, 0.7, 100 * ms},
		{"fibonacci 2", fibonacci, 2, 0, 0.7, 100 * ms},
		{"fibonacci 3", fibonacci, 3, 0, 0.7, 200 * ms},
		{"fibonacci 4", fibonacci, 4, 0, 0.7, 300 * ms},
		{"fibonacci 7", fibonacci, 7, 0, 0.7, 1300 * ms},
		{"fibonacci at its cap", fibonacci, 8, 0, 0.7, 2 * time.Second},
		{"fibonacci far beyond", fibonacci, math.MaxInt, 0, 0.7, 2 * time.Second},
		{"full, least", with(FullJitter, 0), 2, 0, 0, 0},
		{"full, half", with(FullJitter, 0), 2, 0, 0.5, 100 * ms},
		{"full is drawn below the cap", with(FullJitter, 0), 30, 0, 0.5, time.Second},
		{"equal, least", with(EqualJitter, 0), 2, 0, 0, 100 * ms},
		{"equal, half", with(EqualJitter, 0), 2, 0, 0.5, 150 * ms},
		{"share, least", with(ShareJitter, 0.2), 2, 0, 0, 160 * ms},
		{"share, half", with(ShareJitter, 0.2), 2, 0, 0.5, 200 * ms},
		{"share, most", with(ShareJitter, 0.25), 2, 0, almost, 250 * ms},
		{"share does not exceed the cap", with(ShareJitter, 0.2), 30, 0, almost, 2 * time.Second},
		{"share of all, least", with(ShareJitter, 1), 2, 0, 0, 0},
		{"decorrelated, first", with(DecorrelatedJitter, 0), 1, 0, 0.5, 200 * ms},
		{"decorrelated, least", with(DecorrelatedJitter, 0), 4, time.Second, 0, 100 * ms},
		{"decorrelated, half", with(DecorrelatedJitter, 0), 4, 500 * ms, 0.5, 800 * ms},
		{"decorrelated at its cap", with(DecorrelatedJitter, 0), 4, 2 * time.Second, 0.5, 2 * time.Second},
		{"decorrelated after a shorter pause", with(DecorrelatedJitter, 0), 2, ms, 0.5, 200 * ms},
		{"decorrelated after any pause", with(DecorrelatedJitter, 0), 2, math.MaxInt64, 0.5, 2 * time.Second},
		{"nothing", Retry{}, 3, 0, 0.5, 0},
		{"no bound", Retry{InitialDelay: math.MaxInt64, MaxDelay: math.MaxInt64, Multiplier: 10}, 50, 0, 0.5, math.MaxInt64},
		{"no pause, many times", Retry{MaxDelay: time.Second, Multiplier: 10}, 1000, 0, 0.5, 0},
		{"a negative bound", Retry{InitialDelay: time.Second, MaxDelay: -time.Second, Multiplier: 2}, 1, 0, 0.5, 0},
	} {
		if got := c.r.Pause(c.n, c.before, c.u); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestFibonacciDoesNotComeRound where its numbers are beyond any integer.
func TestFibonacciDoesNotComeRound(t *testing.T) {
	r := Retry{InitialDelay: time.Millisecond, MaxDelay: time.Hour, Backoff: Fibonacci}
	for n := 40; n < 400; n++ {
		if got := r.Pause(n, 0, 0.5); got != time.Hour {
			t.Fatalf("retry %d after %v", n, got)
		}
	}
}

// naivePause computes the ends between which a pause must lie, in as many digits as
// it takes.
func naivePause(r Retry, n int, before time.Duration) (least, most float64) {
	limit := new(big.Float).SetInt64(int64(r.MaxDelay))
	float := func(x *big.Float) float64 {
		if x.Cmp(limit) > 0 {
			x = limit
		}
		f, _ := x.Float64()
		return f
	}
	first := new(big.Float).SetInt64(int64(r.InitialDelay))
	if r.Jitter.Kind == DecorrelatedJitter {
		return float(first), float(new(big.Float).Mul(big.NewFloat(3), new(big.Float).SetInt64(int64(max(before, r.InitialDelay)))))
	}
	pause, last := first, new(big.Float)
	for range n - 1 {
		if r.Backoff == Fibonacci {
			pause, last = new(big.Float).Add(pause, last), pause
		} else {
			pause = new(big.Float).Mul(pause, big.NewFloat(r.Multiplier))
		}
	}
	p := float(pause)
	switch r.Jitter.Kind {
	case FullJitter:
		return 0, p
	case EqualJitter:
		return p / 2, p
	case ShareJitter:
		return p * (1 - r.Jitter.Share), p * (1 + r.Jitter.Share)
	default:
		return p, p
	}
}

func drawRetry(t *rapid.T) Retry {
	r := Retry{
		InitialDelay: time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(10*time.Minute)).Draw(t, "initial")),
		MaxDelay:     time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Hour)).Draw(t, "max")),
		Multiplier:   rapid.Float64Range(1, 10).Draw(t, "multiplier"),
		Backoff:      rapid.SampledFrom([]Backoff{Exponential, Fibonacci}).Draw(t, "backoff"),
		Jitter:       Jitter{Kind: rapid.SampledFrom([]JitterKind{NoJitter, FullJitter, EqualJitter, DecorrelatedJitter, ShareJitter}).Draw(t, "jitter")},
	}
	if r.Jitter.Kind == ShareJitter {
		r.Jitter.Share = rapid.Float64Range(0, 1).Draw(t, "share")
	}
	return r
}

func TestPauseIsWhereItMustBe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRetry(t)
		n := rapid.IntRange(1, 120).Draw(t, "n")
		before := time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "before"))
		least, most := naivePause(r, n, before)
		at := func(u float64) float64 { return float64(r.Pause(n, before, u)) }
		u := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "u")
		got, limit := at(u), float64(r.MaxDelay)
		// Draws are even: a share u of the way.
		way := most - least
		if r.Jitter.Kind == DecorrelatedJitter {
			first := float64(r.InitialDelay)
			least, way = first, 3*max(float64(before), first)-first
		}
		if want := min(least+u*way, limit); math.Abs(got-want) > 1+want*1e-9 {
			t.Fatalf("a pause of %v, want %v", got, want)
		}
		if got < 0 || got > limit {
			t.Fatalf("a pause of %v, outside of 0 to %v", got, limit)
		}
	})
}

// FuzzPause: whatever the settings, a pause is not negative and not beyond MaxDelay.
func FuzzPause(f *testing.F) {
	f.Add(int64(1), int64(2), 2.0, 3, int64(0), 0.5, uint8(0), 0.5)
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), math.Inf(1), math.MaxInt, int64(math.MaxInt64), 1.0, uint8(7), 1.0)
	f.Add(int64(0), int64(math.MaxInt64), math.MaxFloat64, 100, int64(-1), math.NaN(), uint8(4), -1.0)
	kinds := []JitterKind{NoJitter, FullJitter, EqualJitter, DecorrelatedJitter, ShareJitter}
	f.Fuzz(func(t *testing.T, initial, most int64, multiplier float64, n int, before int64, u float64, kind uint8, share float64) {
		r := Retry{
			InitialDelay: time.Duration(initial), MaxDelay: time.Duration(most), Multiplier: multiplier,
			Jitter: Jitter{kinds[int(kind)%len(kinds)], share}, Backoff: Exponential,
		}
		if kind >= 128 {
			r.Backoff = Fibonacci
		}
		if got := r.Pause(n, time.Duration(before), u); got < 0 || got > max(r.MaxDelay, 0) {
			t.Fatalf("a pause of %v", got)
		}
	})
}
