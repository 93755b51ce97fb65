package cli

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/version"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// attemptTimeout is how long one server may take before the next is tried.
	attemptTimeout = 5 * time.Second
	// giveUpEarly is how long a command keeps trying while no server has answered
	// at all, unless --timeout was given: an operator who mistyped the address
	// wants to know it now.
	giveUpEarly = 2 * time.Second
	// leastAttempt is the time that a further attempt needs to be worth while. One
	// that is cut off would only make an outcome unknown that is known so far.
	leastAttempt = 250 * time.Millisecond
	// The pause between two rounds over all servers.
	minPause, maxPause = 100 * time.Millisecond, time.Second
	// maxMessageBytes is the largest answer that is accepted.
	maxMessageBytes = 16 << 20
)

// remote is the cluster as seen over the network: several addresses of servers
// that all answer the same. It is used by one goroutine.
type remote struct {
	addrs []string
	conns []*grpc.ClientConn
	// current is the address that answered last.
	current int
	// timeout bounds a whole operation, all attempts together.
	timeout time.Duration
	// patient keeps trying for all of timeout although nobody has ever answered.
	patient bool
	// answered tells whether a server has ever answered.
	answered bool
	// notice tells the user why it takes longer.
	notice func(format string, args ...any)
}

// newRemote prepares connections; nothing is dialled before the first call.
func newRemote(addrs []string, tlsConfig *tls.Config, timeout time.Duration) (*remote, error) {
	creds := insecure.NewCredentials()
	if tlsConfig != nil {
		creds = credentials.NewTLS(tlsConfig)
	}
	r := &remote{addrs: addrs, timeout: timeout, notice: func(string, ...any) {}}
	for _, addr := range addrs {
		conn, err := grpc.NewClient(addr,
			grpc.WithTransportCredentials(creds),
			// One retry loop is enough, and it is the one that knows request ids.
			grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
			grpc.WithUserAgent("holdfast-cli/"+version.Version),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: minPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxPause},
				MinConnectTimeout: attemptTimeout,
			}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		)
		if err != nil {
			r.close()
			return nil, usage("the address %q cannot be used: %v", addr, err)
		}
		r.conns = append(r.conns, conn)
	}
	return r, nil
}

// close ends all connections.
func (r *remote) close() {
	for _, conn := range r.conns {
		_ = conn.Close()
	}
}

// outcome is what the attempts of one operation have come to.
type outcome struct {
	// err is the failure to report: what a server said, if one said anything.
	err error
	// fromServer tells that a server said it.
	fromServer bool
	// maybeApplied tells that an attempt may have had its effect.
	maybeApplied bool
}

// add takes in another failure. What a server said is worth more to the reader
// than a failed connection, and that more than running out of time.
func (o *outcome) add(err error) {
	info := errorInfo(err)
	late := info == nil && status.Code(err) == codes.DeadlineExceeded
	if info != nil || o.err == nil || !o.fromServer && !late {
		o.err = err
	}
	o.fromServer = o.fromServer || info != nil
	o.maybeApplied = o.maybeApplied || !definite(err)
}

// definite tells that an attempt had no effect. What carries no reason was not
// made by a handler but by gRPC, which refuses before a handler runs, or by a
// connection that broke, which says nothing.
func definite(err error) bool {
	if info := errorInfo(err); info != nil {
		return info.GetMetadata()["outcome"] == "definite"
	}
	switch status.Code(err) {
	case codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.ResourceExhausted:
		return true
	default:
		return neverSent(err)
	}
}

// call runs f against one server after the other until one answers, a server
// gives a final answer, or the time is over. Every f must be safe to repeat:
// a read, or a write with a request id. The age is the time since the first
// attempt, 0 on the first.
func (r *remote) call(ctx context.Context, f func(ctx context.Context, conn *grpc.ClientConn, age time.Duration) error) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var sum outcome
	begin := time.Now()
	attempts, told := 0, false
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		for range r.addrs {
			var age time.Duration
			if attempts > 0 {
				age = max(time.Since(begin), time.Millisecond)
				if r.timeout-age < leastAttempt {
					return sum, sum.err
				}
			}
			attempts++
			err := r.attempt(ctx, age, f)
			if err == nil {
				r.answered = true
				return sum, nil
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				sum.add(err)
				return sum, errInterrupted
			}
			sum.add(err)
			r.answered = r.answered || sum.fromServer
			if !repeatable(err) {
				sum.err = err
				return sum, err
			}
			r.current = (r.current + 1) % len(r.addrs)
			if ctx.Err() != nil {
				return sum, sum.err
			}
		}
		if !r.answered && !r.patient && time.Since(begin) > giveUpEarly {
			return sum, sum.err
		}
		if !told {
			told = true
			r.notice("%s; trying again for up to %s", briefly(sum.err), humanLimit(r.limit()))
		}
		if !sleep(ctx, pause/2+mathrand.N(pause/2)) {
			if errors.Is(ctx.Err(), context.Canceled) {
				return sum, errInterrupted
			}
			return sum, sum.err
		}
	}
}

// limit is how long call keeps trying as things stand.
func (r *remote) limit() time.Duration {
	if !r.answered && !r.patient {
		return min(giveUpEarly, r.timeout)
	}
	return r.timeout
}

// attempt runs f once against the current server.
func (r *remote) attempt(ctx context.Context, age time.Duration, f func(context.Context, *grpc.ClientConn, time.Duration) error) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return f(ctx, r.conns[r.current], age)
}

// repeatable tells whether another server, or the same one later, may do better.
func repeatable(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// sleep waits, and returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// query runs a read. Reads have no effect, so how often they were tried does not
// matter to anybody.
func query[Req, Res any](
	ctx context.Context, r *remote, req Req,
	method func(*grpc.ClientConn) func(context.Context, Req, ...grpc.CallOption) (Res, error),
) (Res, error) {
	var res Res
	_, err := r.call(ctx, func(ctx context.Context, conn *grpc.ClientConn, _ time.Duration) error {
		var err error
		res, err = method(conn)(ctx, req)
		return err
	})
	return res, err
}

// once runs a call that must not be repeated blindly: it has no request id. Only
// servers that were never reached are passed over.
func once[Req, Res any](
	ctx context.Context, r *remote, req Req,
	method func(*grpc.ClientConn) func(context.Context, Req, ...grpc.CallOption) (Res, error),
) (Res, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var res Res
	var err error
	for range r.addrs {
		res, err = method(r.conns[r.current])(ctx, req)
		if err == nil || !neverSent(err) {
			return res, err
		}
		r.current = (r.current + 1) % len(r.addrs)
	}
	return res, err
}

// apply commits a transaction. Every retry carries the same request id and the
// age of the write, so the transaction is applied at most once.
func (r *remote) apply(ctx context.Context, req *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
	req.RequestId = make([]byte, 16)
	if _, err := rand.Read(req.RequestId); err != nil {
		return nil, fmt.Errorf("draw request id: %w", err)
	}
	var res *holdfastv1.ApplyResponse
	sum, err := r.call(ctx, func(ctx context.Context, conn *grpc.ClientConn, age time.Duration) error {
		if age > 0 {
			req.Age = durationpb.New(age)
		}
		var err error
		res, err = holdfastv1.NewStateServiceClient(conn).Apply(ctx, req)
		return err
	})
	if err == nil {
		return res, nil
	}
	if sum.maybeApplied && !req.GetDryRun() {
		return nil, unknownOutcome(req.GetRequestId(), sum.err, errors.Is(err, errInterrupted))
	}
	if errors.Is(err, errInterrupted) {
		return nil, fail(exitInterrupted, "interrupted; nothing was changed")
	}
	return nil, err
}

// unknownOutcome says that a write may have happened, and how to find out.
func unknownOutcome(id []byte, err error, interrupted bool) error {
	f := fail(exitUnavailable, "it is not known whether the change was made: %s", briefly(err))
	if interrupted {
		f.code = exitInterrupted
	}
	if code, _ := advice(errorInfo(err).GetReason()); code != 0 {
		f.code = code
	}
	f.cause = err
	return f.detail("request id %x", id).
		hint("look with `holdfast audit --limit 5` whether it is there; sending it again sets the same state")
}
