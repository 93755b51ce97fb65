package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

func echo(_ context.Context, method, request string) (string, error) {
	return method + " " + request, nil
}

func unavailable(context.Context, string, string) (string, error) {
	return "", status.Error(codes.Unavailable, "down")
}

// first receives the metadata of a call.
func first(ctx context.Context, key string) string {
	if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
		return strings.Join(values, ",")
	}
	return ""
}

const quickRetries = `"retry_policy":{"max_attempts":3,"initial_delay":"1ms","max_delay":"2ms","idempotent":["/test.Texts/Get"],"budget":{"min_per_second":1000}}`

func TestRetriesIdempotentCallsOnly(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{`+quickRetries+`}`)
	var attempts []string
	s.on(func(ctx context.Context, _, _ string) (string, error) {
		attempts = append(attempts, first(ctx, "grpc-previous-rpc-attempts"))
		if len(attempts) < 3 {
			return "", status.Error(codes.Unavailable, "down")
		}
		return "up", nil
	})
	if answer, err := call(t.Context(), s.conn, get, ""); answer != "up" || err != nil || s.called(get) != 3 {
		t.Errorf("got %q, %v", answer, err)
	}
	if want := []string{"", "1", "2"}; !slices.Equal(attempts, want) {
		t.Errorf("the server was told %q, want %q", attempts, want)
	}
	s.on(unavailable)
	if _, err := call(t.Context(), s.conn, put, ""); status.Code(err) != codes.Unavailable || s.called(put) != 1 {
		t.Errorf("a call that must not be repeated: %v", err)
	}
}

func TestIdempotentOption(t *testing.T) {
	s := newShop(t, client.Idempotent())
	s.plane.SetPolicy("shop", `{`+quickRetries+`}`)
	s.on(unavailable)
	if _, err := call(t.Context(), s.conn, put, ""); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if n := s.called(put); n != 3 {
		t.Errorf("called %d times, want 3", n)
	}
}

func TestServersSayWhenToTryAgain(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{`+quickRetries+`}`)
	s.plane.HoldBreaker("shop", false)
	withInfo := func(code codes.Code, details ...*errdetails.RetryInfo) error {
		st := status.New(code, "later")
		for _, d := range details {
			st, _ = st.WithDetails(d)
		}
		return st.Err()
	}
	for _, c := range []struct {
		name     string
		trailer  []string
		err      error
		attempts int
	}{
		{"soon", []string{"1"}, withInfo(codes.Unavailable), 3},
		{"never", []string{"-1"}, withInfo(codes.Unavailable), 1},
		{"nonsense", []string{"soon"}, withInfo(codes.Unavailable), 1},
		{"twice", []string{"1", "1"}, withInfo(codes.Unavailable), 1},
		{"too late", []string{"60000"}, withInfo(codes.Unavailable), 1},
		{"details", nil, withInfo(codes.Unavailable, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)}), 3},
		{"details too late", nil, withInfo(codes.Unavailable, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)}), 1},
		{"refused by rules", nil, (&client.Rejection{Reason: client.Degraded, Code: codes.Unavailable, Dependency: "s"}).GRPCStatus().Err(), 1},
	} {
		s.on(func(ctx context.Context, _, _ string) (string, error) {
			for _, v := range c.trailer {
				grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", v))
			}
			return "", c.err
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := call(ctx, s.conn, get, "")
		cancel()
		if n := s.called(get); n != c.attempts || status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %d attempts, want %d; %v", c.name, n, c.attempts, err)
		}
	}
}

// What gRPC itself would retry by the service configuration is not retried twice.
// Who is out of time, or gives up, in the queue of the bulkhead gets a status of gRPC
// as at any other place.
func TestEndInTheQueueIsAStatus(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"bulkhead":{"max_concurrent":1,"max_queue":5,"max_wait":"1m"}}`)
	release, begun := make(chan struct{}), make(chan struct{})
	s.on(func(context.Context, string, string) (string, error) {
		close(begun)
		<-release
		return "", nil
	})
	holder := make(chan error, 1)
	go func() {
		_, err := call(context.Background(), s.conn, get, "")
		holder <- err
	}()
	<-begun
	for want, begin := range map[codes.Code]func() (context.Context, context.CancelFunc){
		codes.DeadlineExceeded: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 20*time.Millisecond)
		},
		codes.Canceled: func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		for name, made := range map[string]func(context.Context) error{
			"call":   func(ctx context.Context) error { _, err := call(ctx, s.conn, get, ""); return err },
			"stream": func(ctx context.Context) error { _, err := open(ctx, t, s.conn); return err },
		} {
			ctx, cancel := begin()
			if err := made(ctx); status.Code(err) != want {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
			cancel()
		}
	}
	close(release)
	if err := <-holder; err != nil {
		t.Error(err)
	}
}

// A server whose own breaker is open says so with each answer; that opens no breaker
// but by the number of its failures, or one instance would shut a whole chain.
func TestOpenBreakersDoNotSpread(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{`+quickRetries+`}`)
	s.on(func(ctx context.Context, _, _ string) (string, error) {
		grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "30000"))
		return "", (&client.Rejection{Reason: client.BreakerOpen, Dependency: "bank", Code: codes.Unavailable, RetryAfter: 30 * time.Second})
	})
	for _, method := range []string{get, put} {
		if _, err := call(t.Context(), s.conn, method, ""); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		s.on(echo)
		if _, err := call(t.Context(), s.conn, method, ""); err != nil {
			t.Errorf("%s after one: %v", method, err)
		}
		s.on(func(context.Context, string, string) (string, error) {
			return "", (&client.Rejection{Reason: client.BreakerOpen, Dependency: "bank", Code: codes.Unavailable, RetryAfter: 30 * time.Second})
		})
	}
}

func TestRetriesOfGRPCAreOff(t *testing.T) {
	s := newShop(t)
	s.on(unavailable)
	conn := s.dial(t, append(s.plane.Client().DialOptions("shop"), grpc.WithDefaultServiceConfig(`{"methodConfig":[{"name":[{}],"retryPolicy":{
		"maxAttempts":4,"initialBackoff":"0.001s","maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]}`))...)
	_, err := call(t.Context(), conn, put, "")
	if n := s.called(put); n != 1 || status.Code(err) != codes.Unavailable {
		t.Errorf("called %d times, %v", n, err)
	}
}

func TestOpenBreakerRejects(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"circuit_breaker":{"failure_threshold":3}}`)
	s.on(unavailable)
	for range 3 {
		call(t.Context(), s.conn, put, "")
	}
	s.called(put)
	_, err := call(t.Context(), s.conn, put, "")
	var r *client.Rejection
	if !errors.As(err, &r) || !errors.Is(err, client.BreakerOpen) || !errors.Is(err, client.Rejected) || r.Dependency != "shop" || r.Target != put {
		t.Errorf("got %v", err)
	}
	if status.Code(err) != codes.Unavailable || s.called(put) != 0 {
		t.Errorf("the status is %v, or the call was made", status.Code(err))
	}
	s.on(echo)
	if answer, err := call(t.Context(), s.conn, get, "x"); err != nil || answer != get+" x" {
		t.Errorf("another method: %q, %v", answer, err)
	}
}

// Health checks and reflection pass whatever else does not.
func TestHealthAndReflectionAreLeftAlone(t *testing.T) {
	s := newShop(t)
	s.plane.HoldBreaker("shop", true)
	for method, want := range map[string]codes.Code{
		"/grpc.health.v1.Health/Check":                                   codes.Unimplemented,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      codes.Unimplemented,
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": codes.Unimplemented,
		"/grpc.health.v1.HealthOfMine/Check":                             codes.Unavailable,
	} {
		if _, err := call(t.Context(), s.conn, method, ""); status.Code(err) != want {
			t.Errorf("%s: %v", method, err)
		}
		stream, err := s.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err == nil {
			err = stream.RecvMsg(new(text))
		}
		if status.Code(err) != want {
			t.Errorf("stream %s: %v", method, err)
		}
	}
}

func TestPriorityTravels(t *testing.T) {
	s := newShop(t)
	s.on(func(ctx context.Context, _, _ string) (string, error) { return first(ctx, "holdfast-priority"), nil })
	if got, _ := call(t.Context(), s.conn, get, ""); got != "" {
		t.Errorf("a call without priority says %q", got)
	}
	if got, _ := call(client.WithPriority(t.Context(), client.Critical), s.conn, get, ""); got != "critical" {
		t.Errorf("the priority is %q", got)
	}
}

// The hedge answers while the first call hangs, with all that the caller asked to
// see of it; the first call's late answer touches nothing.
func TestHedgesAnswer(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"retry_policy":{"hedge_delay":"1ms","budget":{"min_per_second":1000}}}`)
	s.level(`{"action":"cache","methods":["/test.Texts/*"],"max_age":"1m"}`)
	var n atomic.Int64
	s.on(func(ctx context.Context, _, request string) (string, error) {
		if n.Add(1) == 1 {
			<-ctx.Done()
			return "", ctx.Err()
		}
		grpc.SetHeader(ctx, metadata.Pairs("from", "hedge"))
		grpc.SetTrailer(ctx, metadata.Pairs("from", "hedge"))
		return request + " hedged", nil
	})
	var header, trailer metadata.MD
	var remote peer.Peer
	answer, err := call(t.Context(), s.conn, read, "r", grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&remote))
	if err != nil || answer != "r hedged" || remote.Addr == nil {
		t.Errorf("got %q, %v from %v", answer, err, remote.Addr)
	}
	if !slices.Equal(header["from"], []string{"hedge"}) || !slices.Equal(trailer["from"], []string{"hedge"}) {
		t.Errorf("header %v, trailer %v", header, trailer)
	}
	s.plane.SetMode("m", "low")
	if answer, err := call(t.Context(), s.conn, read, "r"); answer != "r hedged" || err != nil || s.stats(read).Cached != 1 {
		t.Errorf("recorded %q, %v, %+v", answer, err, s.stats(read))
	}
}

func TestDisabledPassesThrough(t *testing.T) {
	t.Setenv("HOLDFAST_DISABLE", "1")
	c, err := client.Open(t.Context(), client.Config{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if options := c.DialOptions("shop"); len(options) != 0 {
		t.Errorf("there are %d options", len(options))
	}
	n := 0
	if got, err := client.Do(t.Context(), c, "shop", func(context.Context) (int, error) { n++; return n, errors.New("x") }, client.Idempotent()); got != 1 || err == nil || len(c.Stats().Dependencies) != 0 && len(c.Stats().Dependencies[0].Targets) != 0 && c.Stats().Dependencies[0].Targets[0].Calls != 0 {
		t.Errorf("Do: %d, %v, %+v", got, err, c.Stats())
	}
}

// Whatever is switched meanwhile, nobody gets an answer that is another's: not from
// the cache, not from memory that is used again, not from a hedge that came late.
func TestAnswersNeverMixWhileAllChanges(t *testing.T) {
	s := newShop(t)
	s.plane.HoldBreaker("shop", false)
	var n atomic.Int64
	s.on(func(ctx context.Context, _, request string) (string, error) {
		if n.Add(1)%5 == 0 {
			return "", status.Error(codes.Unavailable, "down")
		}
		return request + " for " + first(ctx, "authorization"), nil
	})
	s.level(`{"action":"cache","methods":["/test.Texts/Read","/test.Texts/Get"],"max_age":"1m"},{"action":"fallback","methods":["/test.Texts/Get"],"fallback":"own"}`)
	s.plane.Client().RegisterFallback("own", func(ctx context.Context, c client.Call) (any, error) {
		md, _ := metadata.FromOutgoingContext(ctx)
		return wrapperspb.String(c.Request.(*text).GetValue() + " for " + md.Get("authorization")[0]), nil
	})
	policies := []string{
		`{` + quickRetries + `,"fallback":{"chain":"own"}}`,
		`{"retry_policy":{"hedge_delay":"1ms","max_hedges":2,"budget":{"min_per_second":10000}}}`,
		`{"bulkhead":{"max_concurrent":4}}`,
	}
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for i := range 8 {
		user := fmt.Sprintf("user %d", i)
		callers.Go(func() {
			ctx := as(context.Background(), "authorization", user)
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				method := []string{get, read, put}[k%3]
				request := fmt.Sprint(k % 4)
				if answer, err := call(ctx, s.conn, method, request); err == nil && answer != request+" for "+user {
					t.Errorf("%s of %s got %q", request, user, answer)
					return
				}
			}
		})
	}
	for k := range 60 {
		s.plane.SetPolicy("shop", policies[k%3])
		s.plane.SetMode("m", []string{"low", "normal"}[k%2])
		<-time.After(5 * time.Millisecond)
	}
	close(stop)
	callers.Wait()
	s.free(t)
	if got := s.stats(read); got.Recorded == 0 || got.Cached == 0 {
		t.Errorf("nothing was tested: %+v", got)
	}
}
