package facade

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is how a call fails, whatever the protocol.
type failure struct {
	code    codes.Code
	message string
}

func failf(code codes.Code, format string, args ...any) *failure {
	return &failure{code: code, message: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (f *failure) Error() string { return f.message }

// GRPCStatus returns the failure as clients of gRPC see it.
func (f *failure) GRPCStatus() *status.Status { return status.New(f.code, f.message) }

// failureOf makes a failure of any error; nil of nil.
func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	switch {
	case errors.Is(err, context.Canceled):
		return failf(codes.Canceled, "the caller gave up")
	case errors.Is(err, context.DeadlineExceeded):
		return failf(codes.DeadlineExceeded, "the caller's time is over")
	}
	if st, ok := status.FromError(err); ok {
		return failf(st.Code(), "%s", st.Message())
	}
	return failf(codes.Internal, "internal error: %v", err)
}

// asConnect turns a failure into one of Connect, whose codes are those of gRPC.
func asConnect(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*connect.Error](err); ok {
		return err // of the library itself
	}
	f := failureOf(err)
	return connect.NewError(connect.Code(f.code), f)
}

var (
	errDraining = failf(codes.Unavailable, "this server is shutting down; use another one")
	errStreams  = failf(codes.ResourceExhausted, "this server has as many streams as it takes; use another one")
	errToken    = failf(codes.Unauthenticated, "a token is required: send it as Authorization: Bearer TOKEN, or as X-API-Key")
)

// servingError returns why the state must not be shown; nil when it may.
func servingError(r Replica) error {
	if err := r.Serving(); err != nil {
		return failf(codes.Unavailable, "%v", err)
	}
	return nil
}
