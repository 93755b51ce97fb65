package sim

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var (
	long = flag.Bool("long", os.Getenv("HOLDFAST_SIM_LONG") == "1", "the long profile: 300 and 1,000 instances")
	only = flag.Int("instances", 0, "how many instances, in place of those of the profile")
	seed = flag.Uint64("seed", 1, "what decides loads, links and jitter")
)

// inWorld runs a part of a test in a world of its own.
func inWorld(t *testing.T, name string, plan Plan, f func(w *World)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(Begin(t, plan)) })
	})
}

// way is how a dependency is dead.
type way struct {
	name string
	how  Answer
}

// ways are those of the long profile, but of a thousand instances, which take a quarter of
// an hour for each, only the first.
func ways(instances int) []way {
	all := []way{{"refuses", Refused}, {"hangs", Hanging}}
	if *long && instances < 1000 {
		return all
	}
	return all[:1]
}

// sizes are the sizes of fleets: the profile's, or the one asked for.
func sizes(short int, profile ...int) []int {
	switch {
	case *only > 0:
		return []int{*only}
	case *long:
		return profile
	default:
		return []int{short}
	}
}

// unhurried skips a test where the race detector makes it slow and others show the
// same races.
func unhurried(t *testing.T) {
	t.Helper()
	if raceDetector && !*long {
		t.Skip("left out with the race detector")
	}
}

// together lets the tests of the short profile run at the same time. A thousand
// instances are better off alone.
func together(t *testing.T) {
	t.Helper()
	if !*long {
		t.Parallel()
	}
}

// A dependency dies, stays dead for forty seconds, and comes back with a tenth of its
// capacity, which takes ten seconds to grow.
func TestOutage(t *testing.T) {
	together(t)
	table := NewTable("a dependency dies, and comes back after 40 s", "instances", "it", "breakers know", "50 %", "99 %", "100 %", "calls in 10 s",
		"probes/s", "most", "1st s", "2nd s", "3rd s", "75 % back", "all closed", "tripped again")
	for _, n := range sizes(60, 300, 1000) {
		results := map[bool]map[string]Outage{false: {}, true: {}}
		for _, fleet := range []bool{false, true} {
			p := NewPlan(n, *seed)
			p.Fleet = fleet
			inWorld(t, fmt.Sprintf("%d instances, fleet %v", n, fleet), p, func(w *World) {
				for _, way := range ways(n) {
					o := w.RunOutage("payments", way.how, 40*time.Second, func(full float64) Behaviour { return Warming(full, 10*time.Second) })
					knows := "themselves"
					if fleet {
						knows = "the fleet"
					}
					table.Row(n, way.name, knows, Percentile(o.FailFast, 0.5), Percentile(o.FailFast, 0.99), Percentile(o.FailFast, 1), o.Sent,
						mean(o.Probes), most(o.Probes), o.First[0], o.First[1], o.First[2], o.Back, o.Full, o.Trips)
					results[fleet][way.name] = o
					w.Pass(30 * time.Second)
				}
			})
		}
		for _, way := range ways(n) {
			compare(t, fmt.Sprintf("%d instances, it %s", n, way.name), results[false][way.name], results[true][way.name])
		}
	}
	t.Log(table)
}

// compare holds what the fleet does against what breakers do that know only
// themselves.
func compare(t *testing.T, what string, alone, fleet Outage) {
	t.Helper()
	if half, solo := Percentile(fleet.FailFast, 0.5), Percentile(alone.FailFast, 0.5); half == never || solo != never && half > solo/2 {
		t.Errorf("%s: half of the breakers fail fast after %v, alone %v; want half of that", what, short(half), short(solo))
	}
	if late := Percentile(fleet.FailFast, 0.99); late == never || late > 20*time.Second {
		t.Errorf("%s: 99 %% fail fast after %v, want 20 s", what, short(late))
	}
	if fleet.Sent >= alone.Sent {
		t.Errorf("%s: %d calls in ten seconds, %d alone", what, fleet.Sent, alone.Sent)
	}
	if mean(fleet.Probes) >= mean(alone.Probes) {
		t.Errorf("%s: %.1f probes a second, %.1f alone", what, mean(fleet.Probes), mean(alone.Probes))
	}
	if fleet.Back == never || fleet.Back > 30*time.Second || alone.Back != never && fleet.Back > alone.Back {
		t.Errorf("%s: back after %v, alone %v; want 30 s", what, short(fleet.Back), short(alone.Back))
	}
	if fleet.Trips > alone.Trips {
		t.Errorf("%s: %d breakers tripped again, %d alone", what, fleet.Trips, alone.Trips)
	}
}
