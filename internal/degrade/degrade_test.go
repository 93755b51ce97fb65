package degrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/replies"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask is a question with a text for an answer.
type ask struct {
	request  string
	metadata map[string][]string
	unknown  bool
	large    int
	answer   string
}

func (a *ask) Request() any { return a.request }

func (a *ask) Key(vary []string) (replies.Key, bool) {
	return replies.NewKey("d", "op", []byte(a.request), Pairs(vary, a.metadata)), !a.unknown
}

func (a *ask) Reply() (any, int, bool) { return a.answer, len(a.answer) + a.large, true }

func (a *ask) Recall(reply any) error {
	if err := a.Check(reply); err != nil {
		return err
	}
	a.Accept(reply)
	return nil
}

func (a *ask) Check(answer any) error {
	if _, ok := answer.(string); !ok {
		return fmt.Errorf("is a %T", answer)
	}
	return nil
}

func (a *ask) Accept(answer any) { a.answer = answer.(string) }

type fixture struct {
	clock    *clock.Clock
	log      bytes.Buffer
	random   float64
	degrader *Degrader
	point    *Point
	policy   policy.Policy
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{clock: clock.Manual(time.Unix(0, 0)), policy: policy.Default()}
	f.degrader = New(Config{
		Clock: f.clock, ReplyBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(&f.log, nil)),
		Random: func() float64 { return f.random },
	})
	f.point = f.degrader.Dependency("d").Point("op", flags.ClientSide)
	return f
}

func (f *fixture) setting(plan flags.Plan) *guard.Setting {
	return &guard.Setting{Plan: plan, Policy: &f.policy, Enforce: true}
}

func value(answer string) Func {
	return func(context.Context, Call) (any, error) { return answer, nil }
}

var (
	rejectEffect   = &flags.MethodEffect{Action: flags.Reject, By: "mode/m=low", Code: "FAILED_PRECONDITION", Message: "closed", RetryAfter: time.Minute}
	cacheEffect    = &flags.MethodEffect{Action: flags.Cache, By: "mode/m=low", MaxAge: time.Minute, Vary: []string{"Tenant"}}
	fallbackEffect = &flags.MethodEffect{Action: flags.Fallback, By: "mode/m=low", Chain: "chain"}
)

func TestEffectsAreTriedInOrder(t *testing.T) {
	f := newFixture(t)
	f.degrader.Register("chain", value("fallback"))
	shed := &flags.MethodEffect{Action: flags.Shed, By: "mode/m=low", Percent: 50, RetryAfter: time.Second}
	s := f.setting(flags.Plan{Shed: shed, Cache: cacheEffect, Fallback: fallbackEffect, Reject: rejectEffect})
	s.Recordings = []flags.Recording{{Vary: []string{"tenant"}, MaxAge: time.Minute}}
	f.point.Record(s, &ask{request: "known", answer: "recorded"})

	f.random = 0.9
	for _, c := range []struct {
		request, by, answer string
	}{{"known", "mode/m=low; cache", "recorded"}, {"new", "mode/m=low; fallback", "fallback"}} {
		q := &ask{request: c.request}
		if by, err := f.point.Before(t.Context(), s, q); err != nil || by != c.by || q.answer != c.answer {
			t.Errorf("%s: by %q, %v, answer %q; want %q, %q", c.request, by, err, q.answer, c.by, c.answer)
		}
	}
	f.degrader.Register("chain")
	_, err := f.point.Before(t.Context(), s, &ask{request: "new"})
	var r *guard.Rejection
	if !errors.As(err, &r) || r.Reason != guard.Degraded || r.Code != codes.FailedPrecondition || r.Message != "closed" ||
		r.RetryAfter != time.Minute || r.By != "mode/m=low" || r.Dependency != "d" || r.Target != "op" {
		t.Errorf("rejected with %+v", r)
	}
	f.random = 0.1
	if _, err := f.point.Before(t.Context(), s, &ask{request: "known"}); !errors.Is(err, guard.Shed) {
		t.Errorf("a call that has to be shed ends with %v", err)
	}
	critical := guard.WithPriority(t.Context(), bulkhead.Critical)
	if by, err := f.point.Before(critical, s, &ask{request: "known"}); by == "" {
		t.Errorf("a critical call was shed: %v", err)
	}
	want := Stats{Dependency: "d", Target: "op", Side: flags.ClientSide, Rejected: 1, Shed: 1, Cached: 2, Misses: 2, Fallbacks: 1, Failures: 1, Recorded: 1}
	if got := f.point.Stats(); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestWithoutQuestionOnlyRefusals(t *testing.T) {
	f := newFixture(t)
	f.degrader.Register("chain", value("fallback"))
	s := f.setting(flags.Plan{Cache: cacheEffect, Fallback: fallbackEffect})
	if by, err := f.point.Before(t.Context(), s, nil); by != "" || err != nil {
		t.Errorf("answered by %q, %v", by, err)
	}
	s.Plan.Reject = rejectEffect
	if _, err := f.point.Before(t.Context(), s, nil); !errors.Is(err, guard.Degraded) {
		t.Errorf("rejected with %v", err)
	}
	if got := f.point.Stats(); got.Misses != 0 || got.Failures != 0 {
		t.Errorf("counted %+v: there was nothing to ask", got)
	}
}

// Whatever tells two questions apart keeps their replies apart.
func TestRepliesNeverMix(t *testing.T) {
	f := newFixture(t)
	s := f.setting(flags.Plan{Cache: cacheEffect})
	s.Recordings = []flags.Recording{{Vary: []string{"tenant"}, MaxAge: time.Minute}}
	alice := map[string][]string{"authorization": {"alice"}, "tenant": {"t1"}, "trace": {"1"}}
	f.point.Record(s, &ask{request: "r", metadata: alice, answer: "for alice"})
	for name, c := range map[string]struct {
		q    ask
		want string
	}{
		"same":            {ask{request: "r", metadata: map[string][]string{"authorization": {"alice"}, "tenant": {"t1"}, "trace": {"2"}}}, "for alice"},
		"another user":    {ask{request: "r", metadata: map[string][]string{"authorization": {"bob"}, "tenant": {"t1"}}}, ""},
		"nobody":          {ask{request: "r", metadata: map[string][]string{"tenant": {"t1"}}}, ""},
		"another tenant":  {ask{request: "r", metadata: map[string][]string{"authorization": {"alice"}, "tenant": {"t2"}}}, ""},
		"one more tenant": {ask{request: "r", metadata: map[string][]string{"authorization": {"alice"}, "tenant": {"t1", "t1"}}}, ""},
		"values swapped":  {ask{request: "r", metadata: map[string][]string{"authorization": {"t1"}, "tenant": {"alice"}}}, ""},
		"another request": {ask{request: "R", metadata: alice}, ""},
		"who knows":       {ask{request: "r", metadata: alice, unknown: true}, ""},
	} {
		if _, err := f.point.Before(t.Context(), s, &c.q); err != nil || c.q.answer != c.want {
			t.Errorf("%s: got %q, %v; want %q", name, c.q.answer, err, c.want)
		}
	}
}

func TestCacheBounds(t *testing.T) {
	f := newFixture(t)
	s := f.setting(flags.Plan{Cache: cacheEffect})
	s.Recordings = []flags.Recording{{Vary: []string{"tenant"}, MaxAge: time.Minute}}
	f.point.Record(s, &ask{request: "r", answer: "old"})
	f.point.Record(s, &ask{request: "unknown", unknown: true, answer: "x"})
	f.point.Record(s, &ask{request: "large", large: 1 << 20, answer: "x"})
	f.clock.Advance(time.Minute)
	q := &ask{request: "r"}
	if by, _ := f.point.Before(t.Context(), s, q); by == "" {
		t.Error("a reply as old as is allowed was not used")
	}
	f.clock.Advance(1)
	if by, _ := f.point.Before(t.Context(), s, q); by != "" {
		t.Error("a reply that is too old was used")
	}
	if use := f.degrader.Replies(); use.Entries != 1 || use.Refused != 1 {
		t.Errorf("the cache holds %+v", use)
	}

	none := New(Config{Clock: f.clock})
	p := none.Dependency("d").Point("op", flags.ClientSide)
	p.Record(s, &ask{request: "r", answer: "a"})
	if by, err := p.Before(t.Context(), s, &ask{request: "r"}); by != "" || err != nil || p.Stats().Misses != 1 || none.Replies() != (replies.Use{}) {
		t.Errorf("without a cache: by %q, %v, %+v", by, err, p.Stats())
	}
}

func TestFallbackAfterFailure(t *testing.T) {
	failed := errors.New("failed")
	f := newFixture(t)
	s := f.setting(flags.Plan{})
	q := &ask{request: "r"}
	if f.point.Prepared(s) || f.point.After(t.Context(), s, policy.OnFailure, failed, q) != "" || f.point.Stats().Failures != 0 {
		t.Error("a fallback answered, or failed, where there is none")
	}
	var seen Call
	f.degrader.Register("op", func(_ context.Context, c Call) (any, error) { seen = c; return "op", nil })
	if by := f.point.After(t.Context(), s, policy.OnFailure, failed, q); by != "policy/d; fallback" || q.answer != "op" {
		t.Errorf("by %q: %q", by, q.answer)
	}
	if want := (Call{Dependency: "d", Target: "op", Request: "r", Cause: failed, By: "policy/d"}); seen != want {
		t.Errorf("the function saw %+v, want %+v", seen, want)
	}
	f.policy.Fallback.Chain = "named"
	f.degrader.Register("named", value("named"))
	if f.point.After(t.Context(), s, policy.OnFailure, failed, q); q.answer != "named" {
		t.Errorf("the chain that the policy names did not answer: %q", q.answer)
	}
	f.policy.Fallback.On = []string{policy.OnTimeout}
	if by := f.point.After(t.Context(), s, policy.OnFailure, failed, q); by != "" {
		t.Errorf("answered by %q for what it is not meant for", by)
	}
	if by := f.point.After(t.Context(), s, "", failed, q); by != "" {
		t.Errorf("answered by %q for an error that is an answer", by)
	}
	s.Enforce = false
	if by := f.point.After(t.Context(), s, policy.OnTimeout, failed, q); by != "" || f.point.Prepared(s) {
		t.Errorf("answered by %q for a dependency that is only observed", by)
	}
	s.Enforce = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if by := f.point.After(ctx, s, policy.OnTimeout, failed, q); by != "" {
		t.Errorf("answered by %q for a caller who went away", by)
	}
}

func TestHostileFunctionsAreContained(t *testing.T) {
	f := newFixture(t)
	s := f.setting(flags.Plan{Fallback: fallbackEffect})
	f.degrader.Register("chain",
		nil,
		func(context.Context, Call) (any, error) { panic("boom") },
		func(context.Context, Call) (any, error) { return 42, nil },
		func(context.Context, Call) (any, error) { return "wrong", errors.New("not me") },
		value("last"))
	q := &ask{}
	if by, err := f.point.Before(t.Context(), s, q); by == "" || err != nil || q.answer != "last" {
		t.Errorf("by %q, %v: %q; want the last function's answer", by, err, q.answer)
	}
	f.degrader.Register("chain", func(context.Context, Call) (any, error) { panic("boom") }, func(context.Context, Call) (any, error) { return 42, nil })
	if by, err := f.point.Before(t.Context(), s, &ask{}); by != "" || err != nil {
		t.Errorf("a chain that fails answered by %q, %v", by, err)
	}
	if line := f.log.String(); !strings.Contains(line, "boom") || !strings.Contains(line, "is a int") || !strings.Contains(line, "chain=chain") {
		t.Errorf("logged %q", line)
	}
	f.degrader.Register("chain", func(context.Context, Call) (any, error) { runtime.Goexit(); return "", nil })
	if by, err := f.point.Before(t.Context(), s, &ask{}); by != "" || err != nil {
		t.Errorf("a function that ends its goroutine answered by %q, %v", by, err)
	}
	if n := strings.Count(f.log.String(), "\n"); n != 1 {
		t.Errorf("%d lines are logged within a second, want 1", n)
	}
	f.clock.Advance(time.Second)
	f.point.Before(t.Context(), s, &ask{})
	if !strings.Contains(f.log.String(), "unlogged=1") {
		t.Errorf("what was not logged is not counted: %s", f.log.String())
	}
}

// A function that does not heed its context is left behind in time, keeps its place,
// and is waited for when all ends.
func TestHungFunctionIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.policy.Fallback.MaxConcurrent = 2
		s := f.setting(flags.Plan{Fallback: fallbackEffect})
		release := make(chan struct{})
		f.degrader.Register("chain", func(context.Context, Call) (any, error) { <-release; return "late", nil })
		q := &ask{}
		for range 2 {
			began := time.Now()
			if by, _ := f.point.Before(t.Context(), s, q); by != "" || time.Since(began) != f.policy.Fallback.Timeout {
				t.Errorf("by %q after %v", by, time.Since(began))
			}
		}
		f.degrader.Register("chain", value("next"))
		if by, _ := f.point.Before(t.Context(), s, &ask{}); by != "" {
			t.Error("more chains ran than the policy allows")
		}
		closed := make(chan struct{})
		go func() { f.degrader.Close(); close(closed) }()
		for range 2 {
			synctest.Wait()
			select {
			case <-closed:
				t.Error("closed while a function runs")
			default:
			}
			release <- struct{}{}
		}
		<-closed
		if q.answer != "" {
			t.Errorf("the late answer %q reached the call", q.answer)
		}
		if by, _ := f.point.Before(t.Context(), s, q); by == "" || q.answer != "next" {
			t.Error("nothing answers after the end")
		}
		f.degrader.Close()
	})
}

// The chain has its own time: the deadline that the call failed by is none of it,
// but a caller who goes away ends it.
func TestFallbackHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.setting(flags.Plan{})
		f.degrader.Register("op", func(ctx context.Context, _ Call) (any, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(f.policy.Fallback.Timeout / 2):
				return "in time", nil
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		<-ctx.Done()
		q := &ask{}
		if f.point.After(ctx, s, policy.OnTimeout, ctx.Err(), q); q.answer != "in time" {
			t.Errorf("answer after the deadline is %q", q.answer)
		}
		began := time.Now()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if by := f.point.After(ctx, s, policy.OnTimeout, errors.New("x"), &ask{}); by != "" || time.Since(began) != time.Millisecond {
			t.Errorf("the caller went away, and was answered by %q after %v", by, time.Since(began))
		}
		f.degrader.Close()
	})
}

// A chain that a level asks before the call is made is part of the call: it ends with
// the deadline of the caller.
func TestLevelsFallbackEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.degrader.Register("chain", func(ctx context.Context, _ Call) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		by, err := f.point.Before(ctx, f.setting(flags.Plan{Fallback: fallbackEffect}), &ask{})
		if by != "" || err != nil || time.Since(began) != time.Millisecond {
			t.Errorf("got %q, %v after %v", by, err, time.Since(began))
		}
		f.degrader.Close()
	})
}

func TestOutcomes(t *testing.T) {
	p := policy.Default()
	for _, c := range []struct {
		name     string
		r        guard.Result
		rejected bool
		want     string
	}{
		{"rejected", guard.Result{Code: codes.Unavailable}, true, policy.OnRejected},
		{"failure", guard.Result{Code: codes.Unavailable}, false, policy.OnFailure},
		{"timeout", guard.Result{Code: codes.DeadlineExceeded}, false, policy.OnTimeout},
		{"overload", guard.Result{Code: codes.ResourceExhausted}, false, policy.OnOverload},
		{"answer", guard.Result{Code: codes.NotFound}, false, ""},
		{"cancelled", guard.Result{Code: codes.Canceled}, false, ""},
		{"classified failure", guard.Result{Code: codes.NotFound, Classified: true, Class: breaker.Failure}, false, policy.OnFailure},
		{"classified timeout", guard.Result{Code: codes.DeadlineExceeded, Classified: true, Class: breaker.Failure}, false, policy.OnTimeout},
		{"classified overload", guard.Result{Code: codes.Unknown, Classified: true, Class: breaker.Overload}, false, policy.OnOverload},
		{"classified success", guard.Result{Code: codes.Unavailable, Classified: true, Class: breaker.Success}, false, ""},
		{"classified neutral", guard.Result{Code: codes.ResourceExhausted, Classified: true, Class: breaker.Neutral}, false, ""},
	} {
		if got := Outcome(&p, c.r, c.rejected); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCodesOfDefinitions(t *testing.T) {
	for name, want := range map[string]codes.Code{"UNAVAILABLE": codes.Unavailable, "CANCELLED": codes.Canceled, "NOT_FOUND": codes.NotFound, "": codes.Unavailable, "OK": codes.Unavailable, "NEW": codes.Unavailable} {
		if got := codeOf(name); got != want {
			t.Errorf("%q is %v, want %v", name, got, want)
		}
	}
}

// Registering, degrading, recording and closing at the same time.
func TestManyAtOnce(t *testing.T) {
	f := newFixture(t)
	f.degrader.random = func() float64 { return 0.5 }
	s := f.setting(flags.Plan{Cache: cacheEffect, Fallback: fallbackEffect, Reject: rejectEffect})
	s.Recordings = []flags.Recording{{Vary: []string{"tenant"}, MaxAge: time.Minute}}
	f.policy.Fallback.MaxConcurrent = 2
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 200 {
				if i == 0 {
					f.degrader.Register("chain", value(fmt.Sprint(n)))
				}
				q := &ask{request: fmt.Sprint(n % 10)}
				by, err := f.point.Before(context.Background(), s, q)
				if (by == "") == (err == nil) {
					t.Errorf("by %q, %v", by, err)
				}
				f.point.Record(s, &ask{request: fmt.Sprint(n % 7), answer: "a"})
				if i == 1 && n == 100 {
					f.degrader.Close()
				}
			}
		})
	}
	all.Wait()
	if n := f.point.running.Load(); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}
