package session

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// maxMessageBytes is the largest message that is taken from a server; servers
	// send chunks of at most 1 MiB.
	maxMessageBytes = 4 << 20
	// maxProblems is how many problems servers are told of; they learn the number of
	// all.
	maxProblems = 32
	// maxProblemBytes is how much of a problem's message servers are told.
	maxProblemBytes = 512
)

// dialOptions are those of every connection.
func dialOptions(c *Config) []grpc.DialOption {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport(c.TLS)),
		// The session tries again by itself.
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		// It ends attempts by itself, too.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 2 * connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithUserAgent(c.Identity.SDK),
	}
	if c.LocalAddr != "" {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.LocalAddr)}, KeepAlive: 15 * time.Second}
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr)
		}))
	}
	return append(options, c.DialOptions...)
}

func transport(config *tls.Config) credentials.TransportCredentials {
	if config == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(config)
}

// hello opens a session. Its cursor is left out where a snapshot is needed.
func (s *Session) hello() *holdfastv1.ConnectRequest {
	st, id := s.Status(), &s.config.Identity
	hello := &holdfastv1.Hello{
		Namespace: s.config.Namespace,
		Identity: &holdfastv1.Identity{
			Id: id.ID, Service: id.Service, Labels: id.Labels, Incarnation: id.Incarnation, Sdk: id.SDK, Host: id.Host,
		},
		ProgressInterval: durationpb.New(s.config.ProgressInterval),
		Source:           holdfastv1.Source(st.Source),
		Gossip:           s.gossipState(),
	}
	if hello.Cursor = s.cursor(); hello.Cursor != nil {
		hello.Root = st.Root[:]
	}
	return &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{Hello: hello}}
}

// watchRequest opens a watch at a server of the previous version.
func (s *Session) watchRequest() *holdfastv1.WatchRequest {
	return &holdfastv1.WatchRequest{
		Namespace: s.config.Namespace, Cursor: s.cursor(), ProgressInterval: durationpb.New(s.config.ProgressInterval),
	}
}

// cursor is where the server is to go on; nil asks for a snapshot.
func (s *Session) cursor() *holdfastv1.Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resync {
		return nil
	}
	return s.held.Position().Proto()
}

// ack tells what the instance obeys; nil while that is nothing.
func (s *Session) ack() *holdfastv1.Ack {
	held := s.Mirror()
	at, root := held.Position(), held.Root()
	if !at.Set() {
		return nil
	}
	var report Report
	s.contained(func() { report = s.config.Handler.Report() })
	ack := &holdfastv1.Ack{
		Epoch: at.Epoch.Proto(), Revision: at.Revision, Root: root[:],
		ProblemCount: uint32(len(report.Problems)), OverriddenBy: report.OverriddenBy,
	}
	for _, p := range report.Problems[:min(len(report.Problems), maxProblems)] {
		ack.Problems = append(ack.Problems, &holdfastv1.InstanceProblem{Key: p.Key.Proto(""), Message: cut(p.Message)})
	}
	return ack
}

// cut shortens a message, and makes it one that can be sent.
func cut(message string) string {
	if len(message) > maxProblemBytes {
		const more = "…"
		message = message[:maxProblemBytes-len(more)] + more
	}
	return strings.ToValidUTF8(message, "")
}
