package guard

import (
	"cmp"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// Stats are what a guard has counted, for metrics: totals since it was made.
type Stats struct {
	Dependencies []DependencyStats // in the order of their names
}

// DependencyStats are those of one dependency.
type DependencyStats struct {
	Name    string
	Enforce bool
	// Bulkhead: places, 0 for no bound; taken ones; calls that wait.
	Limit, InUse, Queued int
	// Retry budget: how many retries it would grant now.
	RetryTokens float64
	// Fleet is what the fleet says, as far as the policy lets it be heard.
	Fleet   FleetVerdict
	Targets []TargetStats // in the order of their names
}

// TargetStats are those of one method or operation.
type TargetStats struct {
	Name string
	// Breaker is half-open as soon as its time of being open is up, though only the
	// next call makes it so. That of a target of Server is always closed.
	Breaker breaker.Snapshot
	// Transitions counts changes of state by the new state.
	Transitions [breaker.ForcedOpen + 1]uint64
	// Calls counts calls, Attempts what was tried for them; both when they have ended.
	Calls, Attempts uint64
	// Results counts attempts by class.
	Results [breaker.Overload + 1]uint64
	// Rejected counts calls that were not made, by reason.
	Rejected map[Reason]uint64
	// Observed counts what would have kept calls from being made, were the policy
	// enforced.
	Observed map[Reason]uint64
	// Hearsay counts attempts that were rejected, or would have been, because others say that
	// the dependency is broken; Advised calls that were made although they do.
	Hearsay, Advised uint64
	// Retries counts retries that were made, RetriesRefused those that were due but
	// not made: for want of budget or of time; RetriesRejected those that breaker or
	// bulkhead did not let pass; RetrySuccesses calls that a retry saved.
	Retries, RetriesRefusedBudget, RetriesRefusedDeadline, RetriesRejected, RetrySuccesses uint64
	// Hedges counts attempts beside others, HedgeWins those whose answers were taken.
	Hedges, HedgeWins uint64
	// Timeouts counts attempts that ran into their deadline, TimeoutTime what they took.
	Timeouts    uint64
	TimeoutTime time.Duration
	// Waits counts attempts that waited in the bulkhead's queue, WaitTime how long.
	Waits    uint64
	WaitTime time.Duration
}

// Stats returns what was counted. It takes time in the number of targets and
// stops no call.
func (g *Guard) Stats() Stats {
	now := g.now()
	var s Stats
	for _, d := range *g.dependencies.Load() {
		s.Dependencies = append(s.Dependencies, d.stats(now))
	}
	slices.SortFunc(s.Dependencies, func(a, b DependencyStats) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

func (d *Dependency) stats(now int64) DependencyStats {
	use, budget, p := d.whole.Use(), d.budget.Use(now), d.policy.Load()
	s := DependencyStats{
		Name: d.name, Enforce: enforced(p), Limit: use.Limit, InUse: use.InUse, Queued: use.Queued,
		RetryTokens: max(float64(budget.Allowed)-float64(budget.Retries), 0), Fleet: d.heed.Load().verdict(),
	}
	for _, t := range *d.targets.Load() {
		s.Targets = append(s.Targets, t.stats(now))
	}
	slices.SortFunc(s.Targets, func(a, b TargetStats) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

func (t *Target) stats(now int64) TargetStats {
	c := &t.counters
	s := TargetStats{
		Name:    t.name,
		Calls:   c.sum(clean) + c.sum(unclean) + c.sum(gone),
		Hearsay: c.sum(hearsay), Advised: t.advised.Load().calls(t),
		Rejected: map[Reason]uint64{}, Observed: map[Reason]uint64{},
		Retries: c.sum(retries), RetriesRefusedBudget: c.sum(retriesRefusedBudget),
		RetriesRefusedDeadline: c.sum(retriesRefusedDeadline), RetriesRejected: c.sum(retriesRejected),
		RetrySuccesses: c.sum(retrySuccesses), Hedges: c.sum(hedges), HedgeWins: c.sum(hedgeWins),
		Timeouts: c.sum(timeouts), TimeoutTime: c.duration(timeoutTime), Waits: c.sum(waits), WaitTime: c.duration(waitTime),
	}
	if t.breaker != nil {
		s.Breaker = t.breaker.Snapshot(now)
		if s.Breaker.State == breaker.Open && s.Breaker.OpenFor == 0 {
			s.Breaker.State = breaker.HalfOpen
		}
	}
	for i := range s.Transitions {
		s.Transitions[i] = c.sum(transitions + counter(i))
	}
	s.Results[breaker.Success] = c.sum(clean)
	for i := range s.Results {
		s.Results[i] += c.sum(results + counter(i))
		s.Attempts += s.Results[i]
	}
	for i, why := range refusals {
		if n := c.sum(rejected + counter(i)); n > 0 {
			s.Rejected[why] = n
			s.Calls += n
		}
		if n := c.sum(observed + counter(i)); n > 0 {
			s.Observed[why] = n
		}
	}
	return s
}
