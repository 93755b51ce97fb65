package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

func TestLevelsRejectAndShed(t *testing.T) {
	s := newShop(t)
	s.on(echo)
	s.level(`{"action":"reject","methods":["/test.Texts/Put"],"side":"client","code":"FAILED_PRECONDITION","message":"read-only","retry_after":"30s"},
		{"action":"shed","methods":["/test.Texts/Get"],"side":"client","percent":100}`)
	if _, err := call(t.Context(), s.conn, put, ""); err != nil {
		t.Fatalf("in normal operation: %v", err)
	}
	s.plane.SetMode("m", "low")
	_, err := call(t.Context(), s.conn, put, "")
	var r *client.Rejection
	if !errors.As(err, &r) || r.Reason != client.Degraded || r.By != "mode/m=low" || r.RetryAfter != 30*time.Second || status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %+v", err)
	}
	if _, err := call(t.Context(), s.conn, get, ""); !errors.Is(err, client.Shed) || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
	if _, err := call(client.WithPriority(t.Context(), client.Critical), s.conn, get, ""); err != nil {
		t.Errorf("a critical call: %v", err)
	}
	if got, want := s.stats(put).Rejected+10*s.stats(get).Shed, uint64(11); got != want {
		t.Errorf("counted %+v, %+v", s.stats(put), s.stats(get))
	}
	s.plane.SetMode("m", "normal")
	if _, err := call(t.Context(), s.conn, put, ""); err != nil {
		t.Errorf("back to normal: %v", err)
	}
}

func TestFallbacks(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"circuit_breaker":{"failure_threshold":1}}`)
	c := s.plane.Client()
	shared := wrapperspb.String("default")
	var seen client.Call
	c.RegisterFallback(get,
		func(context.Context, client.Call) (any, error) { panic("not mine") },
		func(context.Context, client.Call) (any, error) { return wrapperspb.Int64(7), nil },
		func(_ context.Context, call client.Call) (any, error) { seen = call; return shared, nil })
	s.on(unavailable)
	for _, reason := range []error{nil, client.BreakerOpen} { // the first call fails, the second is not made
		header, caller := metadata.MD{}, new(text)
		err := s.conn.Invoke(t.Context(), get, wrapperspb.String("r"), caller, grpc.Header(&header))
		if err != nil || caller.GetValue() != "default" || caller == shared {
			t.Errorf("got %v, %v", caller, err)
		}
		if by := client.DegradedBy(header); by != "policy/shop; fallback" {
			t.Errorf("the answer is marked %q", by)
		}
		caller.Value = "changed by its owner"
		if seen.Dependency != "shop" || seen.Target != get || seen.Request.(*text).GetValue() != "r" || seen.Cause == nil || reason != nil && !errors.Is(seen.Cause, reason) {
			t.Errorf("the function saw %+v", seen)
		}
	}
	if s.called(get) != 1 {
		t.Error("the breaker did not open")
	}
	if got := s.stats(get); got.Fallbacks != 2 || got.FallbackFailures != 0 {
		t.Errorf("counted %+v", got)
	}
	if _, err := call(t.Context(), s.conn, put, ""); status.Code(err) != codes.Unavailable {
		t.Errorf("a method without a fallback: %v", err)
	}
	s.plane.SetPolicy("shop", `{"enforcement":"observe"}`)
	if _, err := call(t.Context(), s.conn, get, ""); status.Code(err) != codes.Unavailable {
		t.Errorf("a dependency that is only observed: %v", err)
	}
}

// An error that is an answer of the dependency needs no fallback.
func TestAnswersGetNoFallback(t *testing.T) {
	s := newShop(t)
	s.plane.Client().RegisterFallback(get, func(context.Context, client.Call) (any, error) { return wrapperspb.String("fallback"), nil })
	for code, want := range map[codes.Code]bool{
		codes.NotFound: false, codes.InvalidArgument: false, codes.Canceled: false,
		codes.Internal: true, codes.ResourceExhausted: true, codes.DeadlineExceeded: true,
	} {
		s.on(func(context.Context, string, string) (string, error) { return "", status.Error(code, "x") })
		if answer, err := call(t.Context(), s.conn, get, ""); (answer == "fallback") != want || (err == nil) != want {
			t.Errorf("%v: %q, %v", code, answer, err)
		}
	}
	s.on(func(context.Context, string, string) (string, error) {
		return "", (&client.Rejection{Reason: client.Degraded, Code: codes.FailedPrecondition, Dependency: "s"}).GRPCStatus().Err()
	})
	if answer, err := call(t.Context(), s.conn, get, ""); answer != "fallback" {
		t.Errorf("refused by the server's mode: %q, %v", answer, err)
	}
}

func TestLevelAsksFallback(t *testing.T) {
	s := newShop(t)
	s.on(echo)
	s.level(`{"action":"fallback","methods":["/test.Texts/Get"],"fallback":"short"},{"action":"reject","methods":["/test.Texts/Get"],"side":"client"}`)
	s.plane.SetMode("m", "low")
	if _, err := call(t.Context(), s.conn, get, ""); !errors.Is(err, client.Degraded) {
		t.Errorf("no such chain: %v", err)
	}
	var seen client.Call
	s.plane.Client().RegisterFallback("short", func(_ context.Context, call client.Call) (any, error) {
		seen = call
		return wrapperspb.String("short"), nil
	})
	var header metadata.MD
	answer, err := call(t.Context(), s.conn, get, "", grpc.Header(&header))
	if answer != "short" || err != nil || client.DegradedBy(header) != "mode/m=low; fallback" || s.called(get) != 0 {
		t.Errorf("got %q, %v, marked %q", answer, err, client.DegradedBy(header))
	}
	if seen.Cause != nil || seen.By != "mode/m=low" {
		t.Errorf("the function saw %+v", seen)
	}
}

const cacheGet = `{"action":"cache","methods":["/test.Texts/Get"],"max_age":"1m","vary":["tenant"]},{"action":"reject","methods":["/test.Texts/Get"],"side":"client"}`

// as makes the metadata of a call.
func as(ctx context.Context, pairs ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(pairs...))
}

// whoami answers with the metadata that it sees.
func whoami(ctx context.Context, _, request string) (string, error) {
	return fmt.Sprintf("%s for %s of %s", request, first(ctx, "authorization"), first(ctx, "tenant")), nil
}

func TestCacheKeepsUsersApart(t *testing.T) {
	s := newShop(t)
	s.on(whoami)
	s.level(cacheGet)
	alice := as(t.Context(), "authorization", "alice", "tenant", "t1")
	others := map[string]context.Context{
		"another user":   as(t.Context(), "authorization", "bob", "tenant", "t1"),
		"another tenant": as(t.Context(), "authorization", "alice", "tenant", "t2"),
		"nobody":         t.Context(),
	}
	if _, err := call(alice, s.conn, get, "cart"); err != nil {
		t.Fatal(err)
	}
	s.plane.SetMode("m", "low")
	var header metadata.MD
	if answer, err := call(as(t.Context(), "authorization", "alice", "tenant", "t1", "trace", "x"), s.conn, get, "cart", grpc.Header(&header)); err != nil || answer != "cart for alice of t1" {
		t.Errorf("got %q, %v", answer, err)
	}
	if by := client.DegradedBy(header); by != "mode/m=low; cache" {
		t.Errorf("marked %q", by)
	}
	for name, ctx := range others {
		if answer, err := call(ctx, s.conn, get, "cart"); !errors.Is(err, client.Degraded) {
			t.Errorf("%s sees %q, %v", name, answer, err)
		}
	}
	if answer, err := call(alice, s.conn, get, "card"); !errors.Is(err, client.Degraded) {
		t.Errorf("another question is answered with %q, %v", answer, err)
	}
	conn := s.dial(t, s.plane.Client().DialOptions("shop")...)
	if answer, err := call(alice, conn, get, "cart"); !errors.Is(err, client.Degraded) {
		t.Errorf("another connection, maybe with another certificate, sees %q, %v", answer, err)
	}
	s.plane.Advance(time.Minute + time.Nanosecond)
	if answer, err := call(alice, s.conn, get, "cart"); !errors.Is(err, client.Degraded) {
		t.Errorf("an answer that is too old was given: %q, %v", answer, err)
	}
	if got := s.stats(get); got.Cached != 1 || got.CacheMisses != 6 || got.Recorded != 1 || got.Rejected != 6 {
		t.Errorf("counted %+v", got)
	}
	if use := s.plane.Client().Stats().Replies; use.Entries != 1 || use.Bytes == 0 {
		t.Errorf("the cache holds %+v", use)
	}
}

// Servers may answer by the authority that they are called as.
func TestAnotherAuthorityIsAnotherQuestion(t *testing.T) {
	s := newShop(t)
	s.on(func(ctx context.Context, _, _ string) (string, error) { return first(ctx, ":authority"), nil })
	s.level(cacheGet)
	if answer, err := call(t.Context(), s.conn, get, "cart", grpc.CallAuthority("alice.shop")); answer != "alice.shop" || err != nil {
		t.Fatal(answer, err)
	}
	s.plane.SetMode("m", "low")
	for _, options := range [][]grpc.CallOption{nil, {grpc.CallAuthority("bob.shop")}} {
		if answer, err := call(t.Context(), s.conn, get, "cart", options...); !errors.Is(err, client.Degraded) {
			t.Errorf("another authority sees %q, %v", answer, err)
		}
	}
}

// token is a per-RPC credential whose user is in the context.
type token struct{}

type userKey struct{}

func (token) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	user, _ := ctx.Value(userKey{}).(string)
	return map[string]string{"authorization": user}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// Who calls can be added where the SDK does not see it before the call: by
// credentials of the connection, of the call, or by another interceptor. None of that
// may have one user see the reply to another.
func TestUsersThatAreNotSeenGetNothingRecorded(t *testing.T) {
	s := newShop(t)
	s.on(whoami)
	s.level(cacheGet)
	c := s.plane.Client()
	authorize := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoker(metadata.AppendToOutgoingContext(ctx, "authorization", ctx.Value(userKey{}).(string)), method, req, reply, cc, opts...)
	}
	authorizeByOption := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoker(ctx, method, req, reply, cc, append(opts, grpc.PerRPCCredentials(token{}))...)
	}
	for name, conn := range map[string]*grpc.ClientConn{
		"connection":          s.dial(t, append(c.DialOptions("shop"), grpc.WithPerRPCCredentials(token{}))...),
		"default of calls":    s.dial(t, append(c.DialOptions("shop"), grpc.WithDefaultCallOptions(grpc.PerRPCCredentials(token{})))...),
		"default, shared":     s.dial(t, append(c.DialOptions("shop", client.SharedCredentials()), grpc.WithDefaultCallOptions(grpc.PerRPCCredentials(token{})))...),
		"interceptor":         s.dial(t, append(c.DialOptions("shop"), grpc.WithChainUnaryInterceptor(authorize))...),
		"interceptor, option": s.dial(t, append(c.DialOptions("shop"), grpc.WithChainUnaryInterceptor(authorizeByOption))...),
	} {
		alice, bob := context.WithValue(t.Context(), userKey{}, "alice"), context.WithValue(t.Context(), userKey{}, "bob")
		s.plane.SetMode("m", "normal")
		if answer, err := call(alice, conn, get, "cart"); err != nil || answer != "cart for alice of " {
			t.Fatalf("%s: %q, %v", name, answer, err)
		}
		s.plane.SetMode("m", "low")
		for _, ctx := range []context.Context{alice, bob} {
			if answer, err := call(ctx, conn, get, "cart"); !errors.Is(err, client.Degraded) {
				t.Errorf("%s: %v sees %q, %v", name, ctx.Value(userKey{}), answer, err)
			}
		}
	}
	if got := s.stats(get); got.Recorded != 0 {
		t.Errorf("recorded %d replies", got.Recorded)
	}
}

func TestSharedCredentialsAreRecorded(t *testing.T) {
	s := newShop(t)
	s.on(whoami)
	s.level(cacheGet)
	conn := s.dial(t, append(s.plane.Client().DialOptions("shop", client.SharedCredentials()), grpc.WithPerRPCCredentials(token{}))...)
	ctx := context.WithValue(t.Context(), userKey{}, "service")
	call(ctx, conn, get, "prices")
	s.plane.SetMode("m", "low")
	if answer, err := call(ctx, conn, get, "prices"); err != nil || answer != "prices for service of " {
		t.Errorf("got %q, %v", answer, err)
	}
}

// Interceptors before ours are seen.
func TestAuthorizationAddedBeforeIsPartOfTheQuestion(t *testing.T) {
	s := newShop(t)
	s.on(whoami)
	s.level(cacheGet)
	authorize := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoker(metadata.AppendToOutgoingContext(ctx, "authorization", ctx.Value(userKey{}).(string)), method, req, reply, cc, opts...)
	}
	conn := s.dial(t, append([]grpc.DialOption{grpc.WithChainUnaryInterceptor(authorize)}, s.plane.Client().DialOptions("shop")...)...)
	alice, bob := context.WithValue(t.Context(), userKey{}, "alice"), context.WithValue(t.Context(), userKey{}, "bob")
	call(alice, conn, get, "cart")
	s.plane.SetMode("m", "low")
	if answer, err := call(alice, conn, get, "cart"); err != nil || answer != "cart for alice of " {
		t.Errorf("got %q, %v", answer, err)
	}
	if answer, err := call(bob, conn, get, "cart"); !errors.Is(err, client.Degraded) {
		t.Errorf("bob sees %q, %v", answer, err)
	}
}

// Only what the dependency itself answered well is recorded.
func TestDegradedAnswersAreNotRecorded(t *testing.T) {
	s := newShop(t)
	s.level(cacheGet)
	s.plane.Client().RegisterFallback(get, func(context.Context, client.Call) (any, error) { return wrapperspb.String("fallback"), nil })
	var header metadata.MD
	s.on(func(ctx context.Context, _, _ string) (string, error) {
		return "stale", grpc.SetHeader(ctx, metadata.Pairs(client.DegradedKey, "mode/backend=low; cache"))
	})
	if answer, err := call(t.Context(), s.conn, get, "r", grpc.Header(&header)); answer != "stale" || err != nil || client.DegradedBy(header) != "mode/backend=low; cache" {
		t.Errorf("got %q, %v, marked %q", answer, err, client.DegradedBy(header))
	}
	s.on(unavailable)
	if answer, err := call(t.Context(), s.conn, get, "r"); answer != "fallback" || err != nil {
		t.Errorf("got %q, %v", answer, err)
	}
	s.plane.SetMode("m", "low")
	if answer, err := call(t.Context(), s.conn, get, "r"); !errors.Is(err, client.Degraded) {
		t.Errorf("%q was recorded, %v", answer, err)
	}
	if got := s.stats(get); got.Recorded != 0 {
		t.Errorf("counted %+v", got)
	}
}

// A retried call is recorded as well, and one whose level has no other effect is
// made where nothing is recorded.
func TestRecordingAndMissing(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{`+quickRetries+`}`)
	s.level(`{"action":"cache","methods":["/test.Texts/Get"],"max_age":"1m"}`)
	var n atomic.Int64
	s.on(func(_ context.Context, _, request string) (string, error) {
		if n.Add(1)%2 == 1 {
			return "", status.Error(codes.Unavailable, "down")
		}
		return "real " + request, nil
	})
	if answer, err := call(t.Context(), s.conn, get, "a"); answer != "real a" || err != nil {
		t.Fatalf("got %q, %v", answer, err)
	}
	s.plane.SetMode("m", "low")
	s.called(get)
	if answer, err := call(t.Context(), s.conn, get, "a"); answer != "real a" || err != nil || s.called(get) != 0 {
		t.Errorf("got %q, %v", answer, err)
	}
	for _, want := range []int{2, 0} { // recorded while degraded as well
		if answer, err := call(t.Context(), s.conn, get, "b"); answer != "real b" || err != nil || s.called(get) != want {
			t.Errorf("got %q, %v", answer, err)
		}
	}
}
