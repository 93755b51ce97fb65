package client_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

// The methods of the test's service. Messages are texts.
const (
	get    = "/test.Texts/Get"
	put    = "/test.Texts/Put"
	read   = "/test.Texts/Read"   // declared to have no side effects
	watch  = "/test.Texts/Watch"  // the server streams
	upload = "/test.Texts/Upload" // the client streams
)

type text = wrapperspb.StringValue

// texts is a server of the test's service, whose behaviour is that of its functions.
type texts struct {
	mu     sync.Mutex
	unary  func(ctx context.Context, method, request string) (string, error)
	stream func(stream grpc.ServerStream) error
	calls  map[string]int // by method
}

// on sets what answers calls.
func (s *texts) on(f func(ctx context.Context, method, request string) (string, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unary = f
}

// called returns how often a method was called since it was asked last.
func (s *texts) called(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.calls[method]
	s.calls[method] = 0
	return n
}

func (s *texts) count(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[method]++
}

func (s *texts) desc() *grpc.ServiceDesc {
	unary := func(method string) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: method[len("/test.Texts/"):], Handler: func(_ any, ctx context.Context, decode func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			request := new(text)
			if err := decode(request); err != nil {
				return nil, err
			}
			s.count(method)
			handle := func(ctx context.Context, _ any) (any, error) {
				s.mu.Lock()
				f := s.unary
				s.mu.Unlock()
				answer, err := f(ctx, method, request.GetValue())
				if err != nil {
					return nil, err
				}
				return wrapperspb.String(answer), nil
			}
			if chain == nil {
				return handle(ctx, request)
			}
			return chain(ctx, request, &grpc.UnaryServerInfo{Server: s, FullMethod: method}, handle)
		}}
	}
	stream := func(method string, d grpc.StreamDesc) grpc.StreamDesc {
		d.StreamName = method[len("/test.Texts/"):]
		d.Handler = func(_ any, stream grpc.ServerStream) error {
			s.count(method)
			return s.stream(stream)
		}
		return d
	}
	return &grpc.ServiceDesc{
		ServiceName: "test.Texts", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{unary(get), unary(put), unary(read)},
		Streams: []grpc.StreamDesc{stream(watch, grpc.StreamDesc{ServerStreams: true}), stream(upload, grpc.StreamDesc{ClientStreams: true})},
	}
}

// declare lets the process know what the proto of the service would say.
func declare(tb testing.TB) {
	tb.Helper()
	const file = "test/texts.proto"
	if _, err := protoregistry.GlobalFiles.FindFileByPath(file); err == nil {
		return
	}
	message := new(".google.protobuf.StringValue")
	method := &descriptorpb.MethodDescriptorProto{
		Name: new("Read"), InputType: message, OutputType: message,
		Options: &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()},
	}
	declared, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new(file), Package: new("test"), Dependency: []string{wrapperspb.File_google_protobuf_wrappers_proto.Path()},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Texts"), Method: []*descriptorpb.MethodDescriptorProto{method}}},
	}, protoregistry.GlobalFiles)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(declared)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// shop is a control plane, a server and a connection to it as the dependency "shop".
type shop struct {
	*texts
	plane    *clienttest.Plane
	listener *bufconn.Listener
	conn     *grpc.ClientConn
}

func newShop(tb testing.TB, options ...client.CallOption) *shop {
	tb.Helper()
	declare(tb)
	s := &shop{texts: &texts{calls: map[string]int{}}, plane: clienttest.New(tb, clienttest.Config(client.Config{Service: "test", Logger: slog.New(slog.DiscardHandler)}))}
	s.listener = bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	server.RegisterService(s.desc(), s.texts)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(s.listener) }()
	tb.Cleanup(func() { server.Stop(); <-done })
	s.conn = s.dial(tb, s.plane.Client().DialOptions("shop", options...)...)
	return s
}

func (s *shop) dial(tb testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }),
	}, options...)
	conn, err := grpc.NewClient("passthrough:///bufconn", options...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// call makes a call over a connection.
func call(ctx context.Context, conn *grpc.ClientConn, method, request string, opts ...grpc.CallOption) (string, error) {
	reply := new(text)
	err := conn.Invoke(ctx, method, wrapperspb.String(request), reply, opts...)
	return reply.GetValue(), err
}

// level defines the mode "m" with a level "low" of these effects; SetMode enters it.
func (s *shop) level(effects string) {
	s.plane.Define("mode", "m", `{"levels":[{"name":"low","effects":[`+effects+`]}]}`)
}

// stats returns what was degraded of a target.
func (s *shop) stats(target string) client.DegradationStats {
	for _, d := range s.plane.Client().Stats().Degradations {
		if d.Dependency == "shop" && d.Target == target {
			return d
		}
	}
	return client.DegradationStats{}
}
