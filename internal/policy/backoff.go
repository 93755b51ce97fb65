package policy

import (
	"math"
	"time"
)

// Pause returns how long to wait before retry n; 1 is the first. before is the
// pause before that (0 before the first, of use to DecorrelatedJitter only), u a
// random number in [0, 1). The pause is between 0 and MaxDelay, whatever the
// settings.
//
// Full, equal and decorrelated jitter are those of M. Brooker, "Exponential Backoff
// and Jitter", AWS Architecture Blog, 2015.
func (r Retry) Pause(n int, before time.Duration, u float64) time.Duration {
	if r.Jitter.Kind == DecorrelatedJitter {
		first := float64(r.InitialDelay)
		return r.atMost(first + u*(3*max(float64(before), first)-first))
	}
	pause := min(float64(r.InitialDelay)*r.growth(max(n, 1)), float64(r.MaxDelay))
	switch r.Jitter.Kind {
	case FullJitter:
		pause *= u
	case EqualJitter:
		pause *= (1 + u) / 2
	case ShareJitter:
		pause *= 1 + r.Jitter.Share*(2*u-1)
	case NoJitter, DecorrelatedJitter:
	}
	return r.atMost(pause)
}

// growth is how much longer than the first the pause before retry n is: 1, m, m²,
// … or 1, 1, 2, 3, 5, ….
func (r Retry) growth(n int) float64 {
	if r.Backoff != Fibonacci {
		return math.Pow(r.Multiplier, float64(n-1))
	}
	const most = 90 // the largest that int64 holds is number 92
	a, b := 1, 1
	for range min(n, most) - 1 {
		a, b = b, a+b
	}
	return float64(a)
}

// atMost keeps a pause, in ns, between 0 and MaxDelay. What is no number is 0.
func (r Retry) atMost(pause float64) time.Duration {
	if !(pause > 0) {
		return 0
	}
	if pause >= float64(r.MaxDelay) {
		return max(r.MaxDelay, 0)
	}
	return time.Duration(pause)
}
