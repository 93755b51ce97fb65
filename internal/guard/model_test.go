package guard

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/hash"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

const never = math.MaxInt64 / 2

// twinTarget is a target in the most obvious way, for one call at a time: it plays
// calls through in numbers, without contexts, timers and goroutines. Breaker and
// budget have models of their own; here they are the real ones.
type twinTarget struct {
	policy  policy.Policy
	held    string // "open" or "closed"
	fleet   FleetVerdict
	heard   uint64 // attempts refused for it
	breaker *breaker.Breaker
	budget  *policy.RetryBudget
	busy    int

	calls, attempts, retries, saved        uint64
	refusedBudget, refusedTime, refusedOwn uint64
	results                                [5]uint64
	rejected, observed                     map[Reason]uint64
}

// played is how a call went.
type played struct {
	attempts string // times and deadlines
	outcome  string
	end      int64
}

// admit returns why an attempt is refused, or whether breaker and bulkhead take part.
func (m *twinTarget) admit(now int64) (ticket breaker.Ticket, judged, placed bool, why Reason) {
	enforce := m.policy.Enforcement == policy.Enforce
	a := m.breaker.Admit(now)
	if a.Hearsay() {
		m.heard++
	}
	if !a.Admitted {
		if enforce || m.held == "open" {
			return ticket, false, false, BreakerOpen
		}
		m.observed[BreakerOpen]++
		return ticket, false, false, ""
	}
	if m.busy < m.policy.Bulkhead.MaxConcurrent {
		m.busy++
		return a.Ticket, true, true, ""
	}
	m.breaker.Record(now, a.Ticket, breaker.Neutral, 0)
	if enforce {
		return ticket, false, false, BulkheadFull
	}
	m.observed[BulkheadFull]++
	return ticket, false, false, ""
}

func (m *twinTarget) class(code codes.Code, budget int64) breaker.Class {
	switch code {
	case codes.OK, codes.NotFound:
		return breaker.Success
	case codes.ResourceExhausted:
		return breaker.Overload
	case codes.DeadlineExceeded:
		fair := int64(100 * ms)
		for _, d := range []time.Duration{m.policy.Timeouts.Call, m.policy.Timeouts.PerAttempt, m.policy.CircuitBreaker.ProbeTimeout} {
			if d > 0 && int64(d/2) < fair {
				fair = int64(d / 2)
			}
		}
		if budget < fair {
			return breaker.Neutral
		}
	default:
	}
	return breaker.Failure
}

func (m *twinTarget) call(now, left int64, hop, idempotent bool, steps []step) (p played) {
	m.calls++
	enforce, t := m.policy.Enforcement == policy.Enforce, m.policy.Timeouts
	limit := left
	if hop && left < never {
		limit -= int64(t.Margin)
	}
	if t.Call > 0 && int64(t.Call) < limit {
		limit = int64(t.Call)
	}
	if limit <= 0 || limit < int64(t.Minimum) {
		if enforce {
			m.rejected[DeadlineTooNear]++
			return played{outcome: string(DeadlineTooNear), end: now}
		}
		m.observed[DeadlineTooNear]++
	}
	if !enforce {
		limit = left
	}
	end := now + limit
	for n := 1; ; n++ {
		ticket, judged, placed, why := m.admit(now)
		if why != "" && n == 1 {
			m.rejected[why]++
			return played{outcome: string(why), end: now}
		}
		if why != "" {
			m.refusedOwn++
			break
		}
		if n == 1 {
			m.budget.Call(now, 0)
		} else {
			m.retries++
		}
		budget, cut := end-now, false
		if enforce && t.PerAttempt > 0 && int64(t.PerAttempt) < budget {
			budget, cut = int64(t.PerAttempt), true
		}
		if enforce && ticket.Probe() && int64(m.breaker.ProbeTime()) < budget {
			budget, cut = int64(m.breaker.ProbeTime()), true
		}
		s := steps[min(n, len(steps))-1]
		told := time.Duration(budget)
		if budget >= never/2 {
			told = 0
		}
		p.attempts += fmt.Sprintf("%d at %v for %v; ", n, time.Duration(now), told)
		took, code := int64(s.took), s.code
		if took > budget {
			took, code = max(budget, 0), codes.DeadlineExceeded
		}
		now += took
		class := m.class(code, budget)
		if judged {
			m.record(now, ticket, class, time.Duration(took))
		}
		if placed {
			m.busy--
		}
		m.attempts++
		m.results[class]++
		if n > 1 && class == breaker.Success {
			m.saved++
		}
		p.outcome = code.String()
		again := idempotent && (code == codes.Unavailable || cut && code == codes.DeadlineExceeded)
		if !enforce || !again || n == m.policy.Retry.MaxAttempts || now >= end {
			break
		}
		pause := min(int64(100*ms)<<(n-1), int64(m.policy.Retry.MaxDelay))
		if rest := end - now - pause; rest <= 0 || rest < int64(t.Minimum) {
			m.refusedTime++
			break
		}
		if !m.budget.Take(now) {
			m.refusedBudget++
			break
		}
		now += pause
	}
	p.end = now
	return p
}

// record is what a failure may let it heed others.
func (m *twinTarget) record(now int64, ticket breaker.Ticket, class breaker.Class, took time.Duration) {
	m.breaker.Record(now, ticket, class, took)
	if class == breaker.Failure {
		m.obey(now)
	}
}

// obey does what the verdict means.
func (m *twinTarget) obey(now int64) {
	said := m.fleet.Mode == policy.FleetEnforce
	suspecting := said && m.policy.Fleet.Mode == policy.FleetEnforce
	idle := said && m.fleet.WithoutTraffic && m.policy.FleetWithoutTraffic.Mode == policy.FleetEnforce
	if suspecting || idle {
		failures, open := m.breaker.Trouble(now)
		m.breaker.Heed(now, suspecting && (open || failures >= uint64(m.policy.Fleet.SuspicionThreshold)), idle)
	} else {
		m.breaker.Dismiss(now)
	}
}

// change draws other settings.
func (m *twinTarget) change(r *rand.Rand, now int64) {
	pick := func(of ...time.Duration) time.Duration { return of[r.IntN(len(of))] }
	p := &m.policy
	if r.IntN(3) == 0 {
		p.Enforcement = []policy.Enforcement{policy.Enforce, policy.Enforce, policy.Observe}[r.IntN(3)]
	}
	p.Timeouts.Call = pick(0, 30*ms, 500*ms, 10*time.Second)
	p.Timeouts.PerAttempt = pick(0, 0, 20*ms, 200*ms)
	p.Timeouts.Minimum = pick(0, ms, 30*ms)
	p.Retry.MaxAttempts = 1 + r.IntN(4)
	p.Retry.MaxDelay = pick(100*ms, 2*time.Second)
	p.Bulkhead.MaxConcurrent = 1 + r.IntN(3)
	p.CircuitBreaker.FailureThreshold = r.IntN(5)
	p.CircuitBreaker.ProbeTimeout = pick(50*ms, 5*time.Second)
	p.CircuitBreaker.SuccessThreshold = 1 + r.IntN(2)
	modes := []policy.FleetMode{policy.FleetOff, policy.FleetAdvise, policy.FleetEnforce, policy.FleetEnforce}
	p.Fleet.Mode, p.FleetWithoutTraffic.Mode = modes[r.IntN(4)], modes[r.IntN(4)]
	p.Fleet.SuspicionThreshold, p.Fleet.VetoSuccesses = 1+r.IntN(2), 1+r.IntN(3)
	m.breaker.Configure(now, breakerSettings(p))
}

// TestModel plays random calls, settings and holds on a target and on its twin.
func TestModel(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) { playModel(t, rand.New(rand.NewPCG(seed, 0)), seed) })
		if t.Failed() {
			return
		}
	}
}

func playModel(t *testing.T, r *rand.Rand, seed uint64) {
	t.Helper()
	f := newFixture(t, func(p *policy.Policy) { p.CircuitBreaker.Ramp = []float64{0.3}; p.Retry.Budget.MinPerSecond = 0.2 })
	target := f.target(putMethod)
	m := &twinTarget{
		policy: f.policy, rejected: map[Reason]uint64{}, observed: map[Reason]uint64{},
		breaker: breaker.New(0, breakerSettings(&f.policy), hash.Nth(1^hash.Add(hash.Start, "store\x00"+putMethod))), budget: policy.NewRetryBudget(f.policy.Retry.Budget),
	}
	type open struct {
		permit         Permit
		ticket         breaker.Ticket
		judged, placed bool
		since          int64
	}
	var opened []*open
	for range 120 {
		now := f.now()
		switch r.IntN(16) {
		case 0:
			m.change(r, now)
			f.policy = m.policy
		case 1:
			before := m.held
			m.held = []string{"", "", "", "open", "closed"}[r.IntN(5)]
			if m.held != "" {
				m.breaker.Force(now, m.held == "open")
			} else if before != "" {
				m.breaker.Release(now)
			}
		case 2: // a stream begins
			permit, err := target.Admit(t.Context(), target.Now())
			ticket, judged, placed, why := m.admit(now)
			if (err != nil) != (why != "") || err != nil && !errors.Is(err, why) {
				t.Fatalf("seed %d: admitted with %v, want %q", seed, err, why)
			}
			if err != nil {
				m.calls++
				m.rejected[why]++
				continue
			}
			m.budget.Call(now, 0)
			opened = append(opened, &open{permit, ticket, judged, placed, now})
		case 3, 4: // a stream ends
			if len(opened) == 0 {
				continue
			}
			o, code := opened[0], []codes.Code{codes.OK, codes.Internal}[r.IntN(2)]
			opened = opened[1:]
			o.permit.Done(Result{Code: code}, 0)
			m.calls++
			if o.judged {
				m.record(now, o.ticket, m.class(code, never), time.Duration(now-o.since))
			}
			if o.placed {
				m.busy--
			}
			m.attempts++
			m.results[m.class(code, never)]++
		case 12, 13:
			m.fleet = FleetVerdict{
				Mode:           []policy.FleetMode{"", policy.FleetAdvise, policy.FleetEnforce, policy.FleetEnforce}[r.IntN(4)],
				WithoutTraffic: r.IntN(2) == 0,
			}
			target.dependency.Heed(m.fleet)
			m.obey(now)
		case 14:
			generation, in := target.dependency.Evidence().Generation, time.Duration(r.IntN(20))*time.Second
			switch r.IntN(5) {
			case 0, 1:
				target.dependency.Postpone(generation, in)
				m.breaker.Postpone(m.breaker.Generation(), now+int64(in))
			case 2:
				target.dependency.Unpostpone(generation)
				m.breaker.Unpostpone(m.breaker.Generation())
			default:
				target.dependency.Recover(generation)
				m.breaker.Recover(now, m.breaker.Generation())
			}
		case 5:
			pass(time.Duration(r.IntN(3000)) * ms)
		default:
			playCall(t, r, f, m, seed)
		}
		said := said{}
		if m.held != "" {
			said.holds = map[string]flags.Hold{"store": {Dependency: "store", Open: m.held == "open", Override: "x"}}
		}
		f.apply(said)
		m.obey(f.now())
		m.compare(t, f, seed)
	}
}

func playCall(t *testing.T, r *rand.Rand, f *fixture, m *twinTarget, seed uint64) {
	t.Helper()
	var steps []step
	for range 1 + r.IntN(3) {
		all := []codes.Code{codes.OK, codes.OK, codes.NotFound, codes.Unavailable, codes.Unavailable, codes.Internal, codes.ResourceExhausted}
		took := []time.Duration{0, 3 * ms, 40 * ms, 150 * ms, 20 * time.Second}[r.IntN(5)]
		steps = append(steps, step{code: all[r.IntN(len(all))], took: took + 333})
	}
	left := []int64{never, never, int64(20 * ms), int64(150 * ms), int64(2 * time.Second), int64(time.Minute)}[r.IntN(6)]
	ctx, cancel := context.WithCancel(t.Context())
	if left < never {
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), time.Duration(left))
	}
	defer cancel()
	hop := r.IntN(2) == 0
	if hop {
		ctx = WithHop(ctx)
	}
	begun := f.now()
	call := &scripted{steps: steps}
	err := f.call(ctx, call)
	got := played{outcome: status.Code(err).String(), end: f.now()}
	if rejection, ok := errors.AsType[*Rejection](err); ok {
		got.outcome = string(rejection.Reason)
	}
	for _, a := range call.list() {
		at := a.at.Sub(f.config.Clock.Deadline(0, 0))
		got.attempts += fmt.Sprintf("%d at %v for %v; ", a.n, at, a.left)
	}
	if want := m.call(begun, left, hop, true, steps); got != want {
		t.Fatalf("seed %d: %+v with %v left, hop %v:\n got %+v\nwant %+v", seed, steps, time.Duration(left), hop, got, want)
	}
}

func (m *twinTarget) compare(t *testing.T, f *fixture, seed uint64) {
	t.Helper()
	s, d := f.stats(putMethod), f.Stats().Dependencies[0]
	got := fmt.Sprint(s.Calls, s.Attempts, s.Retries, s.RetrySuccesses, s.RetriesRefusedBudget, s.RetriesRefusedDeadline, s.RetriesRejected, s.Results, s.Hearsay, s.Rejected, s.Observed, d.InUse)
	want := fmt.Sprint(m.calls, m.attempts, m.retries, m.saved, m.refusedBudget, m.refusedTime, m.refusedOwn, m.results, m.heard, m.rejected, m.observed, m.busy)
	snapshot := m.breaker.Snapshot(f.now())
	if snapshot.State == breaker.Open && snapshot.OpenFor == 0 {
		snapshot.State = breaker.HalfOpen
	}
	if got != want || fmt.Sprintf("%+v", s.Breaker) != fmt.Sprintf("%+v", snapshot) {
		t.Fatalf("seed %d:\n got %s %+v\nwant %s %+v", seed, got, s.Breaker, want, snapshot)
	}
}
