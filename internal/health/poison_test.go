package health

import (
	"fmt"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

// believes reports whether an instance that suspects a dependency holds its calls back
// where so many of 100 other hosts lie, the others being well with so many calls.
func believes(liars int, calls uint32, others int) bool {
	table := NewTable(0)
	for i := range others {
		p := Report{Dependency: "d", Opinion: Well, Calls: calls, Successes: 9}
		if i < liars {
			p = Report{Dependency: "d", Opinion: Open, Calls: 1 << 31, Failures: 1 << 31}
		}
		h := say(fmt.Sprint(i), 1, p)
		h.from.Zone = fmt.Sprint(i % 2)
		h.put(table, 0)
	}
	me := Origin{ID: "me", Host: "me", Zone: "none of theirs"}
	tally := table.Tally(0, "d", me)
	c := Case{
		Fleet: policy.Default().Fleet, WithoutTraffic: policy.Default().FleetWithoutTraffic, Own: Own{Calls: 9, Failures: 2},
		Population: Population{others + 1, 2}, Dependencies: 9, Tally: &tally,
	}
	c.Fleet.MaxInstances = 1
	return c.settled().Hearsay
}

// TestPoison holds the figures of DESIGN.md.
func TestPoison(t *testing.T) {
	for _, c := range []struct {
		calls         uint32
		others, liars int
	}{{10, 100, 31}, {100, 100, 46}, {255, 100, 50}, {1 << 20, 100, 50}, {100, 4, 3}, {100, 3, 2}} {
		if believes(c.liars-1, c.calls, c.others) || !believes(c.liars, c.calls, c.others) {
			t.Errorf("witnesses with %d calls on %d hosts: it does not take %d liars", c.calls, c.others, c.liars)
		}
	}
	// Where everybody else is silent, as many as the quorum.
	for others, liars := range map[int]int{1: 2, 2: 2, 3: 2, 4: 3, 9: 3} {
		for n := range min(liars, others) + 1 {
			table := NewTable(0)
			for i := range n {
				h := say(fmt.Sprint(i), 1, Report{Dependency: "d", Opinion: Open})
				h.from.Zone = fmt.Sprint(i % 2)
				h.put(table, 0)
			}
			tally := table.Tally(0, "d", Origin{ID: "me", Host: "me", Zone: "0"})
			c := Case{
				Fleet: policy.Default().Fleet, Own: Own{Calls: 9, Failures: 2}, Population: Population{others + 1, 2},
				Dependencies: 9, Tally: &tally,
			}
			c.Fleet.MaxInstances = 1
			if got, want := c.settled().Hearsay, n >= liars; got != want {
				t.Errorf("%d of %d others lie, the rest are silent: believed %v", n, others, got)
			}
		}
	}
}

// TestLuckyLiars: 5 of 100 holders claim in every round that their probes succeed, as
// soon as they have turns; the others' fail.
func TestLuckyLiars(t *testing.T) {
	lucky := 0
	const rounds = 500
	for round := range uint32(rounds) {
		name := fmt.Sprint("dependency ", round/10)
		table := NewTable(0)
		for i := range 100 {
			say(fmt.Sprint("i", i), 1, Report{Dependency: name, Opinion: Open}).put(table, 0)
		}
		p := prober(Origin{ID: "i50", Host: "host of i50"})
		p.Dependency, p.State.Round = name, round+1
		all := table.candidates(second, &p)
		all.order(name, round+1)
		good, bad := 0, 0
		for i := 0; good < 2 && bad < 2; i += 2 {
			honest := 0
			for j := i; j < i+2; j++ {
				if liar := all.list[j].id; liar == "i0" || liar == "i1" || liar == "i2" || liar == "i3" || liar == "i4" {
					good++
				} else {
					honest++
				}
			}
			if good < 2 { // a lie is told faster than a probe fails
				bad += honest
			}
		}
		if good >= 2 {
			lucky++
		}
	}
	if share := float64(lucky) / rounds; share > 0.06 || lucky == 0 {
		t.Errorf("liars decide %.1f %% of the rounds", 100*share)
	}
}
