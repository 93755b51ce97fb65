package api

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
)

// gate stands before every handler: who calls, may they, does this server
// answer.
type gate struct {
	replica Replica
	streams *streams
}

// admit applies the method's rule and returns the handler's context.
func (g *gate) admit(ctx context.Context, method string) (context.Context, error) {
	id, err := identify(ctx)
	if err != nil {
		return nil, err
	}
	rule := rules[method]
	if !rule.access.allows(id) {
		return nil, Errorf(ReasonPermissionDenied, "the role %q may not call %s; allowed is: %s", id.role, method, rule.access)
	}
	if !rule.always {
		if err := servingError(g.replica); err != nil {
			return nil, err
		}
	}
	return withIdentity(ctx, id), nil
}

// servingError returns why the replica must not answer; nil when it may.
func servingError(r Replica) error {
	err := r.Serving()
	var explained *Error
	if err == nil || errors.As(err, &explained) {
		return err
	}
	if r.Status().Fenced != "" {
		return newError(ReasonFenced, err, "this server is fenced off: %v", err)
	}
	return newError(ReasonNotServing, err, "this server does not serve yet: %v", err)
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (g *gate) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := g.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if !rules[info.FullMethod].endless {
		return handler(srv, &contextStream{ServerStream: stream, ctx: ctx})
	}
	ctx, leave, err := g.streams.enter(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	defer leave()
	err = handler(srv, &contextStream{ServerStream: stream, ctx: ctx})
	if cause := context.Cause(ctx); err != nil && ctx.Err() != nil && stream.Context().Err() == nil {
		return cause // the server ended it, whatever the handler made of that
	}
	return err
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // the interface asks for it
}

// Context returns the context of the handler.
func (s *contextStream) Context() context.Context { return s.ctx }

// errorsUnary and errorsStream turn every failure into one of the table.
func errorsUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, asStatus(err)
}

func errorsStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return asStatus(handler(srv, stream))
}

// recovered turns a panic of a handler into a failure. What the handler had
// done until then is not known.
func recovered(logger *slog.Logger) recovery.Option {
	return recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error { return panicked(ctx, logger, p) })
}

// panicked logs a panic and returns what the caller is told.
func panicked(ctx context.Context, logger *slog.Logger, p any) error {
	method, _ := grpc.Method(ctx)
	logger.ErrorContext(ctx, "a handler panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
	return Errorf(ReasonInternal, "internal error: the handler of %s panicked", method)
}
