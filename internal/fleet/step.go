package fleet

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// standing is what the member keeps of a dependency that is not plainly well, here or
// elsewhere.
type standing struct {
	dependency *guard.Dependency
	is         guard.Evidence
	was        breaker.State // in the step before
	damper     health.Standing
	verdict    health.Verdict
	heeded     guard.FleetVerdict // what the breakers were told last
	probes     health.ProbeState
	plan       health.Plan
	report     health.Report
	since      int64 // of report.Opinion
	opened     int64 // when the breakers opened, however often probes have failed since
	round      int64 // when the round of probes began
	moved      bool  // probes were moved because of others
	back       back
	spoken     spoken
	told       Verdict // as of the last event
}

// step looks at everything once, and returns when to look again at the latest; 0 for
// when woken.
func (m *Member) step() time.Duration {
	m.counts.steps.Add(1)
	now := m.config.Clock.Now()
	all := m.config.Guard.Evidence()
	m.observe(now, all)
	look := &look{member: m, now: now, again: math.MaxInt64}
	m.config.Store.look(func(t *health.Table, population map[string]health.Population) {
		look.table = t
		look.consider(all, population)
	})
	m.act(now)
	look.at(m.speak(look))
	m.show(now)
	if look.again == math.MaxInt64 {
		return 0
	}
	return time.Duration(max(look.again-now, 1))
}

// observe decides whether to doubt oneself.
func (m *Member) observe(now int64, all []guard.Evidence) {
	v := health.Vitals{Members: 1}
	if m.config.Vitals != nil {
		pool := m.config.Vitals()
		v.Health, v.Members, v.Left, v.Heard = pool.Health, pool.Members, pool.Left, pool.Heard
	}
	for i := range all {
		e := &all[i]
		if e.Targets == 0 {
			continue
		}
		v.Dependencies++
		if hard(e.State) || e.Suspects && 2*e.Failures > e.Calls {
			v.Failing++
		}
	}
	m.doubter, m.doubt = m.doubter.Observe(now, v)
}

// hard tells whether a breaker is open by evidence of its own.
func hard(s breaker.State) bool { return s == breaker.Open || s == breaker.HalfOpen }

// look is one look at everything.
type look struct {
	member *Member
	table  *health.Table
	me     health.Origin
	now    int64
	again  int64 // when to look again
	speech []speech
}

// speech is what the instance would like to say of a dependency.
type speech struct {
	standing *standing
	urgency  health.Urgency
}

// at notes when to look again.
func (l *look) at(when int64) {
	if when > l.now {
		l.again = min(l.again, when)
	}
}

// consider weighs what each dependency of the guard seems to be like, here and
// elsewhere.
func (l *look) consider(all []guard.Evidence, population map[string]health.Population) {
	m := l.member
	if c := m.credential.Load(); c != nil {
		l.me = originOf(&c.is)
	}
	used := 0
	for i := range all {
		if all[i].Targets > 0 {
			used++
		}
	}
	for i := range all {
		e := &all[i]
		s, said := m.standings[e.Dependency], l.table.Said(e.Dependency)
		if s == nil && !said && e.State <= breaker.ForcedClosed {
			continue
		}
		if s == nil {
			s = &standing{dependency: m.config.Guard.Dependency(e.Dependency)}
			m.standings[e.Dependency] = s
		}
		s.was, s.is = s.is.State, *e
		l.judge(s, population[l.me.Service], used)
		switch {
		case said || !s.quiet():
			l.at(l.now + int64(watchStep))
		case s.damper.Forgettable(l.now):
			delete(m.standings, e.Dependency)
		}
	}
}

// quiet tells whether nothing is wrong with a dependency here, and nothing was said. A
// suspicion alone is nothing wrong: among many calls there are always some failures.
func (s *standing) quiet() bool {
	return s.is.State <= breaker.ForcedClosed && s.heeded.Mode == "" && !s.verdict.Open &&
		s.spoken.said.Opinion == health.None
}

// judge decides what to make of a dependency, and what to say.
func (l *look) judge(s *standing, population health.Population, used int) {
	m, e, p := l.member, &s.is, s.dependency.Policy()
	own := health.Own{State: stateOf(e.State), Calls: e.Calls, Failures: e.Failures, Successes: e.Successes}
	tally := l.table.Tally(l.now, e.Dependency, l.me)
	c := health.Case{
		Now: l.now, Fleet: p.Fleet, WithoutTraffic: p.FleetWithoutTraffic, Own: own, Population: population,
		Doubt: m.doubt, Dependencies: used, Armed: m.armed(s), Tally: &tally, Standing: s.damper,
	}
	s.verdict, s.damper = c.Verdict()
	if again, ok := s.damper.Again(l.now); ok {
		l.at(again)
	}
	l.plan(s, p)
	l.release(s, p)
	opinion := own.Opinion(p.Fleet)
	if p.Fleet.Mode == policy.FleetOff && p.FleetWithoutTraffic.Mode == policy.FleetOff {
		opinion = health.None
	}
	l.word(s, opinion)
	l.speech = append(l.speech, speech{s, tally.Speak(s.report.Opinion, s.spoken.firm())})
}

// armed counts the other dependencies that hearsay holds, or may hold.
func (m *Member) armed(except *standing) int {
	n := 0
	for _, s := range m.standings {
		if s != except && (s.verdict.Arm || s.verdict.ArmIdle) {
			n++
		}
	}
	return n
}

// stateOf is what the rules call a breaker's state.
func stateOf(s breaker.State) health.State {
	switch s {
	case breaker.Open:
		return health.Opened
	case breaker.HalfOpen:
		return health.HalfOpen
	case breaker.Recovering:
		return health.Ramping
	case breaker.Hearsay:
		return health.Holding
	default:
		return health.Passing
	}
}

// causeOf is what the rules call a breaker's reason.
func causeOf(r breaker.Reason) health.Cause {
	switch r {
	case breaker.TooManyFailures:
		return health.TooManyFailures
	case breaker.FailureRatio:
		return health.FailureRatio
	case breaker.SlowRatio:
		return health.SlowRatio
	case breaker.ProbeFailed, breaker.ProbeLapsed:
		return health.ProbeFailed
	case breaker.Ordered:
		return health.Ordered
	default:
		return health.NoCause
	}
}

// plan finds out whose turn it is to probe a dependency that is held open.
func (l *look) plan(s *standing, p *policy.Policy) {
	e, b := &s.is, &p.CircuitBreaker
	pauses := health.Pauses{First: b.Timeout, Max: b.MaxTimeout, Multiplier: b.Multiplier}
	held := hard(e.State) || e.State == breaker.Hearsay
	switch {
	case !held && e.State != breaker.Recovering:
		s.probes, s.round, s.moved = health.ProbeState{}, l.now, false
	case held && s.was == breaker.Recovering:
		s.probes = s.probes.Reopened()
	}
	if hard(e.State) && !hard(s.was) {
		s.opened = l.now - int64(e.Since)
	}
	// Who does not obey the others, or doubts itself, is left with its own breakers.
	s.plan = health.Plan{Alone: true}
	if !held || p.Fleet.Mode != policy.FleetEnforce || l.member.doubt != 0 {
		return
	}
	s.plan = l.table.Plan(l.now, health.Prober{
		Dependency: e.Dependency, Me: l.me, Probes: p.Fleet.Probes, Pauses: pauses, ProbeTime: b.ProbeTimeout,
		Own: l.now + int64(e.ProbeOwn), State: s.probes,
	})
	if s.plan.State.Round != s.probes.Round {
		s.round = l.now
	}
	s.probes = s.plan.State
	l.at(s.plan.Turn)
}

// word makes the report.
func (l *look) word(s *standing, opinion health.Opinion) {
	e := &s.is
	if opinion != s.report.Opinion || s.since == 0 {
		s.since = l.now
	}
	s.report = health.Report{
		Dependency: e.Dependency, Opinion: opinion,
		Calls: count(e.Calls), Failures: count(e.Failures), Successes: count(e.Successes),
		Since: time.Duration(l.now - s.since), Round: s.probes.Round,
	}
	if accuses(opinion) {
		s.report.Cause, s.report.Since = causeOf(e.Reason), time.Duration(l.now-s.opened)
	}
	switch result := e.Probe; {
	case l.now-int64(e.ProbeAge) < s.round: // of a round before
	case result == breaker.GoodProbe:
		s.report.Probe, s.report.ProbeAgo = health.Good, e.ProbeAge
	case result == breaker.BadProbe:
		s.report.Probe, s.report.ProbeAgo = health.Bad, e.ProbeAge
	}
}

func count(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) } //nolint:gosec // bounded

// byName returns the standings in the order of their names, so that two runs do the
// same in the same order.
func (m *Member) byName() []*standing {
	all := make([]*standing, 0, len(m.standings))
	for _, s := range m.standings {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *standing) int { return cmp.Compare(a.is.Dependency, b.is.Dependency) })
	return all
}
