package client

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// stream is the interceptor of streams.
func (c *connection) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	t := c.dependency.target(method, guard.Method)
	if t == nil {
		return streamer(ctx, desc, cc, method, opts...)
	}
	s := c.options.setting(t)
	if s.Disabled {
		return streamer(ctx, desc, cc, method, opts...)
	}
	if _, err := t.point.Before(ctx, s, nil); err != nil {
		return nil, err
	}
	permit, err := t.Admit(ctx, s)
	if err != nil {
		return nil, statusOfEnd(err)
	}
	watched := &clientStream{ctx: ctx, permit: permit, options: &c.options, setting: s, calls: c.dependency.calls, single: !desc.ServerStreams}
	watched.began = watched.calls.clock.Now()
	opened := false
	defer func() {
		if !opened { // streamer panicked
			watched.finish(status.Error(codes.Internal, "the stream was not opened"))
		}
	}()
	watched.ClientStream, err = streamer(sendPriority(ctx), desc, cc, method, append(slices.Clip(opts), grpc.OnFinish(watched.finish))...)
	opened = true
	if err != nil {
		watched.finish(err)
		return nil, err
	}
	return watched, nil
}

// clientStream watches a stream for its first message and its end. gRPC tells the
// end also of a stream that nobody reads to its end, once its context or its
// connection ends; what comes from an interceptor in between may tell it by RecvMsg
// only.
type clientStream struct {
	grpc.ClientStream
	ctx     context.Context //nolint:containedctx // the caller's: its end tells who ended the stream
	permit  guard.Permit
	options *callOptions
	setting *guard.Setting
	calls   *calls
	single  bool // one message is the whole answer
	began   int64
	first   atomic.Int64 // how long the first message took; 0 before it
}

// RecvMsg implements grpc.ClientStream.
func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case errors.Is(err, io.EOF):
		s.finish(nil)
	case err != nil || s.single:
		s.finish(err)
	case s.first.Load() == 0:
		if s.first.CompareAndSwap(0, max(1, s.calls.clock.Now()-s.began)) {
			s.permit.Answered()
		}
	}
	return err
}

// finish ends the permit; only the first of several counts. A stream that its
// caller's deadline ends after it was answered says nothing: how long to watch is the
// caller's choice.
func (s *clientStream) finish(err error) {
	var r guard.Result
	first := time.Duration(s.first.Load())
	if err != nil {
		r = s.options.result(s.setting, err)
		if first > 0 && r.Code == codes.DeadlineExceeded && isOver(s.ctx) {
			r = decided(r, breaker.Neutral, false)
		}
	}
	s.permit.Done(r, first)
}

// isOver tells whether the deadline of a context has passed. That the server noticed
// it may be known before the context does.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= 0
}
