package policy

import "time"

// Policy is the settings of one dependency, all of them resolved. Its slices and
// maps are shared between copies and must not be changed.
type Policy struct {
	// Enforcement says whether the settings act, or only what they would do is
	// measured.
	Enforcement    Enforcement
	CircuitBreaker CircuitBreaker
	Retry          Retry
	Timeouts       Timeouts
	Bulkhead       Bulkhead
	Fallback       Fallback
	// Fleet says what the evidence of other instances does to an instance that has
	// a suspicion of its own, FleetWithoutTraffic to one that has no calls to judge
	// by.
	Fleet               Fleet
	FleetWithoutTraffic FleetWithoutTraffic
}

// Enforcement is Observe or Enforce.
type Enforcement string

// What a policy does with calls.
const (
	// Observe measures and reports what the policy would do, and lets calls pass.
	Observe Enforcement = "observe"
	// Enforce does it.
	Enforce Enforcement = "enforce"
)

// Default returns the settings of a dependency that neither a policy nor code
// says anything about.
func Default() Policy {
	return Policy{
		Enforcement: Enforce,
		CircuitBreaker: CircuitBreaker{
			FailureThreshold: 5, FailureRatio: 0.5, SlowRatio: 0.8, VolumeThreshold: 20, Window: 10 * time.Second,
			FailureCodes: codesOf("UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
			Timeout:      5 * time.Second, MaxTimeout: time.Minute, Multiplier: 2, Jitter: 0.2,
			Probes: 1, ProbeTimeout: 5 * time.Second, SuccessThreshold: 2,
			Ramp: []float64{0.01, 0.05, 0.25}, RampStep: time.Second,
		},
		Retry: Retry{
			MaxAttempts: 3, InitialDelay: 100 * time.Millisecond, MaxDelay: 2 * time.Second, Multiplier: 2,
			Backoff: Exponential, Jitter: Jitter{Kind: FullJitter}, Retryable: codesOf("UNAVAILABLE"),
			Budget: Budget{Ratio: 0.2, MinPerSecond: 1, Window: 10 * time.Second}, MaxHedges: 1,
		},
		Timeouts: Timeouts{
			Call: 15 * time.Second, Connect: 5 * time.Second, Margin: 5 * time.Millisecond, Minimum: time.Millisecond,
		},
		Bulkhead: Bulkhead{
			MaxConcurrent: 1024, MaxWait: 100 * time.Millisecond, MinConcurrent: 8, Workers: 8, MaxConnections: 64,
		},
		Fallback: Fallback{
			On:      []string{OnRejected, OnTimeout, OnFailure, OnOverload},
			Timeout: time.Second, MaxConcurrent: 64,
		},
		Fleet: Fleet{
			Mode: FleetEnforce, SuspicionThreshold: 2, Quorum: 3, Zones: 2, OpenRatio: 0.5, CloseRatio: 0.2,
			Dwell: 2 * time.Second, MaxDwell: time.Minute, VetoSuccesses: 3, VetoWindow: 2 * time.Second,
			Canary: 0.01, Probes: 2, MaxDependencies: 0.3, MaxInstances: 0.5,
		},
		FleetWithoutTraffic: FleetWithoutTraffic{Mode: FleetAdvise, Quorum: 3, OpenRatio: 0.5},
	}
}

func (p *Policy) settings() []setting {
	return []setting{
		text("description"),
		one("enforcement", words(Observe, Enforce), &p.Enforcement),
		object("circuit_breaker", p.CircuitBreaker.settings),
		object("retry_policy", p.Retry.settings),
		object("timeouts", p.Timeouts.settings),
		object("bulkhead", p.Bulkhead.settings),
		object("fallback", p.Fallback.settings),
		short(object("fleet", p.Fleet.settings)),
		short(object("fleet_without_traffic", p.FleetWithoutTraffic.settings)),
		reserved("dead_letter_queue"),
		reserved("chaos_engineering"),
	}
}
