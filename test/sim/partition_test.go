package sim

import (
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

func splits() []time.Duration {
	if *long {
		return []time.Duration{20 * time.Second, 2 * time.Minute, 10 * time.Minute}
	}
	return []time.Duration{2 * time.Minute}
}

func TestPartition(t *testing.T) {
	together(t)
	n := sizes(36, 300)[0]
	table := NewTable("the fleet falls apart; payments dies and comes back meanwhile, stock dies before it heals", "instances", "shape", "for",
		"fail fast A", "B", "heeded A", "B", "probes A", "B", "back A", "B", "late fail fast A", "B", "whole after", "agreed after", "flaps", "for", "resurrected", "ghosts", "bytes/s apart", "healing")
	shapes := Shapes()
	if raceDetector {
		shapes = shapes[:1]
	}
	for _, shape := range shapes {
		for _, last := range splits() {
			p := NewPlan(n, *seed)
			p.Fleet, p.Methods, p.Rates = true, 1, []Rate{{1, 2}}
			inWorld(t, shape.Name+" for "+last.String(), p, func(w *World) {
				w.Pass(10 * time.Second)
				r := w.RunPartition(shape, last)
				row := NewTable("", "")
				for _, table := range []*Table{table, row} {
					table.Row(n, shape.Name, last, r.FailFast[0], r.FailFast[1], r.Heeded[0], r.Heeded[1], r.Probes[0], r.Probes[1], r.Back[0], r.Back[1], r.Late[0], r.Late[1],
						r.Whole, r.Agreed, r.Flaps, r.Flapping, r.Resurrected, r.Ghosts, int(r.Sent), int(r.Healing))
				}
				w.t.Log(row)
				r.check(w.t, last, w.hosts(shape))
			})
		}
	}
	t.Log(table)
}

// check holds a split to what was promised.
func (r *Split) check(t *testing.T, last time.Duration, hosts [2]int) {
	t.Helper()
	for side := range 2 {
		if fast := r.FailFast[side]; fast == never || fast > 4*time.Second {
			t.Errorf("side %d took %v until all fail fast", side, short(fast))
		}
		if r.Heeded[side] == 0 && hosts[side] > policy.Default().Fleet.Quorum {
			t.Errorf("nobody on side %d heeds the others there", side)
		}
		if late := r.Late[side]; late == never || late > 4*time.Second {
			t.Errorf("side %d took %v until all fail fast, when it had long lost the other", side, short(late))
		}
		if last > time.Minute && r.Back[side] == never {
			t.Errorf("side %d does not get back on its own", side)
		}
		if last > time.Minute && r.Probes[side] == 0 {
			t.Errorf("side %d does not probe for itself", side)
		}
	}
	if r.Whole == never || r.Whole > mending || r.Agreed == never || r.Agreed > mending {
		t.Errorf("whole after %v, the same evidence after %v, want %v", short(r.Whole), short(r.Agreed), mending)
	}
	if r.Flapping > flapping {
		t.Errorf("when all knew each other, %d lost sight of others again for %v", r.Flaps, r.Flapping)
	}
	if r.Resurrected > 0 || r.Ghosts > 0 {
		t.Errorf("%d breakers opened again, %d hold the word of one that is gone", r.Resurrected, r.Ghosts)
	}
}
