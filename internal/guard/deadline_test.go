package guard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// until is a context that ends after so long; below 0 never.
func until(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	if d < 0 {
		return t.Context()
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		policy  func(*policy.Timeouts)
		caller  time.Duration // -1: none
		hop     bool
		left    time.Duration // 0: none
		refused bool
		same    bool // the context is the caller's own
	}{
		"none":                        {caller: -1, left: 10 * time.Second},
		"later":                       {caller: 11 * time.Second, left: 10 * time.Second},
		"earlier":                     {caller: 9 * time.Second, left: 9 * time.Second, same: true},
		"of the target":               {caller: -1, policy: func(p *policy.Timeouts) { p.Named = map[string]time.Duration{putMethod: time.Second} }, left: time.Second},
		"none by policy":              {caller: -1, policy: func(p *policy.Timeouts) { p.Call = 0 }, left: 0, same: true},
		"hop":                         {caller: time.Second, hop: true, left: time.Second - 5*time.Millisecond},
		"hop without a deadline":      {caller: -1, hop: true, left: 10 * time.Second},
		"hop, later":                  {caller: 20 * time.Second, hop: true, left: 10 * time.Second},
		"per attempt":                 {caller: -1, policy: func(p *policy.Timeouts) { p.PerAttempt = time.Second }, left: time.Second},
		"per attempt longer":          {caller: time.Second, policy: func(p *policy.Timeouts) { p.PerAttempt = 2 * time.Second }, left: time.Second, same: true},
		"just enough":                 {caller: time.Millisecond, left: time.Millisecond, same: true},
		"too little":                  {caller: time.Millisecond - 1, refused: true},
		"too little for a hop":        {caller: 6*time.Millisecond - 1, hop: true, refused: true},
		"over":                        {caller: 0, refused: true},
		"over, with no minimum":       {caller: 0, policy: func(p *policy.Timeouts) { p.Minimum = 0 }, refused: true},
		"a probe has time of its own": {caller: -1, left: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(p *policy.Policy) {
					if c.policy != nil {
						c.policy(&p.Timeouts)
					}
				})
				if name == "a probe has time of its own" {
					f.target(putMethod).breaker.Force(0, true)
					f.target(putMethod).breaker.Release(0)
				}
				ctx, call := until(t, c.caller), attempts(codes.OK)
				if c.hop {
					ctx = WithHop(ctx)
				}
				err := f.call(ctx, call)
				if c.refused {
					if len(call.list()) > 0 || !errors.Is(err, DeadlineTooNear) || !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
						t.Errorf("made %d attempts, got %v", len(call.list()), err)
					}
					if s := f.stats(putMethod); s.Rejected[DeadlineTooNear] != 1 || s.Calls != 1 || s.Attempts != 0 {
						t.Errorf("counted %+v", s)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := call.list()[0]; got.left != c.left || (got.ctx == ctx) != c.same {
					t.Errorf("has %v, the caller's context: %v", got.left, got.ctx == ctx)
				}
				if !c.same && call.list()[0].ctx.Err() == nil {
					t.Error("the context goes on after the call")
				}
			})
		})
	}
}

// A deadline that says nothing of the monotonic clock, and a clock that does not run.
func TestLeft(t *testing.T) {
	c := clock.New()
	in := time.Now().Add(time.Hour)
	for name, left := range map[string]time.Duration{
		"monotonic": c.Left(in, c.Now()), "wall": c.Left(in.Round(0), -int64(time.Hour)),
		"manual": clock.Manual(time.Unix(0, 0)).Left(in, 0),
	} {
		if left > time.Hour || left < time.Hour-time.Minute {
			t.Errorf("%s: %v left", name, left)
		}
	}
}

func TestDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		for _, target := range []*Target{f.target(putMethod), f.Server("store").Target(putMethod, Method)} {
			if err := target.Due(t.Context(), target.Now()); err != nil {
				t.Errorf("no deadline: %v", err)
			}
			if err := target.Due(until(t, time.Millisecond), target.Now()); err != nil {
				t.Errorf("enough: %v", err)
			}
			var r *Rejection
			if err := target.Due(until(t, time.Millisecond-1), target.Now()); !errors.As(err, &r) || r.Reason != DeadlineTooNear || r.Target != putMethod {
				t.Errorf("too little: %v", err)
			}
			if n := target.stats(0).Rejected[DeadlineTooNear]; n != 1 {
				t.Errorf("counted %d", n)
			}
		}
		f.policy.Enforcement = policy.Observe
		f.apply(said{})
		target := f.target(putMethod)
		if err := target.Due(until(t, 0), target.Now()); err != nil || target.stats(0).Observed[DeadlineTooNear] != 1 {
			t.Errorf("observed: %v", err)
		}
	})
}
