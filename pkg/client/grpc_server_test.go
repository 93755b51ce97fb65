package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/replies"
)

const served = "server:shop"

// reasonOf returns the reason in the status of an error that came over the wire.
func reasonOf(err error) Reason {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == guard.Domain {
			return Reason(info.GetReason())
		}
	}
	return ""
}

func TestServerRefusesCallsThatComeTooLate(t *testing.T) {
	c := opened(t, map[string]string{served: `{"timeouts":{"minimum":"10s"}}`})
	var handled atomic.Int32
	count := func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		handled.Add(1)
		return echoing(ctx, req)
	}
	conn := (&echo{get: count, chat: func(s grpc.ServerStream) error { handled.Add(1); return repeat(s) }}).serve(t, c.Client, nil)
	soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()

	var trailer metadata.MD
	_, err := get(soon, conn, "x", grpc.Trailer(&trailer))
	if status.Code(err) != codes.DeadlineExceeded || reasonOf(err) != DeadlineTooNear {
		t.Errorf("a call with 5 s where 10 s are needed: %v", err)
	}
	if got := trailer.Get(pushBackKey); !slices.Equal(got, []string{"-1"}) {
		t.Errorf("push-back %q, want that nobody tries again", got)
	}
	if _, err = say(chat(soon, t, conn), "x"); reasonOf(err) != DeadlineTooNear {
		t.Errorf("a stream with 5 s where 10 s are needed: %v", err)
	}
	if handled.Load() != 0 {
		t.Error("a refused call was handled")
	}
	if _, err := get(t.Context(), conn, "x"); err != nil {
		t.Errorf("a call without a deadline: %v", err)
	}
	late, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := get(late, conn, "x"); err != nil {
		t.Errorf("a call with a minute: %v", err)
	}
	if n := c.stats(served, getMethod).Rejected[DeadlineTooNear]; n != 1 {
		t.Errorf("%d refusals were counted, want 1", n)
	}
}

func TestServerObservesOnly(t *testing.T) {
	c := opened(t, map[string]string{served: `{"enforcement":"observe","timeouts":{"minimum":"10s"},"bulkhead":{"max_concurrent":1}}`})
	var conn *grpc.ClientConn
	conn = (&echo{get: func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if req.GetValue() == "outer" {
			if _, err := get(ctx, conn, "inner"); err != nil {
				return nil, err
			}
		}
		return req, nil
	}}).serve(t, c.Client, nil)
	soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := get(soon, conn, "outer"); err != nil {
		t.Fatal(err)
	}
	observed := c.stats(served, getMethod).Observed
	if observed[DeadlineTooNear] != 2 || observed[BulkheadFull] != 1 {
		t.Errorf("what would have been refused was counted as %v, want two deadlines and one place", observed)
	}
}

func TestServerBoundsConcurrencyWhereAPolicySaysSo(t *testing.T) {
	c := opened(t, nil)
	s := newServer(c.calls)
	started, free := make(chan struct{}), make(chan struct{})
	block := func(context.Context, any) (any, error) {
		started <- struct{}{}
		<-free
		return nil, nil
	}
	var wg sync.WaitGroup
	call := func() {
		if _, err := s.handleUnary(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: getMethod}, block); err != nil {
			t.Errorf("without a policy: %v", err)
		}
	}
	for range 1100 { // more than a dependency takes by default
		wg.Go(call)
		<-started
	}
	close(free)
	wg.Wait()

	c.put(document.Policy, served, `{"bulkhead":{"max_concurrent":2}}`)
	free = make(chan struct{})
	for range 2 {
		wg.Go(call)
		<-started
	}
	_, err := s.handleUnary(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: getMethod}, block)
	if !errors.Is(err, BulkheadFull) || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a third call where two may run: %v", err)
	}
	close(free)
	wg.Wait()
}

func TestServerContainsPanics(t *testing.T) {
	var log bytes.Buffer
	c := openedWith(t, Config{Policies: map[string]string{served: `{"bulkhead":{"max_concurrent":1}}`}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	conn := (&echo{
		get: func(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) { panic("secret") },
		chat: func(grpc.ServerStream) error {
			panic("secret")
		},
	}).serve(t, c.Client, nil)
	for range 3 { // each needs the place that the one before had
		if _, err := get(t.Context(), conn, "x"); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), ".go") {
			t.Errorf("a handler that panics: %v", err)
		}
		if _, err := say(chat(t.Context(), t, conn), "x"); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("a stream's handler that panics: %v", err)
		}
	}
	if !strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "grpc_server_test.go") || !strings.Contains(log.String(), getMethod) {
		t.Errorf("the log tells neither what, where nor which method: %s", log.String())
	}
}

func TestServerGetsThePlaceOfAGoroutineThatEnded(t *testing.T) {
	c := opened(t, map[string]string{served: `{"bulkhead":{"max_concurrent":1}}`})
	s := newServer(c.calls)
	info := &grpc.UnaryServerInfo{FullMethod: getMethod}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.handleUnary(context.Background(), nil, info, func(context.Context, any) (any, error) { runtime.Goexit(); return nil, nil })
	}()
	<-done
	if _, err := s.handleUnary(t.Context(), nil, info, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
}

func TestServerTellsHandlersHopAndPriority(t *testing.T) {
	c := opened(t, nil)
	type told struct {
		hop      bool
		priority Priority
	}
	var got told
	see := func(ctx context.Context) { got = told{guard.IsHop(ctx), PriorityOf(ctx)} }
	conn := (&echo{
		get: func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			see(ctx)
			return req, nil
		},
		chat: func(s grpc.ServerStream) error { see(s.Context()); return repeat(s) },
	}).serve(t, c.Client, nil)
	bounded, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	with := func(ctx context.Context, priority string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, priorityKey, priority)
	}
	for _, test := range []struct {
		ctx  context.Context //nolint:containedctx // a row of a table
		want told
	}{
		{t.Context(), told{false, Normal}},
		{bounded, told{true, Normal}},
		{with(bounded, "critical"), told{true, Critical}},
		{with(t.Context(), "low"), told{false, Low}},
		{with(t.Context(), "urgent!"), told{false, Normal}},
	} {
		if _, err := get(test.ctx, conn, "x"); err != nil || got != test.want {
			t.Errorf("a handler was told %+v, want %+v (%v)", got, test.want, err)
		}
		ctx, stop := context.WithCancel(test.ctx)
		if _, err := say(chat(ctx, t, conn), "x"); err != nil || got != test.want {
			t.Errorf("a stream's handler was told %+v, want %+v (%v)", got, test.want, err)
		}
		stop()
	}
}

func TestServerObeysModes(t *testing.T) {
	c := opened(t, nil)
	handled := 0
	conn := (&echo{get: func(_ context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		handled++
		return req, nil
	}, chat: repeat}).serve(t, c.Client, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })

	c.degraded(`{"action":"reject","methods":["*"],"retry_after":"30s","message":"maintenance"}`)
	var trailer metadata.MD
	_, err := get(t.Context(), conn, "x", grpc.Trailer(&trailer))
	if status.Code(err) != codes.Unavailable || reasonOf(err) != Degraded || !strings.Contains(err.Error(), "maintenance") {
		t.Errorf("a rejected call: %v", err)
	}
	if got := trailer.Get(pushBackKey); !slices.Equal(got, []string{"30000"}) {
		t.Errorf("push-back %q, want 30 s", got)
	}
	if _, err := say(chat(t.Context(), t, conn), "x"); reasonOf(err) != Degraded {
		t.Errorf("a rejected stream: %v", err)
	}
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("a health check while everything is rejected: %v", err)
	}

	c.degraded(`{"action":"shed","methods":["*"],"percent":100}`)
	if _, err := get(t.Context(), conn, "x"); status.Code(err) != codes.ResourceExhausted || reasonOf(err) != Shed {
		t.Errorf("a shed call: %v", err)
	}
	important := metadata.AppendToOutgoingContext(t.Context(), priorityKey, "critical")
	if _, err := get(important, conn, "x"); err != nil || handled != 1 {
		t.Errorf("a critical call while all are shed: %v; %d were handled, want 1", err, handled)
	}
	c.normal()
	if _, err := get(t.Context(), conn, "x"); err != nil || handled != 2 {
		t.Errorf("a call in normal mode: %v; %d were handled, want 2", err, handled)
	}
}

func TestServerAnswersWithAFallback(t *testing.T) {
	c := opened(t, nil)
	conn := (&echo{get: echoing}).serve(t, c.Client, nil)
	c.RegisterFallback("cheap", func(_ context.Context, call Call) (any, error) {
		if call.By != "mode/m=bad" || call.Dependency != served || call.Target != getMethod {
			return nil, fmt.Errorf("asked with %+v", call)
		}
		return wrapperspb.String("instead of " + call.Request.(*wrapperspb.StringValue).GetValue()), nil
	})
	c.degraded(`{"action":"fallback","side":"server","methods":["` + getMethod + `"],"fallback":"cheap"}`)
	var header metadata.MD
	got, err := get(t.Context(), conn, "x", grpc.Header(&header))
	if err != nil || got != "instead of x" {
		t.Errorf("got %q, %v", got, err)
	}
	if by := DegradedBy(header); by != "mode/m=bad; fallback" {
		t.Errorf("marked by %q", by)
	}
}

// An answer is an answer also where its mark comes too late, and it belongs to its
// call: interceptors may change what they are given.
func TestServerGivesEachCallItsOwnFallback(t *testing.T) {
	c := opened(t, nil)
	shared := wrapperspb.String("closed")
	c.RegisterFallback("cheap", func(context.Context, Call) (any, error) { return shared, nil })
	c.degraded(`{"action":"fallback","side":"server","methods":["` + getMethod + `"],"fallback":"cheap"}`)
	unmarked := t.Context() // as where the header is sent already
	got, err := newServer(c.calls).handleUnary(unmarked, wrapperspb.String("x"), &grpc.UnaryServerInfo{FullMethod: getMethod}, nil)
	answer, ok := got.(*wrapperspb.StringValue)
	if err != nil || !ok || answer.GetValue() != "closed" || answer == shared {
		t.Errorf("got %v, the same for all: %t, %v", got, answer == shared, err)
	}
}

// TestServerCacheKeepsUsersApart records answers of two users in normal operation
// and asks for them while the cache answers.
func TestServerCacheKeepsUsersApart(t *testing.T) {
	c := opened(t, nil)
	handled := 0
	conn := (&echo{get: func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		handled++
		md, _ := metadata.FromIncomingContext(ctx)
		if req.GetValue() == "degraded" {
			if err := MarkDegraded(ctx, "half of it"); err != nil {
				return nil, err
			}
		}
		return wrapperspb.String(fmt.Sprintf("%s for %v of %v", req.GetValue(), md.Get("authorization"), md.Get("tenant"))), nil
	}}).serve(t, c.Client, nil)
	effect := `{"action":"cache","side":"server","methods":["` + getMethod + `"],"max_age":"1h","vary":["tenant"]}`
	as := func(user, tenant string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", user, "tenant", tenant)
	}
	ask := func(ctx context.Context, text string) (string, string) {
		var header metadata.MD
		got, err := get(ctx, conn, text, grpc.Header(&header))
		if err != nil {
			t.Fatal(err)
		}
		return got, DegradedBy(header)
	}
	c.degraded(effect)
	c.normal() // recorded is what the mode may need later
	ask(as("ann", "red"), "a")
	ask(as("bob", "red"), "a")
	if _, by := ask(as("ann", "red"), "degraded"); by != "half of it" {
		t.Errorf("the handler's own mark is %q", by)
	}
	handled = 0
	c.degraded(effect)
	for _, user := range []string{"ann", "bob"} {
		got, by := ask(as(user, "red"), "a")
		if want := fmt.Sprintf("a for [%s] of [red]", user); got != want || by != "mode/m=bad; cache" || handled != 0 {
			t.Errorf("%s got %q by %q (%d handled), want %q from the cache", user, got, by, handled, want)
		}
	}
	for _, ctx := range []context.Context{as("cid", "red"), as("ann", "blue"), t.Context()} {
		before := handled
		if _, by := ask(ctx, "a"); by != "" || handled != before+1 {
			t.Errorf("somebody else was answered by %q", by)
		}
	}
	if _, by := ask(as("ann", "red"), "degraded"); by != "half of it" {
		t.Errorf("a degraded answer came back by %q", by)
	}
}

// Each hop may repeat its calls, but only one of them does.
func TestRetriesDoNotMultiply(t *testing.T) {
	const retries = `"retry_policy":{"max_attempts":%d,"initial_delay":"1ms","max_delay":"1ms","budget":{"min_per_second":%d}}`
	for name, c := range map[string]struct {
		calls    string // timeouts.call
		attempts [3]int // of each hop, the last one first
		budget   int    // of the last hop
		handled  [3]int32
	}{
		"at the last hop":                {"5s", [3]int{3, 3, 3}, 1000, [3]int32{3, 1, 1}},
		"without deadlines":              {"0s", [3]int{3, 3, 3}, 1000, [3]int32{3, 1, 1}},
		"past one that repeats nothing":  {"5s", [3]int{3, 1, 3}, 1000, [3]int32{3, 1, 1}},
		"until the budget is used up":    {"5s", [3]int{3, 3, 3}, 0, [3]int32{1, 1, 1}},
		"where those after it leave it":  {"5s", [3]int{1, 1, 3}, 1000, [3]int32{3, 3, 3}},
		"in the middle, as its own does": {"5s", [3]int{1, 3, 3}, 1000, [3]int32{3, 3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			policies := map[string]string{}
			for i, attempts := range c.attempts {
				budget := 1000
				if i == 0 {
					budget = c.budget
				}
				policies[fmt.Sprint(i)] = fmt.Sprintf(`{"timeouts":{"call":%q,"minimum":"0s"},`+retries+`}`, c.calls, attempts, budget)
			}
			client := opened(t, policies)
			var conn *grpc.ClientConn
			var handled [3]atomic.Int32
			to := func(ctx context.Context, hop int) error {
				c := newConnection(client.calls, fmt.Sprint(hop), []CallOption{Idempotent()})
				return c.unary(ctx, getMethod, wrapperspb.String(fmt.Sprint(hop)), new(wrapperspb.StringValue), conn, dial)
			}
			conn = (&echo{get: func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
				var hop int
				if _, err := fmt.Sscan(req.GetValue(), &hop); err != nil {
					return nil, err
				}
				handled[hop].Add(1)
				if hop == 0 {
					return nil, status.Error(codes.Unavailable, "down")
				}
				return nil, to(ctx, hop-1)
			}}).serve(t, client.Client, nil)
			if err := to(t.Context(), 2); status.Code(err) != codes.Unavailable {
				t.Fatal(err)
			}
			for hop := range handled {
				if n := handled[hop].Load(); n != c.handled[hop] {
					t.Errorf("hop %d handled %d calls, want %d", hop, n, c.handled[hop])
				}
			}
		})
	}
}

// dial is a grpc.UnaryInvoker.
func dial(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
	return cc.Invoke(ctx, method, req, reply, opts...)
}

func TestStreamHoldsItsPlace(t *testing.T) {
	c := opened(t, map[string]string{served: `{"bulkhead":{"max_concurrent":1}}`})
	conn := (&echo{get: echoing, chat: repeat}).serve(t, c.Client, nil)
	s := chat(t.Context(), t, conn)
	if _, err := say(s, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t.Context(), conn, "x"); reasonOf(err) != BulkheadFull {
		t.Errorf("a call while a stream has the only place: %v", err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); status.Code(err) != codes.OK && err.Error() != "EOF" {
		t.Fatal(err)
	}
	if _, err := get(t.Context(), conn, "x"); err != nil {
		t.Errorf("a call after the stream: %v", err)
	}
}

func TestMarkDegradedOutsideOfACall(t *testing.T) {
	if err := MarkDegraded(t.Context(), "x"); err == nil {
		t.Error("there was no answer to mark")
	}
}

func TestServerCostsNothing(t *testing.T) {
	c := opened(t, nil)
	s := newServer(c.calls)
	info := &grpc.UnaryServerInfo{FullMethod: getMethod}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	plain := metadata.NewIncomingContext(context.Background(), metadata.Pairs(":authority", "x", "user-agent", "y"))
	late, cancel := context.WithTimeout(plain, time.Hour)
	defer cancel()
	for _, test := range []struct {
		what string
		ctx  context.Context //nolint:containedctx // a row of a table
		most float64
	}{{"no deadline", plain, 1}, {"a deadline", late, 1}} {
		if n := testing.AllocsPerRun(100, func() { _, _ = s.handleUnary(test.ctx, nil, info, handler) }); n > test.most {
			t.Errorf("%s: %v allocations, want at most %v", test.what, n, test.most)
		}
	}
}

func BenchmarkServerUnary(b *testing.B) {
	c, err := Open(b.Context(), Config{Service: "shop", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close(context.Background())
	s := newServer(c.calls)
	info := &grpc.UnaryServerInfo{FullMethod: getMethod}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	plain := metadata.NewIncomingContext(context.Background(), metadata.Pairs(":authority", "x", "user-agent", "y"))
	late, cancel := context.WithTimeout(plain, time.Hour)
	defer cancel()
	for name, ctx := range map[string]context.Context{"plain": plain, "deadline": late} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.handleUnary(ctx, nil, info, handler)
			}
		})
	}
}

// TestCallsTravelOnWithLessTimeAndTheirPriority lets a handler call on.
func TestCallsTravelOnWithLessTimeAndTheirPriority(t *testing.T) {
	c := opened(t, map[string]string{"inner": `{"timeouts":{"margin":"2s"}}`})
	type seen struct {
		left     time.Duration
		priority Priority
	}
	look := func(ctx context.Context) seen {
		deadline, _ := ctx.Deadline()
		return seen{time.Until(deadline), PriorityOf(ctx)}
	}
	var outer, inner seen
	behind := (&echo{get: func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		inner = look(ctx)
		return req, nil
	}}).serve(t, c.Client, nil)
	onward := newConnection(c.calls, "inner", nil)
	front := (&echo{get: func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		outer = look(ctx)
		reply := new(wrapperspb.StringValue)
		invoke := func(ctx context.Context, method string, req, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
			return behind.Invoke(ctx, method, req, reply, opts...)
		}
		return reply, onward.unary(ctx, getMethod, req, reply, behind, invoke)
	}}).serve(t, c.Client, nil)
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), priorityKey, "high"), 10*time.Second)
	defer cancel()
	if _, err := get(ctx, front, "x"); err != nil {
		t.Fatal(err)
	}
	if outer.left < 8*time.Second || inner.left > 8*time.Second || inner.left < 6*time.Second {
		t.Errorf("the handler had %v, the one behind it %v; want 2 s less", outer.left, inner.left)
	}
	if outer.priority != High || inner.priority != High {
		t.Errorf("priorities %v and %v, want high", outer.priority, inner.priority)
	}
}

func TestServersDoNothingWhileDisabled(t *testing.T) {
	c := opened(t, map[string]string{served: `{"timeouts":{"minimum":"10s"}}`})
	conn := (&echo{get: func(ctx context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if guard.IsHop(ctx) {
			t.Error("the handler got another context")
		}
		return req, nil
	}, chat: repeat}).serve(t, c.Client, nil)
	front := httptest.NewServer(c.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, bounded := r.Context().Deadline(); bounded {
			t.Error("the handler got another context")
		}
	})))
	defer front.Close()
	c.holder.decideLocally(&flags.Local{Disable: true}, "test")
	short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := get(short, conn, "x"); err != nil {
		t.Error(err)
	}
	if _, err := say(chat(short, t, conn), "x"); err != nil {
		t.Error(err)
	}
	client := c.HTTPClient("billing")
	req, err := http.NewRequestWithContext(short, "GET", front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(timeoutHeader, "5000")
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Error(resp, err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
}

func TestServerCacheKeepsCertificatesApart(t *testing.T) {
	c := opened(t, nil)
	key := func(info credentials.AuthInfo) (replies.Key, bool) {
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info})
		return (&serverQuestion{ctx: ctx, target: c.calls.server().target(getMethod, guard.Method), req: wrapperspb.String("x")}).Key(nil)
	}
	certified := func(raw string) credentials.TLSInfo {
		return credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte(raw)}}}}
	}
	ann, ok := key(certified("ann"))
	bob, also := key(certified("bob"))
	again, _ := key(certified("ann"))
	nobody, _ := key(credentials.TLSInfo{})
	if !ok || !also || ann == bob || ann == nobody || ann != again {
		t.Error("certificates do not tell questions apart")
	}
	if _, ok := key(unknownAuth{}); ok {
		t.Error("an answer is kept for who knows whom")
	}
}

// unknownAuth is transport security of which nobody knows how it tells clients apart.
type unknownAuth struct{}

func (unknownAuth) AuthType() string { return "handshake of our own" }
