package guard

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// suspicions is a guard that tells of them.
func suspicions(t *testing.T, change func(*policy.Policy)) (*fixture, *[]string) {
	t.Helper()
	f, told := newFixture(t, change), new([]string)
	var mu sync.Mutex
	f.config.OnSuspicion = func(d *Dependency) {
		e := d.Evidence() // it may ask
		d.Heed(FleetVerdict{})
		mu.Lock()
		defer mu.Unlock()
		*told = append(*told, fmt.Sprintf("%s %s %d", d.Name(), e.State, e.Failures))
	}
	return f, told
}

// It is told once there are failures enough, of all targets together, and not at each.
func TestOnSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, told := suspicions(t, nil)
		expect := func(want ...string) {
			t.Helper()
			if !slices.Equal(*told, want) {
				t.Errorf("told %q, want %q", *told, want)
			}
			*told = nil
		}
		fail := func(method string) {
			_ = f.call(t.Context(), &scripted{method: method, steps: []step{{code: codes.Internal}}})
		}
		fail(postMethod)
		f.ok(postMethod, 5)
		expect()
		fail(putMethod)
		expect("store closed 2")
		fail(putMethod)
		pass(49 * ms)
		fail(putMethod)
		expect()
		pass(ms)
		fail(putMethod)
		expect("store closed 5")
		pass(time.Minute)
		fail(readMethod)
		expect()
	})
}

// It is told of each change of a breaker, and of each end of a probe.
func TestOnSuspicionOfProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, told := suspicions(t, func(p *policy.Policy) { p.CircuitBreaker.Ramp = nil })
		f.fail(5)
		pass(5 * time.Second)
		*told = nil
		f.ok(postMethod, 2)
		// It begins to probe, the first probe ends, the second one closes it.
		if want := []string{"store half-open 5", "store half-open 5", "store closed 0"}; !slices.Equal(*told, want) {
			t.Errorf("told %q, want %q", *told, want)
		}
		if e := f.store().Evidence(); e.Probe != breaker.GoodProbe || e.ProbeAge != 0 {
			t.Errorf("%+v", e)
		}
	})
}

// Who does not listen to others is not asked to, and who panics harms nobody.
func TestOnSuspicionOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, told := suspicions(t, func(p *policy.Policy) { p.Fleet.Mode = policy.FleetOff })
		f.fail(4)
		if len(*told) != 0 {
			t.Errorf("told %q", *told)
		}
		f = newFixture(t, nil)
		f.config.OnSuspicion = func(*Dependency) { panic("deaf") }
		f.fail(5)
		f.is(postMethod, breaker.Open)
	})
}
