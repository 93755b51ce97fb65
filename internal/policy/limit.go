package policy

import (
	"math"
	"strings"
	"time"
)

// AdaptiveLimit is what an adaptive bulkhead knows: how many calls may run at a
// time, and how long a call takes, in ns, where it is not the number of calls that
// makes it slow; 0 as long as nobody knows. It is a value.
type AdaptiveLimit struct {
	Limit    float64
	Baseline float64
}

// Period is what a bulkhead saw in a period: how many calls came back, how many of
// them were out of time or refused for overload, how long the others took on
// average, and how many places were taken at most.
type Period struct {
	Calls, Dropped uint64
	Mean           time.Duration
	Peak           int
}

// How an adaptive limit moves in a period.
const (
	// Times of up to toleratedDelay × the baseline, and droppedNoise of all calls
	// dropped, are no sign of overload.
	toleratedDelay = 1.5
	droppedNoise   = 0.01
	// However slow calls are, the limit shrinks by no more than delayCut.
	delayCut = 0.1
	// growth is the part of its square root by which a limit grows, at least 1.
	growth = 0.25
	// How fast the baseline falls to shorter times, and rises to longer ones where
	// there is no other explanation.
	baselineFall, baselineRise = 0.2, 0.05
)

// StartLimit returns the limit of an adaptive bulkhead that has seen nothing:
// halfway between MinConcurrent and MaxConcurrent, by ratio.
func (b Bulkhead) StartLimit() AdaptiveLimit {
	return b.within(AdaptiveLimit{Limit: math.Sqrt(float64(b.MinConcurrent) * float64(b.MaxConcurrent))})
}

// Adapt returns the limit for the time after a period. It shrinks by half the share
// of calls that were dropped; else, where at least half of the places were in use,
// it shrinks by how far calls are slower than the baseline, and grows by its square
// root where they are not. Places that nobody uses prove nothing, and so move
// nothing.
//
// The baseline falls while there is load, and rises only where the limit cannot be
// what makes calls slow: without load, or when it can shrink no further. So lasting
// overload does not come to look normal, which is how limiters that follow an
// average let their limits grow without end, and a dependency that became slower for
// good gets its places back.
func (b Bulkhead) Adapt(a AdaptiveLimit, p Period) AdaptiveLimit {
	if p.Calls == 0 {
		return b.within(a)
	}
	busy := 2*float64(p.Peak) >= a.Limit
	if p.Calls > p.Dropped {
		a.Baseline = baseline(a.Baseline, float64(p.Mean), !busy || a.Limit <= float64(b.MinConcurrent))
	}
	dropped := float64(p.Dropped) / float64(p.Calls)
	switch {
	case dropped > droppedNoise:
		a.Limit *= 1 - min(dropped, 1)/2
	case !busy:
	case float64(p.Mean) > toleratedDelay*a.Baseline:
		a.Limit *= 1 - delayCut*min(float64(p.Mean)/(toleratedDelay*a.Baseline)-1, 1)
	default:
		a.Limit += max(growth*math.Sqrt(a.Limit), 1)
	}
	return b.within(a)
}

// baseline moves the time that a call takes towards one that was seen.
func baseline(known, seen float64, mayRise bool) float64 {
	switch {
	case known == 0:
		return seen
	case seen < known:
		return known + baselineFall*(seen-known)
	case mayRise:
		return known + baselineRise*(seen-known)
	default:
		return known
	}
}

// within brings a limit between MinConcurrent and MaxConcurrent.
func (b Bulkhead) within(a AdaptiveLimit) AdaptiveLimit {
	a.Limit = min(max(a.Limit, float64(b.MinConcurrent), 1), float64(b.MaxConcurrent))
	return a
}

// Part returns the settings of the bulkhead within the whole that a call has to pass
// as well, and the key in Methods that names it: all methods of a service that have
// none of their own share one. It is not ok where the call has no such bulkhead.
func (b Bulkhead) Part(name string) (key string, part Bulkhead, ok bool) {
	key = name
	_, ok = b.Methods[key]
	if slash := strings.LastIndexByte(name, '/'); !ok && slash >= 0 {
		key = name[:slash+1] + "*"
		_, ok = b.Methods[key]
	}
	if !ok {
		return "", Bulkhead{}, false
	}
	part = b
	part.MaxConcurrent, part.Adaptive, part.Methods = b.Limit(name), false, nil
	return key, part, true
}
