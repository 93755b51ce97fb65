package check

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// override is one temporary change of a mode.
type override struct {
	op   *history.Op
	mode string
	id   string
}

// endsOnTime checks that overrides are obeyed at their level, and no longer and no
// shorter than they last.
func endsOnTime(f *facts) *finding {
	out := &finding{none: "no instance obeyed an override"}
	overrides := make(map[string]*override)
	for i := range f.Ops {
		op := &f.Ops[i]
		if op.F == history.Override && op.Outcome != history.Failed && len(op.Cells) > 0 {
			overrides[op.Cells[0].Value] = &override{op, op.Cells[0].Key, op.Cells[0].Value}
		}
	}
	views := by(f.Updates, func(u *history.Update) string { return u.Instance })
	for _, id := range slices.Sorted(maps.Keys(views)) {
		updates, last := views[id], f.lastSeen(id)
		for i := 0; i < len(updates); {
			u := updates[i]
			next := i + 1
			for next < len(updates) && updates[next].Override == u.Override {
				f.obeysLevel(out, updates[next], overrides[u.Override])
				next++
			}
			until := last
			if next < len(updates) {
				until = updates[next].T
			}
			if o := overrides[u.Override]; o != nil {
				out.looked(1)
				f.obeysLevel(out, u, o)
				f.onTime(out, o, u, until, next < len(updates))
			} else if u.Override != "" {
				out.fail("%s at %s obeys the override %s, which nobody began", id, seconds(u.T), u.Override)
			}
			i = next
		}
	}
	return out
}

func (f *facts) obeysLevel(out *finding, u *history.Update, o *override) {
	if o != nil && o.op.Level != "" && u.Level != o.op.Level {
		out.fail("%s at %s obeys the override %s with level %q, which demands %q", u.Instance, seconds(u.T), o.id, u.Level, o.op.Level)
	}
}

// onTime checks one time in which an instance obeyed an override: from u on until
// another view, or the end of what is known of the instance.
func (f *facts) onTime(out *finding, o *override, u *history.Update, until int64, seen bool) {
	id, by := u.Instance, int64(f.o.OverrideBy)
	committed := o.op.Return
	if o.op.Outcome == history.Unknown {
		committed = max(committed, u.T)
	}
	due := committed + o.op.TTL
	if until > due+by && !f.disturbed(id, due, until) {
		out.fail("%s obeys the override %s until %s, which ended at %s at the latest", id, o.id, seconds(until), seconds(due))
	}
	earliest := o.op.Call + o.op.TTL
	if !seen || until >= earliest-by || f.disturbed(id, u.T, until) || f.replaced(o, until) {
		return
	}
	out.fail("%s obeys the override %s until %s only, which lasts until %s at least", id, o.id, seconds(until), seconds(earliest))
}

// replaced tells whether anything else was done to the mode that can have ended an
// override by a time.
func (f *facts) replaced(o *override, until int64) bool {
	for i := range f.Ops {
		op := &f.Ops[i]
		if op.Call > until {
			break
		}
		if op == o.op || op.Outcome == history.Failed || op.Return < o.op.Call {
			continue
		}
		if op.F == history.Restore {
			return true
		}
		if (op.F == history.Override || op.F == history.Release) && len(op.Cells) > 0 && op.Cells[0].Key == o.mode {
			return true
		}
	}
	return false
}

// lastSeen is the last moment at which an instance is known to have run.
func (f *facts) lastSeen(id string) int64 {
	last := int64(math.MinInt64)
	for i := range f.Decisions {
		if d := &f.Decisions[i]; d.Instance == id {
			last = max(last, d.Until)
		}
	}
	for i := range f.Updates {
		if u := &f.Updates[i]; u.Instance == id {
			last = max(last, u.T)
		}
	}
	return last
}

// heedsFresh checks that a breaker that opened because of others did so while others
// said so and its own calls did not go well, and does not stay open for long after the
// last of them fell silent.
func heedsFresh(f *facts) *finding {
	out := &finding{none: "no breaker opened because of others"}
	peers := by(f.Peers, func(p *history.Peers) string { return p.Instance })
	calls := by(f.Calls, func(c *history.Calls) string { return c.Instance })
	for i := range f.Guards {
		g := &f.Guards[i]
		if g.To != history.StateHearsay {
			continue
		}
		out.looked(1)
		if good, bad := lately(calls[g.Instance], g); bad == 0 && good >= wellAfter {
			out.fail("%s opened %s at %s because of others, though all of its own last %d calls went well", g.Instance, g.Dependency, seconds(g.T), good)
		}
		said := f.saidUntil(peers[g.Instance], g)
		if said == 0 {
			out.fail("%s opened %s at %s because of others, of whom none said that it is broken", g.Instance, g.Dependency, seconds(g.T))
			continue
		}
		left := f.leftOpen(i)
		if silent := time.Duration(left - said); silent > f.o.EvidenceBy && !f.disturbed(g.Instance, said, left) {
			out.fail("%s held %s open until %s because of others, of whom the last fell silent %v before", g.Instance, g.Dependency, seconds(left), silent)
		}
	}
	return out
}

// wellAfter is how many calls that went well, in a piece of time without any that did
// not, let an instance ignore others.
const (
	wellAfter = 3
	wellFor   = 2 * time.Second
)

// lately counts the calls of an instance to a dependency right before its breaker
// changed: good ones only where that is certain, bad ones also where it may be.
func lately(calls []*history.Calls, g *history.Guard) (good, bad int) {
	for _, c := range calls {
		if c.Dependency != g.Dependency || c.Until < g.T-int64(wellFor) || c.T > g.T {
			continue
		}
		bad += c.Bad
		if c.T >= g.T-int64(wellFor) && c.Until <= g.T {
			good += c.Good
		}
	}
	return good, bad
}

// saidUntil is the last moment up to which somebody else said that the dependency is
// broken, from shortly before the breaker opened on; 0 if nobody did.
func (f *facts) saidUntil(views []*history.Peers, g *history.Guard) int64 {
	last := int64(0)
	for i, p := range views {
		until := f.lastMoment()
		if i+1 < len(views) {
			until = views[i+1].T
		}
		if until < g.T-int64(f.o.AgeBy) || (last == 0 && p.T > g.T+int64(f.o.AgeBy)) {
			continue
		}
		for key, said := range p.Evidence {
			if origin, dependency, _ := cutEvidence(key); origin != g.Instance && dependency == g.Dependency && said.Opinion == "open" {
				last = max(last, until)
			}
		}
	}
	return last
}

// leftOpen is when the breaker of a guard record changed next.
func (f *facts) leftOpen(i int) int64 {
	g := &f.Guards[i]
	for _, next := range f.Guards[i+1:] {
		if next.Instance == g.Instance && next.Dependency == g.Dependency && next.Target == g.Target {
			return next.T
		}
	}
	return min(f.lastMoment(), f.lastSeen(g.Instance))
}

// outages checks that no instance goes on calling a dependency that only fails, and
// that each calls again once all is well.
func outages(f *facts) *finding {
	out := &finding{none: "no instance called a dependency"}
	type caller struct{ instance, dependency string }
	since := make(map[caller]int64)
	last := make(map[caller]*history.Calls)
	for i := range f.Calls {
		c := &f.Calls[i]
		who := caller{c.Instance, c.Dependency}
		out.looked(1)
		last[who] = c
		if c.Bad == 0 || c.Good > 0 || c.Rejected > 0 {
			delete(since, who)
			continue
		}
		if _, ok := since[who]; !ok {
			since[who] = c.T
		}
		if took := time.Duration(c.Until - since[who]); took > f.o.Outage {
			out.fail("%s has called %s in vain for %v, until %s, and rejects nothing", c.Instance, c.Dependency, took, seconds(c.Until))
			since[who] = c.Until
		}
	}
	for _, c := range last {
		if f.Run.Healed > 0 && c.T > f.Run.Healed+int64(f.o.Heal) && c.Good == 0 && c.Bad+c.Rejected > 0 {
			out.fail("%s does not get through to %s, at %s, %v after all was healed", c.Instance, c.Dependency, seconds(c.T), time.Duration(c.T-f.Run.Healed))
		}
	}
	return out
}
