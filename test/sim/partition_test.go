package sim

import (
	"testing"
	"time"
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
		"fail fast A", "B", "probes A", "B", "back A", "B", "whole after", "agreed after", "resurrected", "ghosts")
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
				table.Row(n, shape.Name, last, r.FailFast[0], r.FailFast[1], r.Probes[0], r.Probes[1], r.Back[0], r.Back[1], r.Whole, r.Agreed, r.Resurrected, r.Ghosts)
				for side, fast := range r.FailFast {
					if fast == never || fast > 4*time.Second {
						w.t.Errorf("%s for %v: side %d took %v until all fail fast", shape.Name, last, side, short(fast))
					}
				}
				if last > time.Minute && (r.Back[0] == never || r.Back[1] == never) {
					w.t.Errorf("%s for %v: a side does not get back on its own: %v", shape.Name, last, r.Back)
				}
				if r.Agreed == never || r.Agreed > agreeing || r.Whole == never {
					w.t.Errorf("%s for %v: agreed after %v, want %v; whole after %v, want %v", shape.Name, last, short(r.Agreed), agreeing, short(r.Whole), mending)
				}
				if r.Resurrected > 0 || r.Ghosts > 0 {
					w.t.Errorf("%s for %v: %d breakers opened again, %d hold the word of one that is gone", shape.Name, last, r.Resurrected, r.Ghosts)
				}
			})
		}
	}
	t.Log(table)
}
