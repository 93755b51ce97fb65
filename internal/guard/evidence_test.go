package guard

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// What is said of a dependency is what its targets saw together.
func TestEvidence(t *testing.T) {
	fail := func(f *fixture, method string, n int) {
		for range n {
			_ = f.call(f.Context(), &scripted{method: method, steps: []step{{code: codes.Internal}}})
		}
	}
	for name, c := range map[string]struct {
		do   func(f *fixture)
		want Evidence
	}{
		"nobody calls": {
			func(f *fixture) { f.target(postMethod) },
			Evidence{Generation: 1},
		},
		"all is well": {
			func(f *fixture) { f.ok(postMethod, 3); f.ok(putMethod, 4) },
			Evidence{Generation: 2, Calls: 7, Successes: 7, Targets: 2},
		},
		"all was well": {
			func(f *fixture) { f.ok(postMethod, 3); pass(5 * time.Second) },
			Evidence{Generation: 1, Calls: 3, Targets: 1, Since: 5 * time.Second},
		},
		"failures of several targets are a suspicion": {
			func(f *fixture) { fail(f, postMethod, 1); f.ok(postMethod, 1); fail(f, putMethod, 1) },
			Evidence{Generation: 2, Calls: 3, Failures: 2, Successes: 1, Targets: 2, Suspects: true},
		},
		"it was well until a moment ago": {
			func(f *fixture) { f.ok(postMethod, 5); f.fail(2) },
			Evidence{Generation: 1, Calls: 7, Failures: 2, Targets: 1, Suspects: true},
		},
		"one failure among successes says nothing against them": {
			func(f *fixture) { f.ok(postMethod, 5); f.fail(1) },
			Evidence{Generation: 1, Calls: 6, Failures: 1, Successes: 5, Targets: 1},
		},
		"open, and another target did well until a moment ago": {
			func(f *fixture) { f.fail(5); f.ok(putMethod, 6); fail(f, putMethod, 2) },
			Evidence{
				State: breaker.Open, Suspects: true, Reason: breaker.TooManyFailures, Generation: 3,
				Calls: 13, Failures: 7, Targets: 2, OpenTargets: 1, ProbeIn: 5 * time.Second, ProbeOwn: 5 * time.Second,
			},
		},
		"open": {
			func(f *fixture) { f.ok(postMethod, 2); f.fail(5); pass(2 * time.Second) },
			Evidence{
				State: breaker.Open, Suspects: true, Reason: breaker.TooManyFailures, Since: 2 * time.Second, Generation: 2,
				Calls: 7, Failures: 5, Targets: 1, OpenTargets: 1, ProbeIn: 3 * time.Second, ProbeOwn: 3 * time.Second,
			},
		},
		"open, and another target fails too": {
			func(f *fixture) { f.fail(5); fail(f, putMethod, 2); f.ok(putMethod, 1) },
			Evidence{
				State: breaker.Open, Suspects: true, Reason: breaker.TooManyFailures, Generation: 3,
				Calls: 8, Failures: 7, Successes: 1, Targets: 2, OpenTargets: 1, ProbeIn: 5 * time.Second, ProbeOwn: 5 * time.Second,
			},
		},
		"open, but another target does well": {
			func(f *fixture) { f.fail(5); f.ok(putMethod, 3) },
			Evidence{
				Suspects: true, Generation: 3, Calls: 8, Failures: 5, Successes: 3,
				Targets: 2, OpenTargets: 1, ProbeIn: 5 * time.Second, ProbeOwn: 5 * time.Second,
			},
		},
		"open, and another target succeeds now and then": {
			func(f *fixture) { f.fail(5); fail(f, putMethod, 3); f.ok(putMethod, 3) },
			Evidence{
				State: breaker.Open, Suspects: true, Reason: breaker.TooManyFailures, Generation: 3,
				Calls: 11, Failures: 8, Successes: 3, Targets: 2, OpenTargets: 1, ProbeIn: 5 * time.Second, ProbeOwn: 5 * time.Second,
			},
		},
		"two probed, the last answer counts": {
			func(f *fixture) {
				f.fail(5)
				fail(f, putMethod, 5)
				pass(5 * time.Second)
				f.fail(1)
				pass(time.Second)
				f.ok(putMethod, 1)
				pass(time.Second)
			},
			Evidence{
				State: breaker.Open, Suspects: true, Reason: breaker.TooManyFailures, Since: 2 * time.Second, Generation: 7,
				Calls: 11, Failures: 10, Successes: 1, Targets: 2, OpenTargets: 2, ProbeIn: 8 * time.Second, ProbeOwn: 8 * time.Second,
				Probe: breaker.GoodProbe, ProbeAge: time.Second,
			},
		},
		"two open, the earlier one probes first": {
			func(f *fixture) { f.fail(5); pass(time.Second); fail(f, putMethod, 5) },
			Evidence{
				State: breaker.Open, Suspects: true, Reason: breaker.TooManyFailures, Since: time.Second, Generation: 4,
				Calls: 10, Failures: 10, Targets: 2, OpenTargets: 2, ProbeIn: 4 * time.Second, ProbeOwn: 4 * time.Second,
			},
		},
		"a probe has failed": {
			func(f *fixture) { f.fail(5); pass(5 * time.Second); f.fail(1); pass(time.Second) },
			Evidence{
				State: breaker.Open, Suspects: true, Reason: breaker.TooManyFailures, Since: time.Second, Generation: 4,
				Calls: 5, Failures: 5, Targets: 1, OpenTargets: 1, ProbeIn: 9 * time.Second, ProbeOwn: 9 * time.Second,
				Probe: breaker.BadProbe, ProbeAge: time.Second,
			},
		},
		"a probe is under way": {
			func(f *fixture) {
				f.fail(5)
				pass(5 * time.Second)
				go func() { _ = f.call(f.Context(), &scripted{method: postMethod, steps: []step{{took: time.Second}}}) }()
				synctest.Wait()
			},
			Evidence{
				State: breaker.HalfOpen, Suspects: true, Reason: breaker.TooManyFailures, Generation: 3,
				Calls: 5, Failures: 5, Targets: 1, OpenTargets: 1, Probing: 1,
			},
		},
		"it recovers": {
			func(f *fixture) { f.fail(5); pass(5 * time.Second); f.ok(postMethod, 2) },
			Evidence{
				State: breaker.Recovering, Suspects: true, Reason: breaker.TooManyFailures, Generation: 4,
				Calls: 5, Failures: 5, Targets: 1, Probe: breaker.GoodProbe,
			},
		},
		"open, and nobody calls any more": {
			func(f *fixture) { f.fail(5); pass(15 * time.Second) },
			Evidence{Generation: 2},
		},
		"hearsay is no evidence, but shows": {
			func(f *fixture) {
				f.target(putMethod)
				f.fail(2)
				f.store().Heed(believed(true))
				pass(time.Second / 2)
				f.rejected(postMethod)
			},
			Evidence{State: breaker.Hearsay, Suspects: true, Since: time.Second / 2, Generation: 2, Calls: 2, Failures: 2, Targets: 2, HearsayTargets: 2},
		},
		"so it does without calls": {
			func(f *fixture) { f.target(putMethod); f.store().Heed(believed(true)); pass(time.Minute) },
			Evidence{State: breaker.Hearsay, Since: time.Minute, Generation: 1, HearsayTargets: 1},
		},
		"an operator's word is none": {
			func(f *fixture) {
				f.fail(5)
				f.target(putMethod)
				f.apply(said{holds: map[string]flags.Hold{"store": {Dependency: "store", Method: postMethod, Open: true, Override: "x"}}})
				f.ok(putMethod, 1)
			},
			Evidence{Generation: 4, Calls: 1, Successes: 1, Targets: 1, Held: 1},
		},
		"released, it has not seen anything yet": {
			func(f *fixture) {
				f.ok(postMethod, 3)
				f.apply(said{holds: map[string]flags.Hold{"store": {Dependency: "store", Open: true, Override: "x"}}})
				pass(time.Minute)
				f.apply(said{})
			},
			Evidence{Generation: 3, Targets: 1},
		},
		"released, its probe finds it broken": {
			func(f *fixture) {
				f.ok(postMethod, 3)
				f.apply(said{holds: map[string]flags.Hold{"store": {Dependency: "store", Open: true, Override: "x"}}})
				pass(time.Minute)
				f.apply(said{})
				fail(f, postMethod, 1)
			},
			Evidence{
				State: breaker.Open, Reason: breaker.Released, Generation: 5, Calls: 1, Failures: 1, Targets: 1, OpenTargets: 1,
				ProbeIn: 5 * time.Second, ProbeOwn: 5 * time.Second, Probe: breaker.BadProbe,
			},
		},
		"held closed it still counts": {
			func(f *fixture) {
				f.target(postMethod)
				f.apply(said{holds: map[string]flags.Hold{"store": {Dependency: "store", Override: "x"}}})
				f.fail(7)
			},
			Evidence{Suspects: true, Generation: 2, Calls: 7, Failures: 7, Held: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(p *policy.Policy) { heeding(p); p.CircuitBreaker.FailureRatio = 0 })
				c.do(f)
				c.want.Dependency = "store"
				if got := f.store().Evidence(); got != c.want {
					t.Errorf("got  %+v\nwant %+v", got, c.want)
				}
				pass(time.Minute)
			})
		})
	}
}

// All dependencies that are called have a say, those without names of their own aside.
func TestEvidenceOfAll(t *testing.T) {
	f := newFixture(t, nil)
	f.Server("shop").Target(putMethod, Method)
	for _, name := range []string{"store", "bank", Others} {
		target := f.Dependency(name).Target("x", Operation)
		_ = target.Call(t.Context(), target.Now(), instant{})
	}
	var names []string
	for _, e := range f.Evidence() {
		names = append(names, e.Dependency)
	}
	if want := []string{"bank", "store"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}
