package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// callsUnder returns calls under the policies of these definitions.
func callsUnder(tb testing.TB, policies map[string]string) *calls {
	tb.Helper()
	now := clock.New()
	c := newCalls(callsConfig{clock: now, logger: slog.New(slog.DiscardHandler), service: "test", onBreaker: func(guard.BreakerEvent) {}})
	tb.Cleanup(c.Close)
	v := flags.NewView(flags.Instance{ID: "a"})
	for name, definition := range policies {
		spec, err := document.Canonical([]byte(definition))
		if err != nil {
			tb.Fatal(err)
		}
		v = v.Update(document.Delta{From: v.Revision(), To: v.Revision() + 1, Puts: []*document.Resource{{
			Key: document.Key{Kind: document.Policy, Name: name}, Spec: spec, ModRevision: v.Revision() + 1, Version: 1,
		}}})
	}
	if problems := v.Problems(); len(problems) > 0 {
		tb.Fatal(problems)
	}
	c.Apply(rules{View: v, base: map[string]policy.Policy{}})
	return c
}

// done is an invoker that answers at once.
func done(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }

const somewhere = "/test.Texts/Get"

// A call that succeeds costs no memory beyond its deadline's context.
func TestCallsAllocateNothing(t *testing.T) {
	c := callsUnder(t, map[string]string{
		"a": `{"timeouts":{"call":"0s"}}`,
		"b": `{"timeouts":{"call":"0s"},"retry_policy":{"idempotent":["*"]}}`,
	})
	own := &Client{calls: c}
	ctx := t.Context()
	request, reply := wrapperspb.String("r"), new(wrapperspb.StringValue)
	given := []grpc.CallOption{grpc.WaitForReady(true)}
	plain, repeatable := newConnection(c, "a", nil), newConnection(c, "b", nil)
	classify := Classify(func(error) Outcome { return Unclassified })
	for name, f := range map[string]func(){
		"unary":            func() { _ = plain.unary(ctx, somewhere, request, reply, nil, done, given...) },
		"unary, retryable": func() { _ = repeatable.unary(ctx, somewhere, request, reply, nil, done, given...) },
		"left alone":       func() { _ = plain.unary(ctx, "/grpc.health.v1.Health/Check", request, reply, nil, done) },
		"Do":               func() { _, _ = Do(ctx, own, "a", func(context.Context) (int, error) { return 7, nil }) },
		"Do, options": func() {
			_, _ = Do(ctx, own, "b", func(context.Context) ([]string, error) { return nil, nil }, Operation("op"), Idempotent(), classify, CacheKey("k"))
		},
	} {
		if n := testing.AllocsPerRun(1000, f); n > 0.1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Names do not grow without end, and those that come too late are left alone where
// they have to be.
func TestNamesAreBounded(t *testing.T) {
	c := callsUnder(t, nil)
	d := c.client("a")
	for i := range 2 * maxNames {
		if d.target(fmt.Sprintf("/s/M%d", i), guard.Method) == nil {
			t.Fatal("no target")
		}
		c.client(fmt.Sprintf("d%d", i))
	}
	if n := len(d.targets[guard.Method].all()); n != maxNames+1 {
		t.Errorf("%d targets are kept", n)
	}
	if n := len(c.dependencies.all()); n != maxNames+1 {
		t.Errorf("%d dependencies are kept", n)
	}
	if a, b := d.target("/s/new", guard.Method), d.target("/s/newer", guard.Method); a != b {
		t.Error("names beyond the limit do not share a target")
	}
	if d.target("/grpc.health.v1.Health/Check", guard.Method) != nil {
		t.Error("health checks are not left alone")
	}
	method := ""
	err := newConnection(c, "a", nil).unary(t.Context(), "/s/newest", nil, nil, nil, func(_ context.Context, m string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		method = m
		return nil
	})
	if err != nil || method != "/s/newest" {
		t.Errorf("called %q, %v", method, err)
	}
}

// A name that comes too late is no way past a mode.
func TestModesHoldBeyondTheNames(t *testing.T) {
	for _, effect := range []string{`"side_effects":true`, `"methods":["*"]`} {
		c := opened(t, nil)
		d := c.calls.client("a")
		for i := range maxNames {
			d.target(fmt.Sprint(i), guard.Operation)
		}
		c.degraded(`{"action":"reject","side":"client",` + effect + `}`)
		for _, method := range []string{"/s/Put", "/s/Another"} {
			if err := newConnection(c.calls, "a", nil).unary(t.Context(), method, nil, nil, nil, done); !errors.Is(err, Degraded) {
				t.Errorf("%s: %s: %v", effect, method, err)
			}
		}
	}
}

// nobody is a per-RPC credential, and a bundle of one.
type nobody struct{}

func (nobody) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, nil
}
func (nobody) RequireTransportSecurity() bool { return false }
func (nobody) TransportCredentials() credentials.TransportCredentials {
	return insecure.NewCredentials()
}
func (n nobody) PerRPCCredentials() credentials.PerRPCCredentials { return n }
func (n nobody) NewWithMode(string) (credentials.Bundle, error)   { return n, nil }

// The fields of grpc.ClientConn that tell whether a connection has credentials are
// those of the version that is linked: if this fails, look where they went.
func TestCredentialsOfConnectionsAreSeen(t *testing.T) {
	dial := func(options ...grpc.DialOption) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///x", options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	if hasCredentials(dial(plain)) {
		t.Error("a connection without credentials seems to have some")
	}
	if !hasCredentials(dial(plain, grpc.WithPerRPCCredentials(nobody{}))) {
		t.Error("per-RPC credentials are not seen")
	}
	if !hasCredentials(dial(grpc.WithCredentialsBundle(nobody{}))) {
		t.Error("a bundle is not seen")
	}
	o := origins{numbers: new(atomic.Uint64)}
	a, b := dial(plain), dial(plain)
	first, ok1 := o.of(a)
	second, ok2 := o.of(b)
	again, _ := o.of(a)
	if !ok1 || !ok2 || first == second || first != again {
		t.Errorf("connections are %d, %d, %d", first, second, again)
	}
	if _, ok := o.of(nil); ok {
		t.Error("a connection that nobody knows is known")
	}
}

func TestErrorsWithoutStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{fmt.Errorf("wrapped: %w", status.Error(codes.NotFound, "x")), codes.NotFound},
		{fmt.Errorf("wrapped: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{&net.OpError{Op: "read", Err: errTimeout{}}, codes.DeadlineExceeded},
		{errors.New("x"), codes.Unknown},
	} {
		if got := resultOf(c.err); got.Code != c.want || got.Classified {
			t.Errorf("%v: %+v, want %v", c.err, got, c.want)
		}
	}
}

// Not everything that bears the domain of the control plane is a refusal: it may be
// the answer of the control plane itself.
func TestNotMade(t *testing.T) {
	for reason, want := range map[string]bool{string(BreakerOpen): true, string(Shed): true, string(DeadlineTooNear): true, "NOT_FOUND": false} {
		s, err := status.New(codes.NotFound, "x").WithDetails(&errdetails.ErrorInfo{Domain: guard.Domain, Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		if got := notMade(s.Err()); got != want {
			t.Errorf("%s: %t", reason, got)
		}
	}
}

type errTimeout struct{}

func (errTimeout) Error() string   { return "timeout" }
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Temporary() bool { return true }

func BenchmarkClientUnary(b *testing.B) {
	c := callsUnder(b, map[string]string{
		"plain":      `{"timeouts":{"call":"0s"}}`,
		"repeatable": `{"timeouts":{"call":"0s"},"retry_policy":{"idempotent":["*"]}}`,
		"deadline":   `{"timeouts":{"call":"1m"}}`,
	})
	request, reply := wrapperspb.String("r"), new(wrapperspb.StringValue)
	for _, name := range []string{"plain", "repeatable", "deadline"} {
		conn := newConnection(c, name, nil)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = conn.unary(b.Context(), somewhere, request, reply, nil, done)
			}
		})
	}
	conn := newConnection(c, "plain", nil)
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = conn.unary(context.Background(), somewhere, request, reply, nil, done)
			}
		})
	})
	down := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		return status.Error(codes.Unavailable, "down")
	}
	for range 10 {
		_ = conn.unary(b.Context(), "/s/open", request, reply, nil, down)
	}
	b.Run("rejected", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = conn.unary(b.Context(), "/s/open", request, reply, nil, done)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	own := &Client{calls: callsUnder(b, map[string]string{"a": `{"timeouts":{"call":"0s"}}`})}
	f := func(context.Context) (int, error) { return 7, nil }
	b.ReportAllocs()
	for b.Loop() {
		_, _ = Do(b.Context(), own, "a", f)
	}
}

// What the interceptors add to a call of gRPC itself: compare the allocations.
func BenchmarkClientBufconn(b *testing.B) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Texts", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Get", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := new(wrapperspb.StringValue)
			return request, decode(request)
		},
	}}}, struct{}{})
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(server.Stop)
	c := callsUnder(b, map[string]string{
		"plain":      `{"timeouts":{"call":"0s"}}`,
		"repeatable": `{"timeouts":{"call":"0s"},"retry_policy":{"idempotent":["*"]}}`,
		"deadline":   `{"timeouts":{"call":"1m"}}`,
	})
	for _, name := range []string{"none", "plain", "repeatable", "deadline"} {
		options := []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		}
		if name != "none" {
			options = append(options, grpc.WithChainUnaryInterceptor(newConnection(c, name, nil).unary))
		}
		conn, err := grpc.NewClient("passthrough:///bufconn", options...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			request, reply := wrapperspb.String("r"), new(wrapperspb.StringValue)
			for b.Loop() {
				if err := conn.Invoke(b.Context(), somewhere, request, reply); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
