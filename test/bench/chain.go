package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

// runChain measures all client interceptors around a call that succeeds: one that
// takes no time, and one through gRPC and memory.
func runChain(ctx context.Context, c config) error {
	if err := setBenchtime(&c); err != nil {
		return err
	}
	var sdks [2]*client.Client
	for i := range sdks {
		sdk, err := client.Open(ctx, client.Config{Service: "bench", CoarseClock: i == 1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return fmt.Errorf("open SDK: %w", err)
		}
		defer func() { _ = sdk.Close(context.Background()) }()
		sdks[i] = sdk
	}
	through, stop := serveInMemory(sdks[0].ServerOptions()...)
	defer stop()
	t := newComparison(c, "an interceptor that does nothing, or the function alone")
	for _, parallel := range []bool{false, true} {
		for _, bounded := range []bool{true, false} {
			deadline := ", no deadline"
			if bounded {
				deadline = ", deadline"
			}
			if err := t.run(ctx, c, "no call"+deadline, parallel, interceptorSubjects(sdks, bounded, nowhere)...); err != nil {
				return err
			}
			if err := t.run(ctx, c, "no gRPC"+deadline, parallel, functionSubjects(sdks, bounded)...); err != nil {
				return err
			}
			if err := t.run(ctx, c, "in memory"+deadline, parallel, interceptorSubjects(sdks, bounded, through)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// budget returns the context of n calls, which share it. A bounded one ends earlier
// than the policies would have a call end, so that no deadline has to be made for
// each.
func budget(bounded bool) (context.Context, context.CancelFunc) {
	if !bounded {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.Background(), chainTimeout-time.Second)
}

// dialer connects with options.
type dialer func(opts ...grpc.DialOption) (*grpc.ClientConn, error)

// nowhere makes connections whose calls succeed in the innermost interceptor.
func nowhere(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	done := func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
		return nil
	}
	return grpc.NewClient("passthrough:///nowhere", append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainUnaryInterceptor(done))...)
}

const (
	echoService = "bench.Echo"
	echoMethod  = "/" + echoService + "/Call"
)

// serveInMemory serves a method that returns nothing, and returns what connects to it.
func serveInMemory(opts ...grpc.ServerOption) (dialer, func()) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(opts...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: echoService, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: echo}},
	}, struct{}{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	dial := func(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///memory", append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	}
	return dial, func() { server.Stop(); <-done }
}

func echo(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC wants it so
	in := new(emptypb.Empty)
	if err := decode(in); err != nil {
		return nil, err
	}
	if interceptor == nil {
		return new(emptypb.Empty), nil
	}
	return interceptor(ctx, in, &grpc.UnaryServerInfo{FullMethod: echoMethod}, func(context.Context, any) (any, error) { return new(emptypb.Empty), nil })
}

// interceptorSubjects are connections with chains of interceptors.
func interceptorSubjects(sdks [2]*client.Client, bounded bool, dial dialer) []subject {
	subjects := []subject{
		rpcSubject("an interceptor that does nothing", bounded, dial, grpc.WithChainUnaryInterceptor(passThrough)),
		rpcSubject("Holdfast", bounded, dial, sdks[0].DialOptions("echo", client.Idempotent())...),
		rpcSubject("Holdfast, coarse clock", bounded, dial, sdks[1].DialOptions("echo", client.Idempotent())...),
		rpcSubject("failsafe-go 0.9.7, the same four", bounded, dial, grpc.WithChainUnaryInterceptor(failsafeInterceptor())),
		rpcSubject("go-grpc-middleware 2.3.4, retry and timeout", bounded, dial, grpc.WithChainUnaryInterceptor(middlewareInterceptors()...)),
	}
	return subjects
}

func passThrough(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoker(ctx, method, req, reply, cc, opts...)
}

// rpcSubject calls through a connection that lives as long as the program.
func rpcSubject(name string, bounded bool, dial dialer, opts ...grpc.DialOption) subject {
	conn, err := dial(opts...)
	return subject{name: name, run: func(n int) error {
		if err != nil {
			return err
		}
		ctx, cancel := budget(bounded)
		defer cancel()
		in, out := new(emptypb.Empty), new(emptypb.Empty)
		for range n {
			if err := conn.Invoke(ctx, echoMethod, in, out); err != nil {
				return err
			}
		}
		return nil
	}}
}

// functionSubjects guard a function.
func functionSubjects(sdks [2]*client.Client, bounded bool) []subject {
	work := func(context.Context) (int, error) { return 1, nil }
	do := func(sdk *client.Client) func(ctx context.Context) (int, error) {
		option := client.Idempotent()
		return func(ctx context.Context) (int, error) { return client.Do(ctx, sdk, "work", work, option) }
	}
	executor := newFailsafeExecutor[int]()
	all := []struct {
		name string
		call func(ctx context.Context) (int, error)
	}{
		{"the function alone", work},
		{"Holdfast Do", do(sdks[0])},
		{"Holdfast Do, coarse clock", do(sdks[1])},
		{"failsafe-go 0.9.7, the same four", func(ctx context.Context) (int, error) {
			return executor.WithContext(ctx).Get(func() (int, error) { return work(ctx) })
		}},
		{"failsafe-go 0.9.7, without the context", func(context.Context) (int, error) { return executor.Get(succeed) }},
		{"context.WithTimeout and cancel", func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, chainTimeout)
			defer cancel()
			return work(ctx)
		}},
	}
	var subjects []subject
	for _, s := range all {
		subjects = append(subjects, subject{name: s.name, run: func(n int) (err error) {
			ctx, cancel := budget(bounded)
			defer cancel()
			for range n {
				_, err = s.call(ctx)
			}
			return err
		}})
	}
	return subjects
}
