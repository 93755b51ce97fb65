package guard

import (
	"bytes"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// believed is a verdict that is obeyed.
func believed(withoutTraffic bool) FleetVerdict {
	return FleetVerdict{Mode: policy.FleetEnforce, WithoutTraffic: withoutTraffic, Reason: "3 of 3 hosts"}
}

// heeding lets instances without traffic heed others too.
func heeding(p *policy.Policy) {
	p.FleetWithoutTraffic.Mode = policy.FleetEnforce
	p.Fleet.Canary = 0
}

func (f *fixture) store() *Dependency { return f.Dependency("store") }

// state is that of the breaker of a target.
func (f *fixture) state(method string) breaker.State {
	return f.target(method).breaker.Snapshot(f.now()).State
}

func (f *fixture) is(method string, want breaker.State) {
	f.Helper()
	if got := f.state(method); got != want {
		f.Fatalf("%s is %s, want %s", method, got, want)
	}
}

// ok makes good calls of a method.
func (f *fixture) ok(method string, n int) {
	f.Helper()
	for range n {
		if err := f.call(f.Context(), &scripted{method: method, steps: []step{{}}}); err != nil {
			f.Fatal(err)
		}
	}
}

// rejected makes a call that is not made, and returns why.
func (f *fixture) rejected(method string) *Rejection {
	f.Helper()
	r, ok := errors.AsType[*Rejection](f.call(f.Context(), &scripted{method: method, steps: []step{{}}}))
	if !ok {
		f.Fatalf("%s is called", method)
	}
	return r
}

// A verdict is about those targets that have a reason of their own to believe it.
func TestHeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		f.ok(readMethod, 1)
		f.target(putMethod)
		f.fail(2)
		f.store().Heed(believed(false))
		f.is(postMethod, breaker.Hearsay)
		f.is(readMethod, breaker.Closed)
		f.is(putMethod, breaker.Closed)
		f.store().Heed(believed(true))
		f.is(readMethod, breaker.Closed)
		f.is(putMethod, breaker.Hearsay)
		r := f.rejected(postMethod)
		if !errors.Is(r, BreakerOpen) || r.By != "fleet" || r.Code != codes.Unavailable || r.RetryAfter != 5*time.Second {
			t.Errorf("got %+v", r)
		}
		if e := f.events[0]; e.Target != postMethod || e.Reason != breaker.Fleet || e.By != "3 of 3 hosts" || e.Counts.Failures != 2 {
			t.Errorf("told %+v", e)
		}
		if s, d := f.stats(postMethod), f.Stats().Dependencies[0]; s.Hearsay != 1 || s.Rejected[BreakerOpen] != 1 || d.Fleet != believed(true) {
			t.Errorf("counted %+v of %+v", s, d)
		}
		f.store().Heed(FleetVerdict{})
		f.is(postMethod, breaker.Recovering)
		f.is(putMethod, breaker.Recovering)
		if d := f.Stats().Dependencies[0]; d.Fleet != (FleetVerdict{}) {
			t.Errorf("shows %+v", d.Fleet)
		}
	})
}

// What becomes suspicious, or is there, only while a verdict stands, heeds it all the same.
func TestHeedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		f.target(postMethod)
		f.store().Heed(believed(false))
		f.fail(1)
		f.is(postMethod, breaker.Closed)
		f.fail(1)
		f.is(postMethod, breaker.Hearsay)
		if f.rejected(postMethod).By != "fleet" {
			t.Error("rejected by another")
		}
		f.store().Heed(believed(true))
		f.is(putMethod, breaker.Hearsay)
		if got := f.states(); !slices.Equal(got, []breaker.State{breaker.Hearsay, breaker.Hearsay}) {
			t.Errorf("told %v", got)
		}
	})
}

// A dependency is suspected because of all its targets; those heed that had a part in it.
func TestSuspicionIsOfTheDependency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		fail := func(method string) {
			_ = f.call(t.Context(), &scripted{method: method, steps: []step{{code: codes.Internal}}})
		}
		f.store().Heed(believed(false))
		f.ok(readMethod, 1)
		fail(postMethod)
		f.is(postMethod, breaker.Closed)
		fail(putMethod)
		f.is(putMethod, breaker.Hearsay)
		f.is(postMethod, breaker.Closed)
		f.store().Heed(believed(false)) // as it is repeated, now and then
		f.is(postMethod, breaker.Hearsay)
		f.is(readMethod, breaker.Closed)
	})
}

// One target that opened is suspicion enough for the others.
func TestOpenTargetIsSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		f.fail(5)
		f.store().Heed(believed(false))
		_ = f.call(t.Context(), &scripted{method: putMethod, steps: []step{{code: codes.Internal}}})
		f.is(putMethod, breaker.Hearsay)
		f.is(postMethod, breaker.Open)
	})
}

// A target that does well is a veto for all, also for those without calls, until it fails
// itself or its successes are old.
func TestOneTargetVetoesForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		is := func(post, put breaker.State) {
			t.Helper()
			f.is(postMethod, post)
			f.is(putMethod, put)
		}
		f.target(putMethod)
		f.ok(readMethod, 1000)
		f.fail(2)
		f.store().Heed(believed(true))
		f.target("another")
		is(breaker.Closed, breaker.Closed)
		f.is("another", breaker.Closed)
		f.fail(1)
		is(breaker.Closed, breaker.Closed)
		for range 2 {
			_ = f.call(t.Context(), &scripted{method: readMethod, steps: []step{{code: codes.Internal}}})
		}
		f.store().Heed(believed(false))
		is(breaker.Hearsay, breaker.Closed)
		f.is(readMethod, breaker.Closed) // which successes of its own keep from heeding
		f.store().Heed(FleetVerdict{})
		pass(5 * time.Second)
		f.store().Heed(believed(true))
		is(breaker.Recovering, breaker.Hearsay)
	})
}

// A dependency that was tried for one target is left alone for another for a while.
func TestTargetsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		f.fail(2)
		_ = f.call(t.Context(), &scripted{method: putMethod, steps: []step{{code: codes.Internal}}})
		f.store().Heed(believed(false))
		f.is(putMethod, breaker.Hearsay)
		pass(5 * time.Second)
		f.fail(1)
		if r := f.rejected(putMethod); r.By != "fleet" || r.RetryAfter != 5*time.Second {
			t.Errorf("got %+v", r)
		}
	})
}

// What one sees oneself decides: it opens, and it ends being open by hearsay.
func TestHearsayEndsByOwnResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		f.fail(2)
		f.store().Heed(believed(true))
		pass(4 * time.Second)
		for range 3 {
			pass(time.Second)
			f.ok(postMethod, 1)
		}
		f.is(postMethod, breaker.Closed)
		f.store().Heed(believed(true))
		f.is(postMethod, breaker.Closed)
		f.fail(2)
		f.is(postMethod, breaker.Closed) // three successes just now
		pass(3 * time.Second)
		f.fail(1)
		f.is(postMethod, breaker.Hearsay)
		for _, wait := range []time.Duration{5 * time.Second, 10 * time.Second} {
			pass(wait)
			f.fail(1)
		}
		f.is(postMethod, breaker.Open)
		if r := f.rejected(postMethod); r.By != "" {
			t.Errorf("rejected by %q", r.By)
		}
	})
}

// A policy bounds what a verdict does, and does so at once.
func TestPolicyBoundsVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		is := func(post, put breaker.State) {
			t.Helper()
			f.is(postMethod, post)
			f.is(putMethod, put)
		}
		let := func(suspecting, idle policy.FleetMode) {
			f.policy.Fleet.Mode, f.policy.FleetWithoutTraffic.Mode = suspecting, idle
			f.apply(said{})
		}
		f.policy.CircuitBreaker.Ramp = nil
		let(policy.FleetEnforce, policy.FleetAdvise)
		f.target(putMethod)
		f.fail(2)
		f.store().Heed(believed(true))
		is(breaker.Hearsay, breaker.Closed)
		let(policy.FleetAdvise, policy.FleetOff)
		is(breaker.Closed, breaker.Closed)
		f.fail(2)
		is(breaker.Closed, breaker.Closed)
		let(policy.FleetOff, policy.FleetEnforce)
		is(breaker.Closed, breaker.Hearsay)
		let(policy.FleetEnforce, policy.FleetEnforce)
		is(breaker.Hearsay, breaker.Hearsay)
		f.store().Heed(FleetVerdict{Mode: policy.FleetAdvise, WithoutTraffic: true})
		is(breaker.Closed, breaker.Closed)
		f.store().Heed(FleetVerdict{Mode: "by another version"})
		if v := f.Stats().Dependencies[0].Fleet; v != (FleetVerdict{}) {
			t.Errorf("shows %+v", v)
		}
	})
}

// Advice changes nothing. It is logged once, and calls are counted that were made in spite
// of it.
func TestAdvice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		f := newFixture(t, nil)
		f.config.Logger = slog.New(slog.NewTextHandler(&lines, nil))
		advice := FleetVerdict{Mode: policy.FleetAdvise, WithoutTraffic: true, Reason: "3 of 3 hosts"}
		advised := func(method string, want uint64) {
			t.Helper()
			if s := f.stats(method); s.Advised != want || s.Hearsay != 0 || len(s.Rejected) != 0 || s.Breaker.State != breaker.Closed {
				t.Errorf("counted %+v of %s, want %d", s, method, want)
			}
		}
		f.target(putMethod)
		f.ok(readMethod, 1)
		f.fail(2)
		for range 3 {
			f.store().Heed(advice)
		}
		f.fail(1)
		f.ok(readMethod, 1)
		f.ok(putMethod, 2)
		advised(postMethod, 1)
		advised(readMethod, 0)
		advised(putMethod, 2)
		f.ok(putMethod, 1) // the third good one
		f.store().Heed(advice)
		f.ok(putMethod, 1)
		advised(putMethod, 3)
		f.store().Heed(FleetVerdict{})
		f.fail(1)
		advised(postMethod, 1)
		if log := lines.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, `dependency=store reason="3 of 3 hosts"`) {
			t.Errorf("logged %s", log)
		}
		pass(3 * time.Second) // until nothing shows that all is well
		f.store().Heed(advice)
		f.ok(postMethod, 1)
		advised(postMethod, 2)
		if n := strings.Count(lines.String(), "\n"); n != 2 {
			t.Errorf("logged %d times", n)
		}
	})
}

// Observed, the same happens, and calls pass.
func TestObserveHearsay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) { heeding(p); observing(p) })
		f.fail(2)
		f.store().Heed(believed(false))
		f.fail(5)
		if s := f.stats(postMethod); s.Breaker.State != breaker.Hearsay || s.Observed[BreakerOpen] != 5 || s.Hearsay != 5 || len(s.Rejected) != 0 || s.Breaker.Counts.Failures != 2 {
			t.Errorf("counted %+v", s)
		}
	})
}

// An operator's word counts, not that of the fleet.
func TestHoldBeatsHearsay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, heeding)
		held := func(open bool) said {
			return said{holds: map[string]flags.Hold{"store": {Dependency: "store", Open: open, Override: "x"}}}
		}
		f.fail(2)
		f.store().Heed(believed(true))
		f.apply(held(true))
		if r := f.rejected(postMethod); r.By != "override/x" {
			t.Errorf("rejected by %q", r.By)
		}
		f.apply(held(false))
		f.ok(postMethod, 1)
		f.store().Heed(believed(true))
		f.is(postMethod, breaker.ForcedClosed)
		f.apply(said{})
		f.is(postMethod, breaker.Closed) // it was called, and well
		f.fail(2)
		f.is(postMethod, breaker.Hearsay)
		if e := f.events[len(f.events)-1]; e.By != "3 of 3 hosts" {
			t.Errorf("told %+v", e)
		}
	})
}

// Server stands for the instance itself, which asks nobody about itself.
func TestFleetOfServers(t *testing.T) {
	f := newFixture(t, nil)
	d := f.Server("store")
	d.Target(putMethod, Method)
	d.Heed(believed(true))
	if e := d.Evidence(); e != (Evidence{Dependency: "server:store"}) || d.Postpone(0, 0) || d.Unpostpone(0) || d.Recover(0) || f.Evidence() != nil {
		t.Errorf("%+v", e)
	}
}

// Without a verdict the guard does what it does without a fleet, event by event.
func TestSameTraceWithoutVerdicts(t *testing.T) {
	trace := func(listens bool) (all []BreakerEvent) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, func(p *policy.Policy) { p.CircuitBreaker.Jitter = 0.2 })
			if listens {
				f.config.OnSuspicion = func(d *Dependency) {
					d.Evidence()
					d.Heed(FleetVerdict{})
				}
			}
			for n := range 3000 {
				code := codes.OK
				if n%700 > 300 && n%3 > 0 {
					code = codes.Internal
				}
				_ = f.call(t.Context(), &scripted{method: []string{postMethod, putMethod}[n%2], steps: []step{{code: code, took: 333}}})
				pass(20 * ms)
			}
			all = f.events
		})
		return all
	}
	with, without := trace(true), trace(false)
	if len(without) < 20 || !slices.Equal(with, without) {
		t.Errorf("%d events, %d without", len(with), len(without))
	}
}

// Whoever ends a verdict at the instant in which a call begins to heed it, it is not heeded
// any more.
func TestNothingHeedsTheDead(t *testing.T) {
	const rounds = 6000
	target, _ := measured(t, false, func(p *policy.Policy) {
		p.CircuitBreaker.FailureThreshold, p.CircuitBreaker.FailureRatio, p.CircuitBreaker.Ramp = 0, 0, nil
		p.Fleet.SuspicionThreshold = 1
	})
	d, now := target.dependency, target.clock.Now()
	var ready, begun, ended atomic.Int64
	await := func(n *atomic.Int64, want int64) {
		for spins := 0; n.Load() != want; spins++ {
			if spins > 300 {
				runtime.Gosched()
			}
		}
	}
	var other sync.WaitGroup
	other.Go(func() {
		for i := range int64(rounds) {
			await(&ready, i+1)
			begun.Store(i + 1)
			target.failed(now)
			ended.Store(i + 1)
		}
	})
	for i := range int64(rounds) {
		d.Heed(believed(false))
		target.breaker.Record(now, target.breaker.Admit(now).Ticket, breaker.Failure, 0)
		ready.Store(i + 1)
		if i%2 == 0 {
			await(&begun, i+1)
		}
		for range i % 512 {
			ended.Load()
		}
		d.Heed(FleetVerdict{})
		await(&ended, i+1)
		if s := target.breaker.Snapshot(now); s.State != breaker.Closed {
			t.Fatalf("round %d: %s by nobody's hearsay", i, s.State)
		}
		target.breaker.Force(now, true)
		target.breaker.Force(now, false)
		target.breaker.Release(now)
	}
	other.Wait()
	if n := target.counters.sum(transitions + counter(breaker.Hearsay)); n == 0 {
		t.Errorf("heeded %d times: it tries too little", n)
	}
}
