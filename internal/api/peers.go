package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"

	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
)

// peers keeps one connection per address of another server.
type peers struct {
	opts []grpc.DialOption

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

var errPeersClosed = errors.New("the server is closing")

// newPeers returns an empty cache. Without options the connections are
// plaintext; options given win over the defaults.
func newPeers(opts []grpc.DialOption) *peers {
	defaults := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A leader that comes back has to be found at once, not after gRPC's two
		// minutes of backoff.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		// The timeout also bounds how long sent bytes may stay unacknowledged, so a
		// forwarded write does not hang on a leader that has vanished.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes)),
		grpc.WithDisableServiceConfig(),
		grpc.WithStatsHandler(sentTracker{}),
	}
	return &peers{opts: append(defaults, opts...), conns: make(map[string]*grpc.ClientConn)}
}

// client returns the client of the server at addr. It dials nothing: the first
// call does.
func (p *peers) client(addr string) (peerv1.PeerServiceClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPeersClosed
	}
	conn, ok := p.conns[addr]
	if !ok {
		var err error
		if conn, err = grpc.NewClient("passthrough:///"+addr, p.opts...); err != nil {
			return nil, fmt.Errorf("dial server %s: %w", addr, err)
		}
		p.conns[addr] = conn
	}
	return peerv1.NewPeerServiceClient(conn), nil
}

// prune closes connections to addresses that no member has, once there are many.
func (p *peers) prune(members []Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) <= max(maxPeerConnections, len(members)) {
		return
	}
	present := make(map[string]bool, len(members))
	for _, m := range members {
		present[m.APIAddr] = true
	}
	for addr, conn := range p.conns {
		if !present[addr] {
			_ = conn.Close() // nothing can be done about it
			delete(p.conns, addr)
		}
	}
}

// close ends every connection; calls under way fail.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conn := range p.conns {
		_ = conn.Close() // nothing can be done about it
	}
	clear(p.conns)
}

// call runs one call against the server at addr. A failure that the other server
// explained is returned as it is. Otherwise its reason is NO_LEADER when the
// request never left this server, and UNKNOWN_OUTCOME when it may have arrived.
func (p *peers) call(ctx context.Context, addr string, f func(context.Context, peerv1.PeerServiceClient) error) error {
	client, err := p.client(addr)
	if err != nil {
		return newError(ReasonDraining, err, "cannot call the server at %s: %v", addr, err)
	}
	var sent atomic.Bool
	err = f(context.WithValue(ctx, sentKey{}, &sent), client)
	switch {
	case err == nil, reasonOf(err) != "":
		return err
	case sent.Load():
		return newError(ReasonUnknownOutcome, err, "the server at %s did not answer: %v", addr, err)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return newError(ReasonNoLeader, err, "cannot reach the server at %s: %v", addr, err)
	}
}

// sentTracker notes that a request has left, which the status of a failed call
// does not tell: UNAVAILABLE means both.
type sentTracker struct{}

type sentKey struct{}

// TagRPC implements stats.Handler.
func (sentTracker) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (sentTracker) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}

// TagConn implements stats.Handler.
func (sentTracker) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (sentTracker) HandleConn(context.Context, stats.ConnStats) {}
