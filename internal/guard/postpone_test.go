package guard

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// What probes of others found counts for the evidence that it was compared with.
func TestPostponeAndRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.fail(5)
		before := f.store().Evidence()
		if before.ProbeIn != 5*time.Second || !f.store().Postpone(before.Generation, 20*time.Second) {
			t.Fatalf("%+v", before)
		}
		if e := f.store().Evidence(); e.ProbeIn != 20*time.Second || e.ProbeOwn != 5*time.Second || f.rejected(postMethod).RetryAfter != 20*time.Second {
			t.Errorf("%+v", e)
		}
		if !f.store().Postpone(before.Generation, -time.Hour) || f.store().Evidence().ProbeIn != 0 {
			t.Errorf("%+v", f.store().Evidence())
		}
		f.fail(1) // the probe
		if f.store().Postpone(before.Generation, 0) || f.store().Recover(before.Generation) {
			t.Error("done to another round")
		}
		f.is(postMethod, breaker.Open)
		if !f.store().Postpone(f.store().Evidence().Generation, 1<<62) {
			t.Error("not postponed")
		}
		if in := f.store().Evidence().ProbeIn; in != 10*time.Second+10*time.Minute {
			t.Errorf("postponed to %v", in)
		}
		if !f.store().Recover(f.store().Evidence().Generation) {
			t.Error("not recovered")
		}
		if e := f.events[len(f.events)-1]; e.To != breaker.Recovering || e.Reason != breaker.FleetProbes || e.By != "" {
			t.Errorf("told %+v", e)
		}
	})
}

// What a server ordered stands, and is not counted as a recovery by anybody.
func TestRecoverNotWhatAServerOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		target := f.store().Target(postMethod, Method)
		p, err := target.Admit(t.Context(), target.Now())
		if err != nil {
			t.Fatal(err)
		}
		p.Done(Result{Code: codes.Unavailable, PushedBack: true, PushBack: time.Minute}, 0)
		f.is(postMethod, breaker.Open)
		if f.store().Recover(f.store().Evidence().Generation) {
			t.Error("it says that something recovers")
		}
		f.is(postMethod, breaker.Open)
	})
}

// Targets that opened one after the other probe one after the other, whenever that is.
func TestPostponeKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.fail(5)
		pass(time.Second)
		for range 5 {
			_ = f.call(t.Context(), &scripted{method: putMethod, steps: []step{{code: codes.Internal}}})
		}
		waits := func(post, put time.Duration) {
			t.Helper()
			for method, want := range map[string]time.Duration{postMethod: post, putMethod: put} {
				if got := f.rejected(method).RetryAfter; got != want {
					t.Errorf("%s waits for %v, want %v", method, got, want)
				}
			}
		}
		generation := f.store().Evidence().Generation
		for range 2 {
			f.store().Postpone(generation, 20*time.Second)
			waits(20*time.Second, 21*time.Second)
		}
		if f.store().Unpostpone(generation-1) || !f.store().Unpostpone(generation) {
			t.Error("unpostponed another round")
		}
		waits(4*time.Second, 5*time.Second)
	})
}
