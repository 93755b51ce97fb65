package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// definitions lets a test say what a client obeys, step by step.
type definitions struct {
	t *testing.T
	*Client
	revision uint64
}

// opened returns a client of the service "shop" without a control plane. Closing
// it must leave no goroutine.
func opened(t *testing.T, policies map[string]string) *definitions {
	t.Helper()
	return openedWith(t, Config{Policies: policies})
}

func openedWith(t *testing.T, config Config) *definitions {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	config.Service = "shop"
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error("close:", err)
		}
		goleak.VerifyNone(t, ignore)
	})
	return &definitions{t: t, Client: c}
}

// put makes the client obey one more definition.
func (d *definitions) put(kind document.Kind, name, spec string) {
	d.t.Helper()
	d.revision++
	canonical, err := document.Canonical([]byte(spec))
	if err != nil {
		d.t.Fatal(err)
	}
	d.holder.install(document.Delta{From: d.revision - 1, To: d.revision, Puts: []*document.Resource{{
		Key: document.Key{Kind: kind, Name: name}, Spec: canonical, CreateRevision: d.revision, ModRevision: d.revision, Version: 1,
	}}}, d.revision == 1, FromServer)
	if problems := d.Status().Problems; len(problems) > 0 {
		d.t.Fatalf("%s/%s: %s", kind, name, problems)
	}
}

// degraded puts a mode with one level of effects, and sets it.
func (d *definitions) degraded(effects string) {
	d.t.Helper()
	d.put(document.Mode, "m", `{"levels":[{"name":"bad","effects":[`+effects+`]}]}`)
	d.put(document.Override, "o", `{"mode":"m","level":"bad"}`)
}

// normal ends what degraded began.
func (d *definitions) normal() {
	d.t.Helper()
	d.revision++
	d.holder.install(document.Delta{From: d.revision - 1, To: d.revision, Deletes: []document.Tombstone{
		{Key: document.Key{Kind: document.Override, Name: "o"}, Revision: d.revision},
	}}, false, FromServer)
}

// stats returns what was counted of a target.
func (d *definitions) stats(dependency, target string) guard.TargetStats {
	d.t.Helper()
	for _, s := range d.Stats().Dependencies {
		for _, t := range s.Targets {
			if s.Name == dependency && t.Name == target {
				return t
			}
		}
	}
	d.t.Fatalf("no statistics of %s %s", dependency, target)
	return guard.TargetStats{}
}

// echo is a gRPC service made by hand: unary "/test.Echo/Get" and bidirectional
// "/test.Echo/Chat".
type echo struct {
	get  func(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
	chat func(grpc.ServerStream) error
}

const (
	getMethod  = "/test.Echo/Get"
	chatMethod = "/test.Echo/Chat"
)

func (e *echo) describe() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Get", Handler: func(srv any, ctx context.Context, decode func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
			req := new(wrapperspb.StringValue)
			if err := decode(req); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, req any) (any, error) {
				return e.get(ctx, req.(*wrapperspb.StringValue))
			}
			if in == nil {
				return handle(ctx, req)
			}
			return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: getMethod}, handle)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return e.chat(s) }}},
	}
}

// echoing returns a handler that answers with its request.
func echoing(_ context.Context, req *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return req, nil
}

// serve runs a server with the options of a client and returns a plain connection.
func (e *echo) serve(t *testing.T, c *Client, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(c.ServerOptions()...)
	server.RegisterService(e.describe(), e)
	if register != nil {
		register(server)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:echo", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// get calls Get.
func get(ctx context.Context, conn *grpc.ClientConn, text string, options ...grpc.CallOption) (string, error) {
	reply := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, getMethod, wrapperspb.String(text), reply, options...)
	return reply.GetValue(), err
}

// chat opens a stream of Chat.
func chat(ctx context.Context, t *testing.T, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, chatMethod)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// repeat answers each message of a stream with itself.
func repeat(s grpc.ServerStream) error {
	for {
		m := new(wrapperspb.StringValue)
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

// say sends a message on a stream and waits for the answer.
func say(s grpc.ClientStream, text string) (string, error) {
	if err := s.SendMsg(wrapperspb.String(text)); err != nil && !errors.Is(err, io.EOF) { // the status comes from RecvMsg
		return "", err
	}
	m := new(wrapperspb.StringValue)
	err := s.RecvMsg(m)
	return m.GetValue(), err
}
