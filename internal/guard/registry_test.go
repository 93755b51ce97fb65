package guard

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

func TestNamesAreBounded(t *testing.T) {
	g := New(Config{Clock: clock.Manual(time.Unix(0, 0))})
	first := g.Dependency("0")
	for i := range maxDependencies + 10 {
		g.Dependency(fmt.Sprint(i))
	}
	others := g.Dependency("yet another")
	if others.Name() != Others || g.Dependency("and another") != others || g.Dependency(fmt.Sprint(maxDependencies-1)) == others || g.Dependency("0") != first {
		t.Errorf("beyond the limit there is %q", others.Name())
	}
	if n := len(g.Stats().Dependencies); n != maxDependencies+1 {
		t.Errorf("there are %d dependencies", n)
	}
	target := first.Target("0", Method)
	for i := range maxTargets + 10 {
		first.Target(fmt.Sprint(i), Method)
	}
	for _, kind := range []Kind{Method, Operation} {
		rest := first.Target("yet another", kind)
		if rest.Name() != Others || rest.kind != kind || first.Target("and another", kind) != rest || first.Target("0", Method) != target || target == rest {
			t.Errorf("beyond the limit there is %q of kind %d", rest.Name(), rest.kind)
		}
	}
	if n := len(g.Stats().Dependencies[1].Targets); g.Stats().Dependencies[1].Name != "0" || n != maxTargets+2 {
		t.Errorf("there are %d targets", n)
	}
}

func TestSameNamesSameThings(t *testing.T) {
	g := New(Config{Clock: clock.Manual(time.Unix(0, 0))})
	var made [8]*Target
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() { made[i] = g.Dependency("store").Target("x", Method) })
	}
	all.Wait()
	for _, target := range made {
		if target != made[0] {
			t.Fatal("two goroutines got different targets")
		}
	}
	d := made[0].Dependency()
	if d != g.Dependency("store") || d.Name() != "store" || made[0].Name() != "x" || d.Target("x", Operation) == made[0] {
		t.Error("the target is mixed up")
	}
	if g.Server("store").Name() != "server:store" {
		t.Errorf("the server is %q", g.Server("store").Name())
	}
	if n := testing.AllocsPerRun(100, func() { g.Dependency("store").Target("x", Method).Now() }); n != 0 {
		t.Errorf("looking it up allocates %v times", n)
	}
}

// What was seen stays when settings change, and calls keep the setting that they
// began with.
func TestApplyKeepsWhatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.fail(4)
		old := f.target(postMethod).Now()
		f.policy.CircuitBreaker.Timeout = 3 * time.Second
		f.policy.Timeouts.Call = time.Second
		f.policy.Bulkhead.MaxConcurrent = 3
		f.policy.Retry.Budget.MinPerSecond = 7
		f.apply(said{})
		d := f.Stats().Dependencies[0]
		if s := f.stats(postMethod); s.Breaker.Counts.Failures != 4 || d.Limit != 3 || d.RetryTokens < 70 {
			t.Errorf("it is %+v", d)
		}
		if now := f.target(postMethod).Now(); old.Policy.Timeouts.Call != 10*time.Second || now.Policy.Timeouts.Call != time.Second || now.Policy != f.Dependency("store").Policy() {
			t.Error("the setting is not the new one")
		}
		f.fail(1)
		if s := f.stats(postMethod); s.Breaker.OpenFor != 3*time.Second {
			t.Errorf("it is %+v", s.Breaker)
		}
		before := f.Dependency("store").Policy()
		f.apply(said{})
		if f.Dependency("store").Policy() != before {
			t.Error("the same settings are new ones")
		}
	})
}

// panicking are rules with a bug.
type panicking struct{ Rules }

func (panicking) Policy(string) policy.Policy { panic("bug") }

// TestApplyMayPanic: a bug in the rules is the caller's to contain; calls of new targets do
// not wait for ever because of it.
func TestApplyMayPanic(t *testing.T) {
	g := New(Config{Clock: clock.Manual(time.Unix(0, 0))})
	d := g.Dependency("store")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic got lost")
			}
		}()
		g.Apply(panicking{})
	}()
	if !g.mu.TryLock() {
		t.Fatal("it is locked for ever")
	}
	g.mu.Unlock()
	g.Apply(nil)
	d.Target("/a/b", Method)
}

func TestSetting(t *testing.T) {
	reject, fallback := &flags.MethodEffect{Action: flags.Reject}, &flags.MethodEffect{Action: flags.Fallback}
	f := newFixture(t, func(p *policy.Policy) { p.Enforcement = policy.Observe })
	f.apply(said{plans: map[flags.Side]flags.Plan{flags.ClientSide: {Reject: reject}, 0: {Fallback: fallback}}})
	for _, c := range []struct {
		target                    *Target
		idempotent, noSideEffects bool
		plan                      flags.Plan
	}{
		{f.target(readMethod), true, true, flags.Plan{Reject: reject}},
		{f.target(putMethod), true, false, flags.Plan{Reject: reject}},
		{f.target(postMethod), false, false, flags.Plan{Reject: reject}},
		{f.target("/guardtest.Store"), false, false, flags.Plan{Reject: reject}},
		{f.target(""), false, false, flags.Plan{Reject: reject}},
		{f.Dependency("store").Target(readMethod, Operation), false, false, flags.Plan{Fallback: fallback}},
		{f.Server("store").Target(readMethod, Operation), false, false, flags.Plan{}},
	} {
		s := c.target.Now()
		if s.Idempotent != c.idempotent || s.NoSideEffects != c.noSideEffects || s.Plan != c.plan || s.Enforce || s.Disabled {
			t.Errorf("%s: %+v", c.target.Name(), s)
		}
	}
}

// Every setting of the breaker that a policy has reaches it.
func TestBreakerSettings(t *testing.T) {
	p := policy.Default()
	v := reflect.ValueOf(&p.CircuitBreaker).Elem()
	for i := range v.NumField() {
		field := v.Type().Field(i).Name
		if field == "FailureCodes" {
			continue
		}
		before := breakerSettings(&p)
		switch f := v.Field(i); f.Kind() {
		case reflect.Int, reflect.Int64:
			f.SetInt(f.Int() + 1)
		case reflect.Float64:
			f.SetFloat(f.Float() + 0.01)
		default:
			f.Set(reflect.ValueOf([]float64{0.5}))
		}
		if reflect.DeepEqual(before, breakerSettings(&p)) {
			t.Errorf("%s does not", field)
		}
	}
	for field, change := range map[string]func(){
		"veto successes": func() { p.Fleet.VetoSuccesses++ },
		"veto window":    func() { p.Fleet.VetoWindow++ },
		"canary":         func() { p.Fleet.Canary++ },
	} {
		before := breakerSettings(&p)
		if change(); reflect.DeepEqual(before, breakerSettings(&p)) {
			t.Errorf("%s does not", field)
		}
	}
}

// Guards of different instances do not open, probe and retry at the same times.
func TestSeeds(t *testing.T) {
	pauses := map[time.Duration]bool{}
	for seed := range uint64(4) {
		for _, method := range []string{putMethod, readMethod} {
			g := New(Config{Clock: clock.Manual(time.Unix(0, 0)), Seed: seed})
			target := g.Dependency("store").Target(method, Method)
			for range 5 {
				_ = target.Call(t.Context(), target.Now(), &scripted{steps: []step{{code: codes.Internal}}})
			}
			s := target.stats(0).Breaker
			if s.State != breaker.Open {
				t.Fatal(s.State)
			}
			pauses[s.OpenFor] = true
			if a, b := g.draw(), g.draw(); a == b || a < 0 || a >= 1 {
				t.Errorf("drew %v and %v", a, b)
			}
		}
	}
	if len(pauses) != 8 {
		t.Errorf("8 breakers are open for %d different times", len(pauses))
	}
}
