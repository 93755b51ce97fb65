package client

import (
	"context"
	"errors"
	"runtime/debug"
	"strconv"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// ServerOptions returns what a server needs: interceptors that refuse calls whose
// deadline has no time left, obey the modes, bound concurrency by the policy
// "server:SERVICE" where there is one, and contain panics of handlers. Health checks
// and reflection are left alone.
//
// Modes may shed and reject calls and streams; the cache and fallbacks answer unary
// calls where an effect has side: server. What is answered so does not get to
// interceptors that come after these, so that those that authenticate belong before
// them; and what tells users apart, unless it is the authorization metadata or a
// certificate, belongs into the vary of the effect. Handlers, and interceptors that
// come after these, find the priority that the caller gave in the context.
//
// A unary call that fails, and for which a call onward used up its attempts or its
// retry budget, tells its caller not to try again, so that retries do not multiply
// from hop to hop.
func (c *Client) ServerOptions() []grpc.ServerOption {
	return newServer(c.calls).options()
}

// server is what the calls pass that a process handles.
type server struct {
	calls  *calls
	served *dependency
	unary  grpc.UnaryServerInterceptor // contain panics
	stream grpc.StreamServerInterceptor
}

func newServer(c *calls) *server {
	contain := recovery.WithRecoveryHandlerContext(func(ctx context.Context, value any) error {
		method, _ := grpc.Method(ctx)
		c.logger.ErrorContext(ctx, "a handler panicked", "method", method, "panic", value, "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "the handler failed")
	})
	return &server{
		calls: c, served: c.server(),
		unary: recovery.UnaryServerInterceptor(contain), stream: recovery.StreamServerInterceptor(contain),
	}
}

func (s *server) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(s.handleUnary), grpc.ChainStreamInterceptor(s.handleStream)}
}

// handleUnary is a grpc.UnaryServerInterceptor.
func (s *server) handleUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if s.calls.disabled() {
		return handler(ctx, req)
	}
	t := s.served.target(info.FullMethod, guard.Method)
	if t == nil {
		return s.unary(ctx, req, info, handler)
	}
	set := t.Now()
	if err := t.Due(ctx, set); err != nil {
		return nil, turnedAway(ctx, err)
	}
	hop := guard.WithHop(ctx)
	ctx = prioritized(hop)
	var resp any
	var err error
	if set.Plan.Empty() && len(set.Recordings) == 0 {
		resp, err = s.admitUnary(ctx, t, set, req, info, handler)
	} else {
		resp, err = s.degradeUnary(ctx, t, set, req, info, handler)
	}
	if err == nil {
		return resp, nil
	}
	if hop.Spent() {
		pushBack(ctx, never)
		return nil, err
	}
	return nil, turnedAway(ctx, err)
}

// admitUnary handles a call in the place of a bulkhead.
func (s *server) admitUnary(ctx context.Context, t *target, set *guard.Setting, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	permit, err := t.Admit(ctx, set)
	if err != nil {
		return nil, err
	}
	result := guard.Result{Code: codes.Internal} // of a handler that ends its goroutine
	defer func() { permit.Done(result, 0) }()
	resp, err = s.unary(ctx, req, info, handler)
	result.Code = status.Code(err)
	return resp, err
}

// handleStream is a grpc.StreamServerInterceptor. A stream holds its place as long as
// it lives; nothing is learned from how long that is.
func (s *server) handleStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s.calls.disabled() {
		return handler(srv, stream)
	}
	t := s.served.target(info.FullMethod, guard.Method)
	if t == nil {
		return s.stream(srv, stream, info, handler)
	}
	set, ctx := t.Now(), stream.Context()
	if err := t.Due(ctx, set); err != nil {
		return turnedAway(ctx, err)
	}
	if _, ok := ctx.Deadline(); ok {
		ctx = guard.WithHop(ctx)
	}
	if ctx = prioritized(ctx); ctx != stream.Context() {
		stream = &serverStream{stream, ctx}
	}
	if !set.Plan.Empty() {
		if _, err := t.point.Before(ctx, set, nil); err != nil {
			return turnedAway(ctx, err)
		}
	}
	permit, err := t.Admit(ctx, set)
	if err != nil {
		return turnedAway(ctx, err)
	}
	defer permit.Done(guard.Result{Class: breaker.Neutral, Classified: true}, 0)
	return s.stream(srv, stream, info, handler)
}

// serverStream is a stream with another context.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // what Context returns
}

// Context implements grpc.ServerStream.
func (s *serverStream) Context() context.Context { return s.ctx }

// prioritized returns the context of a call that came in with its priority. It is
// the same one where that is normal.
func prioritized(ctx context.Context) context.Context {
	values := metadata.ValueFromIncomingContext(ctx, priorityKey)
	if len(values) > 0 {
		if p, ok := bulkhead.ParsePriority(values[0]); ok && p != Normal {
			return WithPriority(ctx, p)
		}
	}
	return ctx
}

// turnedAway returns the error of a call that is not handled, and tells the client, of
// whatever kind, when it may try again: never, where any other instance would refuse
// it as well.
func turnedAway(ctx context.Context, err error) error {
	var rejection *Rejection
	if !errors.As(err, &rejection) {
		return err
	}
	pause := ""
	switch {
	case rejection.RetryAfter > 0:
		pause = strconv.FormatInt(rejection.RetryAfter.Milliseconds(), 10)
	case rejection.Reason == DeadlineTooNear, rejection.Reason == Degraded, rejection.Reason == Shed:
		pause = never
	default:
		return err
	}
	pushBack(ctx, pause)
	return err
}

// never is the pause that lets nobody try again.
const never = "-1"

// pushBack tells the client how many milliseconds to wait before it tries again. Not
// told is not worse than before.
func pushBack(ctx context.Context, pause string) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs(pushBackKey, pause))
}
