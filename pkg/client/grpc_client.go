package client

import (
	"context"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/holdfast-dev/holdfast/internal/degrade"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// DialOptions returns what a connection to a dependency needs: interceptors that
// enforce its policy on unary and streaming calls, with gRPC's own retries off.
// Health checks and reflection are left alone.
//
// Interceptors that change requests or their metadata, above all those that add
// authorization, belong before these options: what comes after them is not part of
// the question that a recorded reply answers, and replies to calls whose
// authorization was added there are not recorded.
//
// A connection that is down is dialled again at least every five seconds, not up to two
// minutes later as gRPC does by itself: a probe of a dependency that is back must find a
// connection. grpc.WithConnectParams after these options overrides that.
//
// Of a stream the policy's breaker and bulkhead count, and levels of modes may shed
// or reject it. Its outcome is its final status and its latency the time to the
// first message; where the caller's deadline ends it after that, it says nothing.
// There are no default deadlines, retries, caches and fallbacks for streams.
func (c *Client) DialOptions(dependency string, options ...CallOption) []grpc.DialOption {
	if c.holder.disabledBy() == disableEnv {
		return nil
	}
	conn := newConnection(c.calls, dependency, options)
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(conn.unary), grpc.WithChainStreamInterceptor(conn.stream), grpc.WithDisableRetry(),
		grpc.WithConnectParams(redial()),
	}
}

// longestRedial is how long a connection that is down waits before it is dialled again.
const longestRedial = 5 * time.Second

// redial are gRPC's defaults but for the longest pause.
func redial() grpc.ConnectParams {
	delays := backoff.DefaultConfig
	delays.MaxDelay = longestRedial
	return grpc.ConnectParams{Backoff: delays, MinConnectTimeout: 20 * time.Second}
}

// connection is what one call of DialOptions made: mostly one connection.
type connection struct {
	name       string // of the dependency
	dependency *dependency
	options    callOptions
	origins    origins
}

func newConnection(c *calls, name string, options []CallOption) *connection {
	conn := &connection{name: name, dependency: c.client(name)}
	conn.options.take(options)
	conn.origins.shared, conn.origins.numbers = conn.options.shared, &c.connections
	return conn
}

// unary is the interceptor of unary calls.
func (c *connection) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	t := c.dependency.target(method, guard.Method)
	if t == nil {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	s := c.options.setting(t)
	if s.Disabled {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	r := rpc{c, t, s, method, req, reply, cc, invoker}
	ctx = sendPriority(ctx)
	if !s.Plan.Empty() || len(s.Recordings) > 0 {
		return r.degradable(ctx, opts)
	}
	err := r.call(ctx, opts)
	if err == nil || !t.point.Prepared(s) {
		return err
	}
	return r.fallBack(ctx, newQuestion(ctx, &r, opts), opts, err)
}

// rpc is a unary call as its interceptor got it.
type rpc struct {
	connection *connection
	target     *target
	setting    *guard.Setting
	method     string
	req, reply any
	cc         *grpc.ClientConn
	invoker    grpc.UnaryInvoker
}

// degradable makes a call that a level of a mode degrades or may degrade later.
func (r *rpc) degradable(ctx context.Context, opts []grpc.CallOption) error {
	q := newQuestion(ctx, r, opts)
	by, err := r.target.point.Before(ctx, r.setting, q)
	if err != nil {
		return err
	}
	if by != "" {
		markAnswer(opts, by)
		return nil
	}
	if len(r.setting.Recordings) == 0 || !q.known {
		err = r.call(ctx, opts)
	} else {
		var header metadata.MD
		w := &witness{sent: q.sent, recordings: r.setting.Recordings}
		err = r.call(ctx, append(slices.Clip(opts), grpc.Header(&header), grpc.PerRPCCredentials(w)))
		if err == nil && len(header[DegradedKey]) == 0 && w.agrees() {
			r.target.point.Record(r.setting, q)
		}
	}
	if err == nil {
		return nil
	}
	return r.fallBack(ctx, q, opts, err)
}

// fallBack lets the policy's fallback answer for a call that failed.
func (r *rpc) fallBack(ctx context.Context, q *question, opts []grpc.CallOption, err error) error {
	outcome := degrade.Outcome(r.setting.Policy, r.connection.options.result(r.setting, err), notMade(err))
	by := r.target.point.After(ctx, r.setting, outcome, err, q)
	if by == "" {
		return err
	}
	markAnswer(opts, by)
	return nil
}

// call makes the call through the guard.
func (r *rpc) call(ctx context.Context, opts []grpc.CallOption) error {
	u, ok := r.target.spare.Get().(*unaryCall)
	if !ok {
		u = newUnaryCall()
	}
	u.rpc, u.opts = *r, opts
	if r.setting.Idempotent && r.setting.Policy.Retry.MaxAttempts > 1 || guard.HopOf(ctx) != nil {
		u.buffer = append(append(u.buffer[:0], opts...), u.readTrailer)
		u.opts = u.buffer
	}
	if r.setting.Hedged() {
		if reply, ok := r.reply.(proto.Message); ok {
			u.hedge = reply.ProtoReflect().Type()
		}
	}
	err := r.target.Call(ctx, r.setting, u)
	u.clear()
	r.target.spare.Put(u)
	return statusOfEnd(err)
}

// statusOfEnd returns the error of a context, which is what a call gets that ends in
// the queue of a bulkhead, as gRPC would.
func statusOfEnd(err error) error {
	if err == context.Canceled || err == context.DeadlineExceeded { //nolint:errorlint // nothing that wraps it
		return status.FromContextError(err).Err()
	}
	return err
}

// unaryCall is a unary call as the guard makes it. Its memory is used again.
type unaryCall struct {
	rpc
	opts []grpc.CallOption

	// The trailer of the last attempt; gRPC fills it where readTrailer is an option.
	trailer     metadata.MD
	readTrailer grpc.CallOption
	buffer      []grpc.CallOption // memory for options
	// hedge is the type of the reply where there may be twins: the reply itself must not
	// be looked at while the call runs. twin is what a twin was told.
	hedge protoreflect.MessageType
	twin  *twinAnswers
}

func newUnaryCall() *unaryCall {
	u := new(unaryCall)
	u.readTrailer = grpc.Trailer(&u.trailer)
	return u
}

// clear forgets the call and keeps the memory.
func (u *unaryCall) clear() {
	clear(u.buffer)
	*u = unaryCall{readTrailer: u.readTrailer, buffer: u.buffer[:0]}
}

// attemptKey is the metadata by which gRPC tells servers how often a call was tried
// before.
const attemptKey = "grpc-previous-rpc-attempts"

// Invoke implements guard.Invocation.
func (u *unaryCall) Invoke(ctx context.Context, attempt int) error {
	if attempt > 1 {
		u.trailer = nil
		ctx = metadata.AppendToOutgoingContext(ctx, attemptKey, strconv.Itoa(attempt-1))
	}
	return u.invoker(ctx, u.method, u.req, u.reply, u.cc, u.opts...)
}

// Result implements guard.Invocation.
func (u *unaryCall) Result(_ context.Context, err error) guard.Result {
	if err == nil {
		return guard.Result{}
	}
	r := u.connection.options.result(u.setting, err)
	readPushBack(&r, u.trailer)
	return r
}

// Twin implements guard.Invocation: a call with places of its own for all that gRPC
// writes.
func (u *unaryCall) Twin() guard.Invocation {
	if u.hedge == nil {
		return nil
	}
	t := newUnaryCall()
	t.rpc = u.rpc
	t.reply, t.twin = u.hedge.New().Interface(), new(twinAnswers)
	for _, o := range u.opts {
		switch o.(type) {
		case grpc.HeaderCallOption:
			o = grpc.Header(&t.twin.header)
		case grpc.TrailerCallOption:
			o = grpc.Trailer(&t.trailer)
		case grpc.PeerCallOption:
			o = grpc.Peer(&t.twin.peer)
		}
		t.opts = append(t.opts, o)
	}
	return t
}

// twinAnswers are what a caller may have asked to see.
type twinAnswers struct {
	header metadata.MD
	peer   peer.Peer
}

// Adopt implements guard.Invocation.
func (u *unaryCall) Adopt(twin guard.Invocation) {
	t, ok := twin.(*unaryCall)
	if !ok {
		return
	}
	reply := u.reply.(proto.Message)
	proto.Reset(reply)
	proto.Merge(reply, t.reply.(proto.Message))
	for _, o := range u.opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = t.twin.header
		case grpc.TrailerCallOption:
			*o.TrailerAddr = t.trailer
		case grpc.PeerCallOption:
			*o.PeerAddr = t.twin.peer
		}
	}
}
