package guard

import (
	"cmp"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Evidence is what an instance saw of a dependency lately, all its targets together. What was
// decided by others, operators or the fleet, is no evidence: it shows in State as Hearsay and
// in Held, and calls that were rejected count nowhere.
type Evidence struct {
	Dependency string
	// State is that of the target which is closed off the most, of those used lately. While
	// other targets of the dependency do well, open and half-open ones do not count: then the
	// dependency is there, and Suspects. So it does after as many failures as the policy's
	// suspicion threshold.
	State    breaker.State
	Suspects bool
	// Reason is why the target with this state opened, Since for how long it has been so.
	Reason breaker.Reason
	Since  time.Duration
	// Generation is another one after each opening, probing or recovery of a target.
	Generation uint64
	// Calls, Failures and Slow are those in the breaker's window and, of targets that are
	// not closed again, what they saw when they opened. Successes are those of the last
	// VetoWindow, leaving out those of targets that have failed since, as many times in a row
	// as make a suspicion: they testify to what was.
	Calls, Failures, Slow, Successes uint64
	// Targets were used lately: called, or they rejected calls. Without any the instance has
	// no traffic. Open ones are among them, Held ones are not; those that are open by hearsay
	// may be.
	Targets, OpenTargets, HearsayTargets, Held int
	// ProbeIn is how soon the first of the open targets probes, 0 or less for the next call;
	// ProbeOwn the same by its own rules. Both are 0 without open targets.
	ProbeIn, ProbeOwn time.Duration
	// Probing are probes under way. Probe is the last answer of any, ProbeAge how old it is.
	Probing  int
	Probe    breaker.ProbeResult
	ProbeAge time.Duration
}

// Evidence returns what was seen of all dependencies that the instance has called, in the
// order of their names. It takes time in the number of targets and stops no call.
func (g *Guard) Evidence() []Evidence {
	var all []Evidence
	for name, d := range *g.dependencies.Load() {
		if !d.server && name != Others {
			all = append(all, d.Evidence())
		}
	}
	slices.SortFunc(all, func(a, b Evidence) int { return cmp.Compare(a.Dependency, b.Dependency) })
	return all
}

// Evidence returns what was seen of the dependency. That of Server has nothing to say.
func (d *Dependency) Evidence() Evidence {
	e, p, now := Evidence{Dependency: d.name, ProbeIn: farOff}, d.policy.Load(), d.guard.now()
	if d.server {
		return Evidence{Dependency: d.name}
	}
	targets := *d.targets.Load()
	all, well := make([]breaker.Snapshot, 0, len(targets)), false
	for _, t := range targets {
		s := t.breaker.Snapshot(now)
		if !testifies(&s, p) {
			s.Recent = 0
		}
		e.Generation += s.Generation
		e.add(&s, now)
		well = well || doesWell(&s, p)
		all = append(all, s)
	}
	e.Suspects = e.Failures >= uint64(p.Fleet.SuspicionThreshold) //nolint:gosec // at least 1
	for i := range all {
		e.join(&all[i], now, well)
	}
	if e.ProbeIn == farOff {
		e.ProbeIn = 0
	}
	return e
}

// testifies tells whether the recent successes of a target say what is: not after as many
// failures in a row as make a suspicion.
func testifies(s *breaker.Snapshot, p *policy.Policy) bool {
	return s.Counts.Streak < uint32(p.Fleet.SuspicionThreshold) //nolint:gosec // at least 1
}

// doesWell tells whether a target shows that the dependency is there.
func doesWell(s *breaker.Snapshot, p *policy.Policy) bool {
	return s.State < breaker.HalfOpen && s.Recent >= uint64(p.Fleet.VetoSuccesses) && 2*s.Counts.Failures < s.Counts.Calls //nolint:gosec // at least 1
}

// add adds what a target counted.
func (e *Evidence) add(s *breaker.Snapshot, now int64) {
	if s.Probed != breaker.NoProbe && (e.Probe == breaker.NoProbe || time.Duration(now-s.ProbedAt) < e.ProbeAge) {
		e.Probe, e.ProbeAge = s.Probed, time.Duration(now-s.ProbedAt)
	}
	if s.State == breaker.ForcedOpen || s.State == breaker.ForcedClosed {
		e.Held++
	} else if !s.Idle {
		e.Targets++
	}
	if s.Idle || s.State == breaker.ForcedOpen { // which may be long ago
		return
	}
	e.Successes += s.Recent
	for _, c := range []breaker.Counts{s.Counts, s.Opened} {
		e.Calls += c.Calls
		e.Failures += c.Failures
		e.Slow += c.Slow
	}
}

// onlyReleased tells that a breaker is open because an operator held it, and has not seen
// since that it should be: that is no evidence, and its probe waits for nobody's turn.
func onlyReleased(s *breaker.Snapshot) bool {
	return (s.State == breaker.Open || s.State == breaker.HalfOpen) && s.OpenedBy == breaker.Released && s.Probed != breaker.BadProbe
}

// join lets a target take part in the state; well tells that another one does well.
func (e *Evidence) join(s *breaker.Snapshot, now int64, well bool) {
	if s.State == breaker.Hearsay {
		e.HearsayTargets++
	} else if s.Idle || s.State == breaker.ForcedOpen || s.State == breaker.ForcedClosed || onlyReleased(s) {
		return
	}
	e.Probing += s.Probes
	if s.State >= breaker.HalfOpen {
		e.OpenTargets++
		if s.State == breaker.Open && s.OpenFor < e.ProbeIn {
			e.ProbeIn, e.ProbeOwn = s.OpenFor, s.Own
		}
		if well {
			e.Suspects = true
			return
		}
	}
	since := time.Duration(now - s.Since)
	if s.State > e.State || s.State == e.State && since > e.Since {
		e.State, e.Since, e.Reason = s.State, since, s.OpenedBy
	}
}
