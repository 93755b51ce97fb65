package client_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

type hits struct{ Names []string }

func find(names ...string) func(context.Context) (hits, error) {
	return func(context.Context) (hits, error) { return hits{names}, nil }
}

func failing[T any](err error) func(context.Context) (T, error) {
	return func(context.Context) (value T, _ error) { return value, err }
}

var errDown = status.Error(codes.Unavailable, "down")

func TestDo(t *testing.T) {
	plane := clienttest.New(t)
	c := plane.Client()
	if got, err := client.Do(t.Context(), c, "index", find("a")); err != nil || len(got.Names) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	got, err := client.Do(t.Context(), c, "index", func(context.Context) (int, error) { return 7, errDown })
	if got != 7 || !errors.Is(err, errDown) {
		t.Errorf("got %v, %v; want what the function returned", got, err)
	}
	plane.HoldBreaker("index", true)
	var r *client.Rejection
	if got, err := client.Do(t.Context(), c, "index", func(context.Context) (int, error) { return 7, nil }); got != 0 || !errors.As(err, &r) || r.Target != "index" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestDoRetries(t *testing.T) {
	plane := clienttest.New(t)
	plane.SetPolicy("index", `{`+quickRetries+`}`)
	plane.HoldBreaker("index", false)
	c := plane.Client()
	as := func(o client.Outcome) client.CallOption {
		return client.Classify(func(error) client.Outcome { return o })
	}
	other := errors.New("other")
	for _, test := range []struct {
		name    string
		err     error
		options []client.CallOption
		want    int
	}{
		{"not to be repeated", errDown, nil, 1},
		{"idempotent", errDown, []client.CallOption{client.Idempotent()}, 3},
		{"no code to retry", other, []client.CallOption{client.Idempotent()}, 1},
		{"a failure, says the classifier", other, []client.CallOption{client.Idempotent(), as(client.Failure)}, 3},
		{"a failure, but not to be repeated", other, []client.CallOption{as(client.Failure)}, 1},
		{"a failure for good", errDown, []client.CallOption{client.Idempotent(), as(client.FailureNoRetry)}, 1},
		{"an answer", errDown, []client.CallOption{client.Idempotent(), as(client.Success)}, 1},
		{"neutral", errDown, []client.CallOption{client.Idempotent(), as(client.Neutral)}, 1},
		{"a classifier that panics", errDown, []client.CallOption{client.Idempotent(), client.Classify(func(error) client.Outcome { panic("boom") })}, 3},
		{"rejected by another dependency", &client.Rejection{Code: codes.Unavailable, Reason: client.BreakerOpen}, []client.CallOption{client.Idempotent(), as(client.Failure)}, 1},
		{"refused connection", &net.OpError{Op: "dial", Err: errors.New("refused")}, []client.CallOption{client.Idempotent()}, 3},
	} {
		n := 0
		_, err := client.Do(t.Context(), c, "index", func(context.Context) (string, error) { n++; return "", test.err }, test.options...)
		if n != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %d attempts, want %d; %v", test.name, n, test.want, err)
		}
	}
}

// The code of a service classifies errors of its dependencies, not what was never
// asked of them.
func TestClassifierSeesNoRejections(t *testing.T) {
	plane := clienttest.New(t)
	c := plane.Client()
	c.RegisterFallback("index", func(context.Context, client.Call) (any, error) { return 7, nil })
	plane.HoldBreaker("index", true)
	asked := client.Classify(func(err error) client.Outcome {
		t.Errorf("asked about %v", err)
		return client.Success
	})
	if got, err := client.Do(t.Context(), c, "index", failing[int](nil), asked); got != 7 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// Operations have breakers of their own.
func TestDoOperations(t *testing.T) {
	plane := clienttest.New(t)
	plane.SetPolicy("db", `{"circuit_breaker":{"failure_threshold":2}}`)
	c := plane.Client()
	for _, err := range []error{sql.ErrNoRows, context.Canceled, sql.ErrNoRows, errors.New("a"), errors.New("b")} {
		client.Do(t.Context(), c, "db", failing[int](err), client.Operation("read"))
	}
	if _, err := client.Do(t.Context(), c, "db", failing[int](nil), client.Operation("read")); !errors.Is(err, client.BreakerOpen) {
		t.Errorf("after two failures: %v", err)
	}
	if _, err := client.Do(t.Context(), c, "db", failing[int](nil), client.Operation("write")); err != nil {
		t.Errorf("another operation: %v", err)
	}
	if _, err := client.Do(t.Context(), c, "db", failing[int](nil)); err != nil {
		t.Errorf("the dependency without an operation: %v", err)
	}
}

func TestDoFallbacks(t *testing.T) {
	plane := clienttest.New(t)
	c := plane.Client()
	c.RegisterFallback("find",
		func(context.Context, client.Call) (any, error) { return "a text", nil },
		func(context.Context, client.Call) (any, error) { return nil, nil },
		func(_ context.Context, call client.Call) (any, error) {
			return hits{[]string{call.Dependency, call.Target, call.Cause.Error()}}, nil
		})
	down := errors.New("down")
	got, err := client.Do(t.Context(), c, "index", failing[hits](down), client.Operation("find"))
	if err != nil || strings.Join(got.Names, " ") != "index find down" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := client.Do(t.Context(), c, "index", failing[int](down), client.Operation("find")); !errors.Is(err, down) {
		t.Errorf("no function returns an int: %v", err)
	}
	if _, err := client.Do(t.Context(), c, "index", failing[hits](sql.ErrNoRows), client.Operation("find")); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("an answer got a fallback: %v", err)
	}
}

func TestDoLevels(t *testing.T) {
	plane := clienttest.New(t)
	c := plane.Client()
	plane.Define("mode", "m", `{"levels":[
		{"name":"cached","effects":[{"action":"cache","operations":["index"],"max_age":"1m"},{"action":"reject","operations":["index"],"side":"client"}]},
		{"name":"short","effects":[{"action":"fallback","operations":["index"],"fallback":"none"}]}]}`)
	c.RegisterFallback("none", func(context.Context, client.Call) (any, error) { return hits{}, nil })
	alice := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "alice"))
	bob := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "bob"))
	client.Do(alice, c, "index", find("a", "b"), client.CacheKey("k"))
	client.Do(alice, c, "index", find("unkeyed"))
	plane.SetMode("m", "cached")
	if got, err := client.Do(alice, c, "index", failing[hits](errDown), client.CacheKey("k")); err != nil || len(got.Names) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	for name, f := range map[string]func() (any, error){
		"another user": func() (any, error) { return client.Do(bob, c, "index", find(), client.CacheKey("k")) },
		"nobody":       func() (any, error) { return client.Do(t.Context(), c, "index", find(), client.CacheKey("k")) },
		"another key":  func() (any, error) { return client.Do(alice, c, "index", find(), client.CacheKey("l")) },
		"another type": func() (any, error) { return client.Do(alice, c, "index", failing[string](nil), client.CacheKey("k")) },
		"no key":       func() (any, error) { return client.Do(alice, c, "index", find()) },
		"for another": func() (any, error) {
			return client.Do(metadata.NewOutgoingContext(t.Context(), metadata.Pairs("authorization", "alice")), c, "index", find(), client.CacheKey("k"))
		},
	} {
		if got, err := f(); !errors.Is(err, client.Degraded) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	plane.SetMode("m", "short")
	if got, err := client.Do(bob, c, "index", find("x"), client.CacheKey("k")); err != nil || len(got.Names) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

// What a value takes is known, or it is not kept.
func TestDoKeepsWhatCanBeMeasured(t *testing.T) {
	plane := clienttest.New(t, clienttest.Config(client.Config{Service: "test", ReplyCacheBytes: 1 << 20}))
	c := plane.Client()
	plane.Define("mode", "m", `{"levels":[{"name":"low","effects":[{"action":"cache","operations":["index"],"max_age":"1m"}]}]}`)
	type node struct {
		Next *node
		Text string
	}
	loop := &node{Text: "x"}
	loop.Next = loop
	client.Do(t.Context(), c, "index", func(context.Context) (*node, error) { return loop, nil }, client.CacheKey("loop"))
	if use := c.Stats().Replies; use.Entries != 0 {
		t.Errorf("a value without end was kept: %+v", use)
	}
	large := strings.Repeat("x", 1<<18)
	client.Do(t.Context(), c, "index", func(context.Context) (map[string][]*node, error) {
		return map[string][]*node{"a": {{Text: large}}}, nil
	}, client.CacheKey("large"))
	if use := c.Stats().Replies; use.Entries != 0 || use.TooLarge != 1 {
		t.Errorf("a value of a quarter of the cache was kept: %+v", use)
	}
	for i := range 100 {
		client.Do(t.Context(), c, "index", func(context.Context) (*node, error) { return &node{Text: large[:1<<16]}, nil }, client.CacheKey(fmt.Sprint(i)))
	}
	if use := c.Stats().Replies; use.Bytes > 1<<20 || use.Entries < 10 || use.Evicted == 0 {
		t.Errorf("the cache holds %+v", use)
	}
}

func TestDoPanicsGoOn(t *testing.T) {
	plane := clienttest.New(t)
	plane.SetPolicy("index", `{"bulkhead":{"max_concurrent":1},"circuit_breaker":{"failure_threshold":2}}`)
	c := plane.Client()
	for range 2 {
		func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic did not go on")
				}
			}()
			client.Do(t.Context(), c, "index", func(context.Context) (int, error) { panic("boom") })
		}()
	}
	if _, err := client.Do(t.Context(), c, "index", failing[int](nil)); !errors.Is(err, client.BreakerOpen) {
		t.Errorf("after two panics: %v", err)
	}
}
