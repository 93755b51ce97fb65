package client_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

var watchDesc = &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true}

// open begins a stream of Watch.
func open(ctx context.Context, t *testing.T, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	t.Helper()
	stream, err := conn.NewStream(ctx, watchDesc, watch)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(wrapperspb.String("go")); err != nil {
		t.Fatal(err)
	}
	return stream, stream.CloseSend()
}

// drain reads a stream to its end and returns how many messages there were.
func drain(stream grpc.ClientStream) (n int, err error) {
	for {
		if err = stream.RecvMsg(new(text)); err != nil {
			break
		}
		n++
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// inUse returns how many places calls hold.
func (s *shop) inUse() (places int) {
	for _, d := range s.plane.Client().Stats().Dependencies {
		if d.Name == "shop" {
			places = d.InUse
		}
	}
	return places
}

// free waits until no call holds a place.
func (s *shop) free(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.inUse() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d places are still taken", s.inUse())
		}
		<-time.After(time.Millisecond)
	}
}

// A stream's outcome is its final status, and its place is its own until then.
func TestStreamOutcomeIsItsFinalStatus(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"circuit_breaker":{"failure_threshold":2},"bulkhead":{"max_concurrent":1}}`)
	release := make(chan error)
	s.stream = func(stream grpc.ServerStream) error {
		for range 3 {
			stream.SendMsg(wrapperspb.String("m"))
		}
		return <-release
	}
	for range 2 {
		stream, err := open(t.Context(), t, s.conn)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(new(text)); err != nil || s.inUse() != 1 {
			t.Fatalf("%v, %d places", err, s.inUse())
		}
		if _, err := call(t.Context(), s.conn, get, ""); !errors.Is(err, client.BulkheadFull) {
			t.Errorf("the stream holds no place: %v", err)
		}
		release <- status.Error(codes.Unavailable, "broke off")
		if n, err := drain(stream); n != 2 || status.Code(err) != codes.Unavailable {
			t.Errorf("%d more messages, %v", n, err)
		}
		s.free(t)
	}
	if _, err := open(t.Context(), t, s.conn); !errors.Is(err, client.BreakerOpen) {
		t.Errorf("two streams broke off: %v", err)
	}
}

func TestStreamThatEndsWellCloses(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"circuit_breaker":{"failure_threshold":1}}`)
	s.stream = func(stream grpc.ServerStream) error { return stream.SendMsg(wrapperspb.String("m")) }
	stream, err := open(t.Context(), t, s.conn)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := drain(stream); n != 1 || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
	s.free(t)
	s.stream = func(stream grpc.ServerStream) error {
		stream.RecvMsg(new(text))
		return stream.SendMsg(wrapperspb.String("all"))
	}
	up, err := s.conn.NewStream(t.Context(), &grpc.StreamDesc{StreamName: "Upload", ClientStreams: true}, upload)
	if err != nil {
		t.Fatal(err)
	}
	up.SendMsg(wrapperspb.String("part"))
	up.CloseSend()
	if err := up.RecvMsg(new(text)); err != nil {
		t.Error(err)
	}
	s.free(t)
	if _, err := open(t.Context(), t, s.conn); err != nil {
		t.Errorf("after streams that ended well: %v", err)
	}
}

// A stream that nobody reads gives its place back when its context ends, and the
// caller's cancel says nothing about the dependency.
func TestAbandonedStreamGivesItsPlaceBack(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"circuit_breaker":{"failure_threshold":1},"timeouts":{"call":"1ms"}}`)
	s.stream = func(stream grpc.ServerStream) error {
		stream.SendMsg(wrapperspb.String("m"))
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := open(ctx, t, s.conn); err != nil {
			t.Fatal(err)
		}
		if s.inUse() != 1 {
			t.Errorf("%d places are taken", s.inUse())
		}
		cancel()
		s.free(t)
	}
	conn := s.dial(t, s.plane.Client().DialOptions("shop")...)
	if _, err := open(t.Context(), t, conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	s.free(t)
}

// Default deadlines are none of a stream's.
func TestStreamsHaveNoDefaultDeadline(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"timeouts":{"call":"1ms"}}`)
	s.stream = func(stream grpc.ServerStream) error {
		if _, ok := stream.Context().Deadline(); ok {
			return errors.New("has a deadline")
		}
		return nil
	}
	stream, err := open(t.Context(), t, s.conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drain(stream); err != nil {
		t.Error(err)
	}
}

// A stream that is watched until a deadline ends as its caller wished: only one
// without an answer by then says something.
func TestStreamUntilItsDeadline(t *testing.T) {
	for name, c := range map[string]struct{ messages, failures int }{"answered": {1, 0}, "not answered": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			s.stream = func(stream grpc.ServerStream) error {
				for range c.messages {
					stream.SendMsg(wrapperspb.String("m"))
				}
				<-stream.Context().Done()
				return stream.Context().Err()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			stream, err := open(ctx, t, s.conn)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := drain(stream); n != c.messages || status.Code(err) != codes.DeadlineExceeded {
				t.Fatalf("%d messages, %v", n, err)
			}
			s.free(t)
			for _, d := range s.plane.Client().Stats().Dependencies {
				if d.Name == "shop" && d.Targets[0].Results[breaker.Failure] != uint64(c.failures) {
					t.Errorf("counted %v", d.Targets[0].Results)
				}
			}
		})
	}
}

func TestStreamsAreRefusedByLevels(t *testing.T) {
	s := newShop(t)
	s.stream = func(grpc.ServerStream) error { return nil }
	s.plane.Client().RegisterFallback("chain", func(context.Context, client.Call) (any, error) { return new(text), nil })
	s.level(`{"action":"cache","methods":["/test.Texts/Watch"],"max_age":"1m"},{"action":"fallback","methods":["/test.Texts/Watch"],"fallback":"chain"}`)
	s.plane.SetMode("m", "low")
	stream, err := open(t.Context(), t, s.conn)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := drain(stream); n != 0 || err != nil {
		t.Errorf("a stream was answered: %d, %v", n, err)
	}
	s.level(`{"action":"reject","methods":["/test.Texts/Watch"],"side":"client"}`)
	if _, err := open(t.Context(), t, s.conn); !errors.Is(err, client.Degraded) {
		t.Errorf("got %v", err)
	}
	s.level(`{"action":"shed","methods":["/test.Texts/Watch"],"side":"client","percent":100}`)
	if _, err := open(t.Context(), t, s.conn); !errors.Is(err, client.Shed) {
		t.Errorf("got %v", err)
	}
}

// What comes from interceptors behind ours need not be a stream of gRPC.
func TestStreamsOfOtherInterceptors(t *testing.T) {
	s := newShop(t)
	s.plane.SetPolicy("shop", `{"circuit_breaker":{"failure_threshold":2}}`)
	var answer grpc.ClientStream
	fail := status.Error(codes.Unavailable, "no stream")
	conn := s.dial(t, append(s.plane.Client().DialOptions("shop"), grpc.WithChainStreamInterceptor(
		func(_ context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, method string, _ grpc.Streamer, _ ...grpc.CallOption) (grpc.ClientStream, error) {
			switch {
			case method == upload:
				panic("no stream")
			case answer == nil:
				return nil, fail
			}
			return answer, nil
		}))...)
	answer = &fixed{}
	stream, err := conn.NewStream(t.Context(), watchDesc, watch)
	if err != nil || s.inUse() != 1 {
		t.Fatalf("%v, %d places", err, s.inUse())
	}
	if n, err := drain(stream); n != 1 || err != nil || s.inUse() != 0 {
		t.Errorf("%d messages, %v, %d places", n, err, s.inUse())
	}
	answer = nil
	for range 2 {
		if _, err := conn.NewStream(t.Context(), watchDesc, watch); status.Code(err) != codes.Unavailable || s.inUse() != 0 {
			t.Errorf("%v, %d places", err, s.inUse())
		}
	}
	if _, err := conn.NewStream(t.Context(), watchDesc, watch); !errors.Is(err, client.BreakerOpen) {
		t.Errorf("streams that cannot be opened: %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not go on")
			}
		}()
		conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, upload)
	}()
	if s.inUse() != 0 {
		t.Errorf("after a panic %d places are taken", s.inUse())
	}
}

// fixed is a stream of one message.
type fixed struct {
	grpc.ClientStream
	read bool
}

func (f *fixed) RecvMsg(any) error {
	if f.read {
		return io.EOF
	}
	f.read = true
	return nil
}

// The time to the first message is what makes a stream slow, not how long it lasts.
func TestStreamLatencyIsTheFirstMessage(t *testing.T) {
	for name, c := range map[string]struct {
		before, after time.Duration
		open          bool
	}{"slow to begin": {time.Minute, 0, true}, "long": {0, time.Minute, false}} {
		s := newShop(t)
		s.plane.SetPolicy("shop", `{"circuit_breaker":{"slow_after":"1s","slow_ratio":0.5,"volume_threshold":1,"window":"10m"}}`)
		begun, go1, go2 := make(chan struct{}), make(chan struct{}), make(chan struct{})
		s.stream = func(stream grpc.ServerStream) error {
			begun <- struct{}{}
			<-go1
			stream.SendMsg(wrapperspb.String("m"))
			<-go2
			return nil
		}
		stream, err := open(t.Context(), t, s.conn)
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		s.plane.Advance(c.before)
		close(go1)
		stream.RecvMsg(new(text))
		s.plane.Advance(c.after)
		close(go2)
		drain(stream)
		s.free(t)
		s.stream = func(grpc.ServerStream) error { return nil }
		_, err = open(t.Context(), t, s.conn)
		if errors.Is(err, client.BreakerOpen) != c.open {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStreamsCarryPriority(t *testing.T) {
	s := newShop(t)
	got := make(chan []string, 1)
	s.stream = func(stream grpc.ServerStream) error {
		got <- metadata.ValueFromIncomingContext(stream.Context(), "holdfast-priority")
		return nil
	}
	stream, err := open(client.WithPriority(t.Context(), client.High), t, s.conn)
	if err != nil {
		t.Fatal(err)
	}
	drain(stream)
	if p := <-got; len(p) != 1 || p[0] != "high" {
		t.Errorf("the priority is %q", p)
	}
}
