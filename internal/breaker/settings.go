package breaker

import (
	"math"
	"slices"
	"time"
)

// Settings say when a breaker opens and how it recovers. A trigger that is 0 is
// off; with FailureThreshold, FailureRatio and SlowRatio all 0 it never opens by
// itself.
type Settings struct {
	// FailureThreshold failures one after the other open it, or among the last
	// FailureWindow results if that is not 0. At most 64 results are remembered.
	FailureThreshold int
	FailureWindow    int
	// FailureRatio and SlowRatio are shares of the calls in Window that open it,
	// once there are VolumeThreshold calls. A call is slow after SlowAfter, or if
	// its class says so; with SlowAfter 0 its class alone.
	FailureRatio    float64
	SlowRatio       float64
	SlowAfter       time.Duration
	VolumeThreshold int
	Window          time.Duration

	// Timeout is how long it stays open at first; each time that it opens again
	// before it has recovered takes Multiplier times longer, up to MaxTimeout, and
	// each is drawn from ±Jitter of itself.
	Timeout    time.Duration
	MaxTimeout time.Duration
	Multiplier float64
	Jitter     float64

	// Probes calls at a time find out whether the dependency is back, each in
	// ProbeTimeout, and longer where it was open for longer; SuccessThreshold good ones
	// end the half-open state.
	Probes           int
	ProbeTimeout     time.Duration
	SuccessThreshold int
	// Ramp are the shares of calls admitted afterwards, each for RampStep, before
	// all are. Without one all are admitted at once.
	Ramp     []float64
	RampStep time.Duration

	// Others who say that the dependency is broken are not heeded after VetoSuccesses
	// successes within VetoWindow, which is counted in tenths of Window. While they are, a
	// share of the calls, Canary, goes through, and VetoSuccesses good ones in a row end it.
	VetoSuccesses int
	VetoWindow    time.Duration
	Canary        float64
}

const (
	remembered = 64                     // results in the word that holds the last ones
	longest    = time.Duration(1) << 55 // about 13 months; sums of times stay in range
	shortest   = time.Microsecond
)

// rules are Settings brought into range, with a window in slices. They do not
// change.
type rules struct {
	Settings
	slowAfter time.Duration // never if off
	width     uint64        // of a slice of the window
	last      uint64        // a mask of the last FailureWindow results; 0: in a row
}

func newRules(s Settings) *rules {
	s.FailureWindow = min(max(s.FailureWindow, 0), remembered)
	s.FailureThreshold = max(s.FailureThreshold, 0)
	s.FailureRatio = within(s.FailureRatio, 0, 1)
	s.SlowRatio = within(s.SlowRatio, 0, 1)
	s.VolumeThreshold = max(s.VolumeThreshold, 1)
	s.Multiplier = within(s.Multiplier, 1, math.MaxInt32)
	s.Jitter = within(s.Jitter, 0, 1)
	s.Probes = max(s.Probes, 1)
	s.SuccessThreshold = max(s.SuccessThreshold, 1)
	s.VetoSuccesses = max(s.VetoSuccesses, 1)
	s.Canary = within(s.Canary, 0, 1)
	for _, d := range []*time.Duration{&s.Window, &s.Timeout, &s.MaxTimeout, &s.ProbeTimeout, &s.RampStep, &s.VetoWindow} {
		*d = min(max(*d, shortest), longest)
	}
	s.MaxTimeout = max(s.MaxTimeout, s.Timeout)
	s.Ramp = slices.Clone(s.Ramp)
	for i := range s.Ramp {
		s.Ramp[i] = within(s.Ramp[i], 0, 1)
	}
	r := &rules{Settings: s, slowAfter: s.SlowAfter, width: uint64(s.Window) / slots}
	if s.SlowAfter <= 0 {
		r.slowAfter = math.MaxInt64
	}
	if s.FailureWindow > 0 {
		r.FailureThreshold = min(r.FailureThreshold, s.FailureWindow)
		r.last = math.MaxUint64 >> (remembered - s.FailureWindow)
	}
	return r
}

// within brings a number into a range; what is none counts as the lower end.
func within(x, low, high float64) float64 {
	if !(x > low) {
		return low
	}
	return min(x, high)
}
