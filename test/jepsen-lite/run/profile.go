package run

import (
	"fmt"
	"time"
)

// Profile is how much of everything.
type Profile struct {
	Name string
	// Faults is how long faults are begun in a run.
	Faults    time.Duration
	Instances int
	// Scenarios of the profile, all if there are none, and how many seeds of each.
	Scenarios []string
	Seeds     int
}

// Profiles are all that there are.
func Profiles() []Profile {
	return []Profile{
		{
			Name: "short", Faults: 8 * time.Second, Instances: 4, Seeds: 1,
			Scenarios: []string{"leader-kill", "kill-all", "pause", "isolate", "reply-loss", "sdk-partition", "snapshots", "lost-vote", "dependency", "mixed"},
		},
		{Name: "default", Faults: 20 * time.Second, Instances: 6, Seeds: 1},
		// How long nobody can write, and how soon everybody agrees again.
		{Name: "measure", Faults: 150 * time.Second, Instances: 4, Seeds: 7, Scenarios: []string{"failover", "failover-disk", "partitions"}},
		// Two things at a time, chosen by each seed.
		{Name: "long", Faults: 30 * time.Second, Instances: 6, Seeds: 100, Scenarios: []string{"mixed"}},
	}
}

// FindProfile is the profile of a name.
func FindProfile(name string) (Profile, error) {
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("no profile is called %q; there are short, default, measure and long", name)
}
