package policy

import "time"

// CircuitBreaker says when a breaker opens and how it recovers. A trigger that
// is 0 is off; with FailureThreshold, FailureRatio and SlowAfter all 0 the
// breaker never opens by itself.
type CircuitBreaker struct {
	// FailureThreshold failures one after the other open it.
	FailureThreshold int
	// FailureRatio and SlowRatio are shares of the calls in Window that open it,
	// once there are VolumeThreshold calls. A call is slow after SlowAfter.
	FailureRatio    float64
	SlowRatio       float64
	SlowAfter       time.Duration
	VolumeThreshold int
	Window          time.Duration
	// FailureCodes are the gRPC codes that count as failures.
	FailureCodes Codes

	// Timeout is how long it stays open at first; each time that it opens again
	// before it has recovered takes Multiplier times longer, up to MaxTimeout, and
	// each is drawn from ±Jitter of itself.
	Timeout    time.Duration
	MaxTimeout time.Duration
	Multiplier float64
	Jitter     float64

	// Probes calls at a time find out whether the dependency is back, each in
	// ProbeTimeout; SuccessThreshold good ones end the half-open state.
	Probes           int
	ProbeTimeout     time.Duration
	SuccessThreshold int
	// Ramp are the shares of calls admitted afterwards, each for RampStep, before
	// all are. Without one all are admitted at once.
	Ramp     []float64
	RampStep time.Duration
}

func (b *CircuitBreaker) settings() []setting {
	return []setting{
		one("failure_threshold", wholes("failures", 0, 1000), &b.FailureThreshold),
		one("failure_ratio", numbers("share of calls", 0, 1), &b.FailureRatio),
		one("slow_ratio", numbers("share of calls", 0.01, 1), &b.SlowRatio),
		one("slow_after", durations(0, time.Hour), &b.SlowAfter),
		one("volume_threshold", wholes("calls", 1, 1_000_000), &b.VolumeThreshold),
		one("window", durations(100*time.Millisecond, 10*time.Minute), &b.Window),
		one("failure_codes", codeSets(), &b.FailureCodes),
		one("timeout", durations(time.Millisecond, time.Hour), &b.Timeout),
		one("max_timeout", durations(time.Millisecond, 24*time.Hour), &b.MaxTimeout),
		one("multiplier", numbers("times", 1, 10), &b.Multiplier),
		one("jitter", numbers("share of the time", 0, 1), &b.Jitter),
		one("probes", wholes("calls", 1, 100), &b.Probes),
		one("probe_timeout", durations(time.Millisecond, 10*time.Minute), &b.ProbeTimeout),
		one("success_threshold", wholes("probes", 1, 100), &b.SuccessThreshold),
		one("ramp", ramps(8), &b.Ramp),
		one("ramp_step", durations(time.Millisecond, 10*time.Minute), &b.RampStep),
	}
}
