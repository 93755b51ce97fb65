package run

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
)

// Every scenario names faults and rules that there are, and every profile scenarios.
func TestScenariosCanBePlanned(t *testing.T) {
	rules := check.Rules()
	for _, s := range Scenarios() {
		plan, err := s.plan(1, time.Second)
		if err != nil {
			t.Error(err)
		}
		if len(plan.Lanes) == 0 && s.Name != "calm" {
			t.Errorf("scenario %s has no faults", s.Name)
		}
		for _, name := range s.require() {
			if !slices.ContainsFunc(rules, func(r check.Rule) bool { return r.Name == name }) {
				t.Errorf("scenario %s requires the rule %s, which there is not", s.Name, name)
			}
		}
	}
	for _, p := range Profiles() {
		for _, name := range p.Scenarios {
			if _, err := Find(name); err != nil {
				t.Errorf("profile %s: %v", p.Name, err)
			}
		}
	}
}

// A swarm is what the seed makes of it: the same again for the same one, another for
// most others.
func TestSwarmFollowsTheSeed(t *testing.T) {
	mixed, err := Find("mixed")
	if err != nil {
		t.Fatal(err)
	}
	chosen := func(seed uint64) []string {
		plan, err := mixed.plan(seed, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, lane := range plan.Lanes {
			if len(lane) != mixed.Swarm {
				t.Fatalf("a lane has %d faults, want %d", len(lane), mixed.Swarm)
			}
			for _, f := range lane {
				names = append(names, f.Name)
			}
		}
		return names
	}
	first, others := chosen(1), 0
	if !slices.Equal(first, chosen(1)) {
		t.Error("the same seed chose something else")
	}
	for seed := range uint64(10) {
		if !slices.Equal(first, chosen(seed+2)) {
			others++
		}
	}
	if others < 8 {
		t.Errorf("only %d of 10 other seeds chose something else", others)
	}
}
