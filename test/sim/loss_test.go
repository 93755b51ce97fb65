package sim

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

// trace is what the breakers of a fleet did in an outage of two dependencies, one line
// each.
func trace(t *testing.T, plan Plan, lost bool) []string {
	t.Helper()
	var lines []string
	synctest.Test(t, func(t *testing.T) {
		w := Begin(t, plan)
		if lost {
			w.network.Links(mesh.Link{Loss: 1})
			for zone := range plan.Zones {
				w.network.Between(zone, zone, mesh.Link{Loss: 1})
			}
		}
		w.startLoad()
		from := time.Now()
		w.Pass(5 * time.Second)
		w.Dependency("payments").Behave(Always(Refused))
		w.Dependency("stock").Behave(Always(Hanging))
		w.Pass(30 * time.Second)
		w.Dependency("payments").Behave(Always(Well))
		w.Pass(20 * time.Second)
		w.Dependency("stock").Behave(Always(Well))
		w.Pass(90 * time.Second)
		for _, c := range w.Changes(from, time.Now()) {
			lines = append(lines, fmt.Sprint(w.start.Add(c.At).Sub(from), " ", c.Instance.ID, " ", c.Dependency, "/", c.Target, " ", c.From, " → ", c.To, ": ", c.Reason))
		}
	})
	return lines
}

// With all gossip lost, breakers do exactly what they do without gossip.
func TestAllLost(t *testing.T) {
	together(t)
	p := NewPlan(50, *seed)
	p.LoadLater = true
	alone := trace(t, p, false)
	if again := trace(t, p, false); strings.Join(again, "\n") != strings.Join(alone, "\n") {
		t.Fatal("a seed does not decide what breakers do by themselves")
	}
	p.Fleet = true
	lost := trace(t, p, true)
	if len(alone) < 100 {
		t.Fatalf("only %d changes: there is nothing to compare", len(alone))
	}
	if a, b := strings.Join(alone, "\n"), strings.Join(lost, "\n"); a != b {
		for n := range min(len(alone), len(lost)) {
			if alone[n] != lost[n] {
				t.Fatalf("after %d of %d changes the traces differ:\n  alone: %s\n  lost:  %s", n, len(alone), alone[n], lost[n])
			}
		}
		t.Fatalf("%d changes alone, %d with all gossip lost", len(alone), len(lost))
	}
	t.Logf("%d changes of breakers, the same with all gossip lost as without gossip", len(alone))
}
