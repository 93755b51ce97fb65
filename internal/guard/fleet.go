package guard

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

const (
	// byFleet is what a Rejection names that others are the reason of.
	byFleet = "fleet"
	// quiet is how long OnSuspicion is not told of failures again.
	quiet = 50 * time.Millisecond
	// farOff is later than any probe can be postponed to.
	farOff = 365 * 24 * time.Hour
)

// FleetVerdict is what others make of a dependency, as far as this instance believes them.
// The zero value says that nothing is wrong.
type FleetVerdict struct {
	// Mode is what to do about it: nothing where it is empty or FleetOff. The policy bounds
	// it: Fleet.Mode for targets with a suspicion of their own, FleetWithoutTraffic.Mode for
	// those without calls.
	Mode policy.FleetMode
	// WithoutTraffic extends it from targets that failed lately, of a dependency that is
	// suspected, to those that were not called within the breaker's window.
	WithoutTraffic bool
	// Reason says for people who says so.
	Reason string
}

// heed is a verdict within the bounds of the policy. It does not change. Without a verdict
// there is none.
type heed struct {
	said             FleetVerdict
	suspecting, idle policy.FleetMode
}

// within bounds what was said by a policy.
func (h *heed) within(p *policy.Policy) *heed {
	if h == nil {
		return nil
	}
	next := &heed{said: h.said, suspecting: weaker(h.said.Mode, p.Fleet.Mode), idle: policy.FleetOff}
	if h.said.WithoutTraffic {
		next.idle = weaker(h.said.Mode, p.FleetWithoutTraffic.Mode)
	}
	return next
}

// has tells for which targets a mode holds: those with a suspicion, and those without calls.
func (h *heed) has(mode policy.FleetMode) (suspecting, idle bool) {
	if h == nil {
		return false, false
	}
	return h.suspecting == mode, h.idle == mode
}

// verdict is what was said, with the strongest mode that holds for any target.
func (h *heed) verdict() FleetVerdict {
	if h == nil {
		return FleetVerdict{}
	}
	v := h.said
	v.Mode, v.WithoutTraffic = h.suspecting, h.idle != policy.FleetOff
	if strength(h.idle) > strength(v.Mode) {
		v.Mode = h.idle
	}
	return v
}

func (h *heed) why() string { return h.verdict().Reason }

func weaker(a, b policy.FleetMode) policy.FleetMode {
	if strength(b) < strength(a) {
		return b
	}
	return a
}

func strength(m policy.FleetMode) int {
	switch m {
	case policy.FleetEnforce:
		return 2
	case policy.FleetAdvise:
		return 1
	case policy.FleetOff:
	}
	return 0
}

// Heed lets a verdict stand until the next one. Enforced, it opens the breakers of the targets
// that it is about by hearsay: now, or as soon as a failing call makes one of them suspicious;
// the end of the verdict lets them recover. Advised, it is logged, and calls are counted that
// are made in spite of it. The same verdict again looks at all targets again.
func (d *Dependency) Heed(v FleetVerdict) {
	var next *heed
	if !d.server && strength(v.Mode) > 0 {
		next = &heed{said: v}
	}
	if next == nil && d.heed.Load() == nil {
		return
	}
	g := d.guard
	was, next, told := d.obeyVerdict(next)
	for i := range told {
		g.tell(&told[i])
	}
	if advises(next) && !advises(was) && g.config.Logger != nil {
		g.safely(func() {
			g.config.Logger.LogAttrs(context.Background(), slog.LevelWarn, "others find a dependency broken; it is called all the same",
				slog.String("dependency", d.name), slog.String("reason", v.Reason))
		})
	}
}

// obeyVerdict has a verdict take the place of the one before, and returns both, as the policy
// bounds them, and what there is to tell.
func (d *Dependency) obeyVerdict(next *heed) (was, is *heed, told []BreakerEvent) {
	d.guard.mu.Lock()
	defer d.guard.mu.Unlock() // also if this panics: calls of new targets wait for it
	was, is = d.heed.Load(), next.within(d.policy.Load())
	d.heed.Store(is)
	return was, is, d.obeyFleet(d.guard.now())
}

func advises(h *heed) bool {
	suspecting, idle := h.has(policy.FleetAdvise)
	return suspecting || idle
}

// obeyFleet does what the verdict means for the targets, and returns what there is to tell.
// Guard.mu is held.
func (d *Dependency) obeyFleet(now int64) []BreakerEvent {
	var told []BreakerEvent
	h := d.heed.Load()
	why := d.grounds(now, h)
	for _, t := range *d.targets.Load() {
		if event := t.obeyFleet(now, h, why); event != nil {
			told = append(told, t.event(event, ""))
		}
	}
	return told
}

// grounds are what the instance has to believe others at all.
type grounds struct {
	suspects bool // the dependency
	unsure   bool // no target of it does well
}

// grounds looks for those to heed a verdict.
func (d *Dependency) grounds(now int64, h *heed) grounds {
	if h == nil || d.well(now) {
		return grounds{}
	}
	return grounds{suspects: d.suspects(now), unsure: true}
}

// obeyFleet does what a verdict means for the target, and returns what changed.
func (t *Target) obeyFleet(now int64, h *heed, why grounds) *breaker.Event {
	if t.breaker == nil {
		return nil
	}
	t.advise(now, h, why)
	suspecting, idle := h.has(policy.FleetEnforce)
	if suspecting || idle {
		return t.breaker.Heed(now, suspecting && why.suspects, idle && why.unsure)
	}
	return t.breaker.Dismiss(now)
}

// well tells whether a target does well: who sees that the dependency is there needs nobody
// to say whether it is.
func (d *Dependency) well(now int64) bool {
	p := d.policy.Load()
	for _, t := range *d.targets.Load() {
		if !t.breaker.Vetoes(now) {
			continue
		}
		if s := t.breaker.Snapshot(now); testifies(&s, p) && doesWell(&s, p) {
			return true
		}
	}
	return false
}

// suspects tells whether the dependency is suspected: because of the failures of all targets
// together, or because one of them opened.
func (d *Dependency) suspects(now int64) bool {
	enough := uint64(d.policy.Load().Fleet.SuspicionThreshold) //nolint:gosec // at least 1
	var failures uint64
	for _, t := range *d.targets.Load() {
		n, open := t.breaker.Trouble(now)
		if failures += n; open || failures >= enough {
			return true
		}
	}
	return false
}

// failed is told of each failure that the breaker has counted and that changed nothing.
func (t *Target) failed(now int64) {
	d, obeyed := t.dependency, (*heed)(nil)
	// Where the verdict changes meanwhile, whoever changed it may have looked at this target
	// too early.
	for h := d.heed.Load(); h != obeyed; h = d.heed.Load() {
		if event := t.obeyFleet(now, h, d.grounds(now, h)); event != nil {
			t.told(event, "")
		}
		obeyed = h
	}
	d.failed(now)
}

// failed tells OnSuspicion of a failure if the policy listens to others because of it.
func (d *Dependency) failed(now int64) {
	last := d.noticed.Load()
	if d.guard.config.OnSuspicion == nil || now-last < int64(quiet) || strength(d.policy.Load().Fleet.Mode) == 0 {
		return
	}
	if d.suspects(now) && d.noticed.CompareAndSwap(last, now) {
		d.changed()
	}
}

// changed tells that the evidence is worth a look.
func (d *Dependency) changed() {
	if listen := d.guard.config.OnSuspicion; listen != nil && !d.server {
		d.guard.safely(func() { listen(d) })
	}
}

// advice is for how many calls a target did not take advice. It does not change.
type advice struct {
	before uint64 // calls of earlier advice
	from   uint64 // calls of the target when it was given
	given  bool   // it stands
}

func (a *advice) stands() bool { return a != nil && a.given }

// calls counts those that the target made in spite of advice.
func (a *advice) calls(t *Target) uint64 {
	switch {
	case a == nil:
		return 0
	case a.given:
		return a.before + t.made() - a.from
	}
	return a.before
}

// made counts the calls of which an attempt was made.
func (t *Target) made() uint64 { return t.counters.sum(clean) + t.counters.sum(unclean) }

// advise begins or ends to count calls that enforcing the verdict would have put at stake:
// it ends with the verdict, and when calls go well.
func (t *Target) advise(now int64, h *heed, why grounds) {
	for {
		a := t.advised.Load()
		suspecting, idle := h.has(policy.FleetAdvise)
		heeds := t.breaker.Heeds(now, suspecting && why.suspects, idle && why.unsure)
		stands := (suspecting || idle) && (heeds || a.stands() && !t.breaker.Vetoes(now))
		if stands == a.stands() {
			return
		}
		next := &advice{before: a.calls(t), given: stands}
		if stands {
			next.from = t.made()
		}
		if t.advised.CompareAndSwap(a, next) {
			return
		}
	}
}

// Postpone lets the first target that is open probe so much later from now, and the others
// as much later than it as they would have. That may be earlier or later than by their own
// rules, but not earlier than a server ordered, nor later than breakers have patience. It tells
// whether one of them probes at another time than before: none where the evidence is of
// another generation.
func (d *Dependency) Postpone(generation uint64, in time.Duration) bool {
	var (
		now   = d.guard.now()
		own   = map[*Target]int64{}
		first = int64(math.MaxInt64)
	)
	if d.server {
		return false
	}
	for _, t := range *d.targets.Load() {
		if s := t.breaker.Snapshot(now); s.State == breaker.Open {
			own[t] = now + int64(s.Own)
			first = min(first, own[t])
		}
	}
	later := now + int64(min(max(in, 0), farOff)) - first
	moved := false
	d.each(generation, func(t *Target, generation uint64) {
		if until, open := own[t]; open {
			moved = t.breaker.Postpone(generation, until+later) || moved
		}
	})
	return moved
}

// Unpostpone lets all targets that are open probe by their own rules again. It tells whether
// the evidence is still of this generation.
func (d *Dependency) Unpostpone(generation uint64) bool {
	return d.each(generation, func(t *Target, generation uint64) { t.breaker.Unpostpone(generation) })
}

// Recover lets the targets that are open or half-open recover because probes of others
// succeeded, but for those that stay open because a server ordered it. It tells whether one
// does: none where the evidence is of another generation.
func (d *Dependency) Recover(generation uint64) bool {
	now, recovers := d.guard.now(), false
	d.each(generation, func(t *Target, generation uint64) {
		if event := t.breaker.Recover(now, generation); event != nil {
			recovers = true
			t.told(event, "")
		}
	})
	return recovers
}

// each does something with each target as it was when all of them together were of a
// generation.
func (d *Dependency) each(generation uint64, do func(t *Target, generation uint64)) bool {
	if d.server {
		return false
	}
	targets := *d.targets.Load()
	generations, sum := make(map[*Target]uint64, len(targets)), uint64(0)
	for _, t := range targets {
		generations[t] = t.breaker.Generation()
		sum += generations[t]
	}
	if sum != generation {
		return false
	}
	for t, generation := range generations {
		do(t, generation)
	}
	return true
}
