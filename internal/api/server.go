package api

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/holdfast-dev/holdfast/internal/registry"
	"github.com/holdfast-dev/holdfast/internal/watch"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Config says what a Server is made of.
type Config struct {
	// Replica, Hub, Validator and ServerID are required. ServerID is the id that
	// Replica.Leader and Replica.Members use for this server.
	Replica   Replica
	Hub       *watch.Hub
	Validator Validator
	ServerID  string
	// TLS secures the API and tells who calls; nil serves plaintext, where
	// everybody is an unverified operator.
	TLS *tls.Config
	// DialOptions are for connections to other servers: credentials, source
	// address. Without credentials the connections are plaintext.
	DialOptions []grpc.DialOption
	// Fleet is this server's part in the gossip of instances; nil for none.
	Fleet Fleet
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
	// Registerer gets the metrics; nil keeps them to the server.
	Registerer prometheus.Registerer
	// MaxSessions is how many sessions of instances the server takes; 0 means
	// DefaultSessions.
	MaxSessions int
	// DrainJitter is the time over which Drain spreads the ends of open streams.
	DrainJitter time.Duration
	// TempDir is where a backup that is being restored is spooled; empty means
	// the system's directory.
	TempDir string
}

// Server serves the API of one server. Its methods may be called concurrently.
type Server struct {
	config   Config
	metrics  *metrics
	grpc     *grpc.Server
	health   *health.Server
	streams  *streams
	peers    *peers
	leaders  *leadership
	sessions *sessionService

	stop    context.CancelFunc // ends the goroutine that follows the health
	stopped sync.WaitGroup
}

// windowBytes is what a client may send ahead of the server.
const windowBytes = 1 << 20

// healthInterval is how often the replica is asked whether it serves.
const healthInterval = 200 * time.Millisecond

// services returns those whose health is told apart from the server's.
func services() []string {
	return []string{
		"", holdfastv1.StateService_ServiceDesc.ServiceName, holdfastv1.ClusterService_ServiceDesc.ServiceName,
		holdfastv1.SessionService_ServiceDesc.ServiceName, holdfastv1.InstanceService_ServiceDesc.ServiceName,
		holdfastv1.FleetService_ServiceDesc.ServiceName,
	}
}

// New builds a server and begins to follow the replica's health. It serves
// nothing until Serve. Close has to be called in any case.
func New(config Config) *Server {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	m := newMetrics(config.Registerer)
	s := &Server{
		config:  config,
		metrics: m,
		health:  health.NewServer(),
		streams: newStreams(cmp.Or(config.MaxSessions, DefaultSessions), m),
		peers:   newPeers(config.DialOptions),
	}
	s.leaders = &leadership{replica: config.Replica, self: config.ServerID, peers: s.peers, metrics: m, wait: MaxLeaderWait}
	reader := &reader{replica: config.Replica, leaders: s.leaders, self: config.ServerID, wait: MaxReadWait}
	s.grpc = grpc.NewServer(s.options(m)...)
	encoder, known := newEncoder(m), registry.New()
	holdfastv1.RegisterStateServiceServer(s.grpc, &stateService{
		reader: reader, leaders: s.leaders, validator: config.Validator, hub: config.Hub,
		encoder: encoder, writeTime: MaxWriteTime,
	})
	instances := &instanceService{reader: reader, peers: s.peers, registry: known}
	holdfastv1.RegisterInstanceServiceServer(s.grpc, instances)
	spaces := &fleetSpaces{
		fleet: config.Fleet, instances: instances, metrics: m, checks: make(slots, MaxVerifications), spaces: make(map[string]*fleetSpace),
	}
	holdfastv1.RegisterFleetServiceServer(s.grpc, &fleetService{
		replica: config.Replica, self: config.ServerID, leaders: s.leaders, spaces: spaces,
		policies: &policyViews{views: make(map[string]policyView)},
	})
	s.sessions = &sessionService{
		spaces: spaces, heads: newSignedHeads(config.Fleet, config.Logger),
		replica: config.Replica, self: config.ServerID, hub: config.Hub, encoder: encoder,
		metrics: m, registry: known, logger: config.Logger, helloTime: MaxHelloTime, staleTime: staleTime,
	}
	holdfastv1.RegisterSessionServiceServer(s.grpc, s.sessions)
	registerBehind(config.Registerer, s.sessions.behind)
	holdfastv1.RegisterClusterServiceServer(s.grpc, &clusterService{
		reader: reader, leaders: s.leaders, streams: s.streams, tempDir: config.TempDir,
		backups: make(slots, MaxBackups), restores: make(slots, MaxRestores), transferWait: 2 * time.Second,
	})
	peerv1.RegisterPeerServiceServer(s.grpc, &peerService{replica: config.Replica, instances: instances, fleet: config.Fleet})
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.followHealth()
	return s
}

// options returns how the gRPC server behaves.
func (s *Server) options(m *metrics) []grpc.ServerOption {
	creds := insecure.NewCredentials()
	if s.config.TLS != nil {
		creds = credentials.NewTLS(s.config.TLS)
	}
	g := &gate{replica: s.config.Replica, streams: s.streams}
	panics := recovered(s.config.Logger)
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(newCodec()),
		// Metrics are outermost to see the final code; a panic is caught before it
		// reaches the table.
		grpc.ChainUnaryInterceptor(m.unary, errorsUnary, recovery.UnaryServerInterceptor(panics), g.unary),
		grpc.ChainStreamInterceptor(m.stream, errorsStream, recovery.StreamServerInterceptor(panics), g.stream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		// Windows of a fixed size: gRPC would measure the link instead, with a ping for
		// each message of a quiet connection, which is what an Ack is.
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(windowBytes),
		grpc.MaxConcurrentStreams(MaxStreamsPerConnection),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true),
	}
}

// GRPC returns the gRPC server with every service registered. Further services
// may be registered before Serve; their methods need a rule.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Serve answers connections until Drain or Close, and then returns nil. It closes
// the listener.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve API on %s: %w", l.Addr(), err)
	}
	return nil
}

// Synchronize returns once this server has applied all that was acknowledged
// before the call, and knows the cluster's clock. It fails when ctx ends, or when no
// leader answers in time.
func (s *Server) Synchronize(ctx context.Context) error {
	index, err := s.leaders.readIndex(ctx)
	if err != nil {
		return fmt.Errorf("synchronize with the leader: %w", err)
	}
	if err := s.config.Replica.WaitApplied(ctx, index); err != nil {
		return fmt.Errorf("synchronize with the leader: %w", err)
	}
	return nil
}

// Drain ends the service politely: health says NOT_SERVING, watches end spread
// over the jitter window, then calls under way are finished. What is not done
// when ctx ends is cut off. The server is closed afterwards.
func (s *Server) Drain(ctx context.Context) {
	s.stop()
	s.stopped.Wait()
	s.health.Shutdown()
	s.streams.drain(ctx, s.config.DrainJitter, Errorf(ReasonDraining, "this server is shutting down"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.Close()
	<-done
}

// Close ends the service at once and waits for the handlers. It is idempotent.
func (s *Server) Close() {
	s.stop()
	s.stopped.Wait()
	s.health.Shutdown()
	s.grpc.Stop()
	s.sessions.readers.Wait()
	s.peers.close()
}

// followHealth starts the goroutine that tells the health service whether the
// replica serves.
func (s *Server) followHealth() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	serving := s.setHealth(false)
	s.stopped.Go(func() {
		ticker := time.NewTicker(healthInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				serving = s.setHealth(serving)
			case <-ctx.Done():
				return
			}
		}
	})
}

// setHealth sets the health. A replica that stops serving also loses its
// watches: what they would be told next may be wrong.
func (s *Server) setHealth(was bool) bool {
	status := grpc_health_v1.HealthCheckResponse_SERVING
	err := servingError(s.config.Replica)
	if err != nil {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	for _, service := range services() {
		s.health.SetServingStatus(service, status)
	}
	serving := err == nil
	if was && !serving {
		s.config.Logger.Warn("the API stopped serving", "cause", err)
		s.streams.endFollowing(err)
	}
	if !was && serving {
		s.config.Logger.Info("the API serves")
	}
	return serving
}
