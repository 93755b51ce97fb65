package policy

import "time"

// FleetMode says what an instance does with what others see.
type FleetMode string

// What an instance can do with what others see.
const (
	FleetOff     FleetMode = "off"     // nothing
	FleetAdvise  FleetMode = "advise"  // show, log and measure it
	FleetEnforce FleetMode = "enforce" // obey it as well
)

// Fleet says when an instance believes the others that a dependency is broken.
type Fleet struct {
	Mode FleetMode
	// SuspicionThreshold failures of its own in the breaker's window make an instance
	// listen.
	SuspicionThreshold int
	// Quorum is how many hosts must say so, or half of those that there are, and Zones
	// in how many zones, where there are as many.
	Quorum int
	Zones  int
	// OpenRatio is the share of those who call the dependency that must find it broken;
	// below CloseRatio, which is not more, it counts as healthy again.
	OpenRatio  float64
	CloseRatio float64
	// Dwell is how long a verdict stands at least; each change soon after another
	// doubles it, up to MaxDwell.
	Dwell    time.Duration
	MaxDwell time.Duration
	// VetoSuccesses successes of its own within VetoWindow let an instance ignore the
	// others. Canary is the share of calls that go through meanwhile, so that it can
	// have them.
	VetoSuccesses int
	VetoWindow    time.Duration
	Canary        float64
	// Probes instances at a time probe a dependency that is coming back.
	Probes int
	// MaxDependencies is the share of an instance's dependencies, MaxInstances the share
	// of a dependency's callers, that hearsay may cut off; one always may be.
	MaxDependencies float64
	MaxInstances    float64
}

// FleetWithoutTraffic is Fleet for an instance that has made no call lately.
type FleetWithoutTraffic struct {
	Mode      FleetMode
	Quorum    int
	OpenRatio float64
}

func (f *Fleet) settings() []setting {
	return []setting{
		one("mode", words(FleetEnforce, FleetAdvise, FleetOff), &f.Mode),
		one("suspicion_threshold", wholes("failures", 1, 1000), &f.SuspicionThreshold),
		one("quorum", wholes("hosts", 1, 1000), &f.Quorum),
		one("zones", wholes("zones", 1, 100), &f.Zones),
		one("open_ratio", numbers("share of callers", 0.01, 1), &f.OpenRatio),
		one("close_ratio", numbers("share of callers", 0, 1), &f.CloseRatio),
		one("dwell", durations(0, time.Hour), &f.Dwell),
		one("max_dwell", durations(0, 24*time.Hour), &f.MaxDwell),
		one("veto_successes", wholes("calls", 1, 1000), &f.VetoSuccesses),
		one("veto_window", durations(100*time.Millisecond, 10*time.Minute), &f.VetoWindow),
		one("canary", numbers("share of calls", 0, 1), &f.Canary),
		one("probes", wholes("instances", 1, 100), &f.Probes),
		one("max_dependencies", numbers("share of dependencies", 0, 1), &f.MaxDependencies),
		one("max_instances", numbers("share of callers", 0, 1), &f.MaxInstances),
	}
}

func (f *FleetWithoutTraffic) settings() []setting {
	return []setting{
		one("mode", words(FleetEnforce, FleetAdvise, FleetOff), &f.Mode),
		one("quorum", wholes("hosts", 1, 1000), &f.Quorum),
		one("open_ratio", numbers("share of callers", 0.01, 1), &f.OpenRatio),
	}
}
