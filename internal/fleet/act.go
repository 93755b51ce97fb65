package fleet

import (
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// back is when to take the others' word that a dependency is back; the zero value is not
// yet.
type back struct {
	at     int64
	round  uint32 // of probes, in which that was
	probes bool   // theirs went well, else they have stopped to find it broken
}

// due tells whether it is time.
func (b *back) due(now int64) bool { return b.at != 0 && now >= b.at }

// release decides when to let calls through again because of others. They would all do
// so in the same moment: so the ramp of the policy is one of instances first, each of
// which begins its own ramp at the step at which the share admits its place among all.
// What is begun ends with the round of probes, or where the others find it broken again.
func (l *look) release(s *standing, p *policy.Policy) {
	hearsay := s.is.State == breaker.Hearsay
	armed := s.verdict.Arm || s.verdict.ArmIdle
	b := &s.back
	if !hard(s.is.State) && !hearsay || b.round != s.probes.Round || !b.probes && armed {
		*b = back{}
	}
	over := hearsay && !armed && s.heeded.Mode == policy.FleetEnforce
	if b.at == 0 && (s.plan.Recover || over) {
		*b = back{at: l.now + int64(l.place(s, &p.CircuitBreaker)), round: s.probes.Round, probes: s.plan.Recover}
	}
	l.at(b.at)
}

// place is how long after the first instances this one comes.
func (l *look) place(s *standing, p *policy.CircuitBreaker) time.Duration {
	place := health.Place("back "+s.is.Dependency, l.me.ID)
	step := slices.IndexFunc(p.Ramp, func(share float64) bool { return place < share })
	if step < 0 {
		step = len(p.Ramp)
	}
	return time.Duration(step) * p.RampStep
}

// act does to the breakers what was concluded.
func (m *Member) act(now int64) {
	for _, s := range m.byName() {
		s.heed(now)
		switch {
		case !hard(s.is.State):
		case !s.back.due(now):
			s.turn(m, now)
		case s.dependency.Recover(s.is.Generation):
			m.counts.recovered.Add(1)
		}
	}
}

// turn lets the breakers of a dependency probe when it is the instance's turn, and one
// that waits to be let back not before that.
func (s *standing) turn(m *Member, now int64) {
	if s.plan.Alone && s.back.at == 0 { // its breakers know themselves when to probe
		s.moved = s.moved && !s.dependency.Unpostpone(s.is.Generation)
		return
	}
	in := time.Duration(max(s.plan.Turn, s.back.at) - now)
	if s.is.State == breaker.Open && (in-s.is.ProbeIn).Abs() > time.Millisecond && s.dependency.Postpone(s.is.Generation, in) {
		s.moved = true
		m.counts.postponed.Add(1)
	}
}

// heed tells the breakers of a dependency what the others make of it.
func (s *standing) heed(now int64) {
	var v guard.FleetVerdict
	advised := s.dependency.Policy().FleetWithoutTraffic.Mode == policy.FleetAdvise
	idle := s.verdict.ArmIdle || s.verdict.Idle.Open && advised
	switch {
	case s.back.due(now):
	case s.verdict.Arm || s.verdict.ArmIdle:
		v = guard.FleetVerdict{Mode: policy.FleetEnforce, WithoutTraffic: idle}
	case s.back.at != 0 && s.heeded.Mode == policy.FleetEnforce: // its place has not come yet
		v = s.heeded
	case hard(s.is.State): // there is nothing to advise
	case s.verdict.Suspecting.Open || s.verdict.Idle.Open:
		v = guard.FleetVerdict{Mode: policy.FleetAdvise, WithoutTraffic: idle}
	}
	if v.Mode != "" {
		v.Reason = words(&s.verdict.Suspecting)
	}
	was := s.heeded
	s.heeded = v
	if v.Mode != "" || was.Mode != "" {
		s.dependency.Heed(v)
	}
}
