package clienttest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

// charge is a service's own code under test.
func charge(ctx context.Context, cp *client.Client, fail bool) (string, error) {
	return client.Do(ctx, cp, "payments", func(context.Context) (string, error) {
		if fail {
			return "", status.Error(codes.Unavailable, "down")
		}
		return "paid", nil
	})
}

func TestFlagsAndModes(t *testing.T) {
	plane := clienttest.New(t)
	cp := plane.Client()
	beta, limit, name := cp.Bool("beta", false), cp.Int("limit", 1), cp.String("name", "x")
	plane.SetFlag("beta", true)
	plane.SetFlag("limit", 50)
	plane.SetFlag("name", "gold")
	if !beta.Get() || limit.Get() != 50 || name.Get() != "gold" {
		t.Errorf("got %v, %d, %q", beta.Get(), limit.Get(), name.Get())
	}
	plane.Define("flag", "split", `{"state":"ENABLED","variants":{"a":true,"b":false},"defaultVariant":"b",
		"targeting":{"if":[{"==":[{"var":"plan"},"gold"]},"a",null]}}`)
	if split := cp.Bool("split", false); !split.Get(client.String("plan", "gold")) || split.Get() {
		t.Error("the rule is not followed")
	}
	plane.Define("mode", "storefront", `{"levels":[{"name":"read-only","effects":[
		{"action":"reject","side":"client","operations":["payments"],"code":"UNAVAILABLE","retry_after":"30s"}]}]}`)
	plane.SetModeFor("storefront", "read-only", time.Minute)
	_, err := charge(t.Context(), cp, false)
	var r *client.Rejection
	if !errors.As(err, &r) || !errors.Is(err, client.Degraded) || r.By != "mode/storefront=read-only" || r.RetryAfter != 30*time.Second {
		t.Errorf("a call in read-only: %v", err)
	}
	plane.Advance(time.Minute)
	if got, err := charge(t.Context(), cp, false); got != "paid" || err != nil || cp.Mode("storefront").Level().Rank != 0 {
		t.Errorf("after a minute: %q, %v, level %+v", got, err, cp.Mode("storefront").Level())
	}
	if s := cp.Status(); s.Source != client.FromTest || len(s.Problems) > 0 {
		t.Errorf("status: %+v", s)
	}
}

func TestBreakerWithTheClockOfTheTest(t *testing.T) {
	plane := clienttest.New(t)
	plane.SetPolicy("payments", `{"circuit_breaker":{"failure_threshold":2,"timeout":"10s","jitter":0,"success_threshold":1,"ramp":[]},"retry_policy":{"max_attempts":1}}`)
	cp := plane.Client()
	for range 2 {
		if _, err := charge(t.Context(), cp, true); status.Code(err) != codes.Unavailable || errors.Is(err, client.Rejected) {
			t.Fatalf("a failing call: %v", err)
		}
	}
	if _, err := charge(t.Context(), cp, false); !errors.Is(err, client.BreakerOpen) {
		t.Errorf("the breaker should be open: %v", err)
	}
	plane.Advance(10 * time.Second)
	if got, err := charge(t.Context(), cp, false); got != "paid" || err != nil {
		t.Errorf("the probe: %q, %v", got, err)
	}
	plane.HoldBreaker("payments", true)
	if _, err := charge(t.Context(), cp, false); !errors.Is(err, client.BreakerOpen) {
		t.Errorf("held open: %v", err)
	}
	plane.ReleaseBreaker("payments")
	plane.HoldBreaker("payments", false)
	for range 5 {
		if _, err := charge(t.Context(), cp, true); errors.Is(err, client.BreakerOpen) {
			t.Fatalf("held closed: %v", err)
		}
	}
}

func TestFallbackOfAPolicy(t *testing.T) {
	plane := clienttest.New(t)
	cp := plane.Client()
	cp.RegisterFallback("payments", func(_ context.Context, call client.Call) (any, error) {
		if call.Cause == nil {
			return nil, errors.New("no cause")
		}
		return "later", nil
	})
	if got, err := charge(t.Context(), cp, true); got != "later" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// With a running clock the test can be in a bubble, where pauses take no time.
func TestInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plane := clienttest.New(t, clienttest.RunningClock(), clienttest.Config(client.Config{Service: "checkout"}))
		plane.SetPolicy("payments", `{"retry_policy":{"max_attempts":3,"idempotent":["*"],"initial_delay":"1s","jitter":"none","backoff":"exponential","multiplier":2},"timeouts":{"call":"1h"}}`)
		begin, n := time.Now(), 0
		got, err := client.Do(t.Context(), plane.Client(), "payments", func(context.Context) (string, error) {
			if n++; n < 3 {
				return "", status.Error(codes.Unavailable, "down")
			}
			return "paid", nil
		})
		if got != "paid" || err != nil || n != 3 || time.Since(begin) != 3*time.Second {
			t.Errorf("%q, %v after %d attempts and %s", got, err, n, time.Since(begin))
		}
	})
}

// What the other instances find makes a breaker hold back that has a suspicion of its
// own, and by default no other one.
func TestFleet(t *testing.T) {
	plane := clienttest.New(t)
	cp := plane.Client()
	plane.SetFleet("payments", true)
	if got, err := charge(t.Context(), cp, false); got != "paid" || err != nil {
		t.Fatalf("without a suspicion: %q, %v", got, err)
	}
	plane.Advance(5 * time.Second)
	for range 2 {
		_, _ = charge(t.Context(), cp, true)
	}
	var rejection *client.Rejection
	if _, err := charge(t.Context(), cp, false); !errors.As(err, &rejection) || rejection.Reason != client.BreakerOpen || rejection.By != "fleet" {
		t.Errorf("with a suspicion: %v", err)
	}
	if s := cp.Status().Fleet; len(s) != 1 || s[0].Dependency != "payments" || !s[0].Others || !s[0].Hearsay || !s[0].Open || s[0].Mode != "enforce" || s[0].Reason == "" {
		t.Errorf("shows %+v", s)
	}
	plane.SetFleet("payments", false)
	if s := cp.Status().Fleet; len(s) != 0 {
		t.Errorf("shows %+v after its end", s)
	}
	plane.Advance(time.Minute)
	if _, err := charge(t.Context(), cp, false); err != nil {
		t.Errorf("after its end: %v", err)
	}

	plane.SetPolicy("stock", `{"fleet_without_traffic":"enforce"}`)
	reserve := func() error {
		_, err := client.Do(t.Context(), cp, "stock", func(context.Context) (int, error) { return 1, nil })
		return err
	}
	plane.SetFleet("stock", true)
	_ = reserve() // it may be let through
	if err := reserve(); !errors.Is(err, client.BreakerOpen) {
		t.Errorf("without traffic, where the policy enforces that: %v", err)
	}
}
