package breaker

import "time"

// defaults are the settings of a dependency that nobody says anything about.
func defaults() Settings {
	return Settings{
		FailureThreshold: 5, FailureRatio: 0.5, SlowRatio: 0.8, VolumeThreshold: 20, Window: 10 * time.Second,
		Timeout: 5 * time.Second, MaxTimeout: time.Minute, Multiplier: 2, Jitter: 0.2,
		Probes: 1, ProbeTimeout: 5 * time.Second, SuccessThreshold: 2,
		Ramp: []float64{0.01, 0.05, 0.25}, RampStep: time.Second,
	}
}
