package workload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Endpoint is the API of a server.
type Endpoint struct{ ID, Addr string }

// DialFunc connects a node to an address, from the node's own address.
type DialFunc func(ctx context.Context, node, addr string) (net.Conn, error)

const (
	// connectTimeout bounds a connection attempt: a lost SYN is repeated after 1 s.
	connectTimeout = 1500 * time.Millisecond
	// receiveLimit is the largest message taken from a server.
	receiveLimit = 4 << 20
)

// links are the connections of one client, one to each server, made when they are
// needed. Its methods may be called at the same time.
type links struct {
	node    string
	dial    DialFunc
	servers []Endpoint

	mu     sync.Mutex // guards the fields below
	conns  []*grpc.ClientConn
	closed bool
}

func newLinks(node string, c *Config) *links {
	return &links{node: node, dial: c.Dial, servers: c.Servers, conns: make([]*grpc.ClientConn, len(c.Servers))}
}

var errClosed = errors.New("the workload has stopped")

// at returns the connection to a server.
func (l *links) at(server int) (*grpc.ClientConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.conns[server] == nil {
		conn, err := l.open(l.servers[server].Addr)
		if err != nil {
			return nil, err
		}
		l.conns[server] = conn
	}
	return l.conns[server], nil
}

func (l *links) open(addr string) (*grpc.ClientConn, error) {
	retry := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 200 * time.Millisecond}
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: connectTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(receiveLimit)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return l.dial(ctx, l.node, addr) }),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn, nil
}

// state is the API of a server.
func (l *links) state(server int) (holdfastv1.StateServiceClient, *grpc.ClientConn, error) {
	conn, err := l.at(server)
	if err != nil {
		return nil, nil, err
	}
	return holdfastv1.NewStateServiceClient(conn), conn, nil
}

// renew gives up a connection that did not answer: after a cut the kernel repeats
// what was lost ever more rarely, and a careful client does not wait for that.
func (l *links) renew(server int, conn *grpc.ClientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[server] == conn && conn != nil {
		l.conns[server] = nil
		_ = conn.Close()
	}
}

func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, conn := range l.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}
