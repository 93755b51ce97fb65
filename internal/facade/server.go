package facade

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	evaluationv1 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

// Replica is this server's copy of the replicated state. Its methods are called
// concurrently.
type Replica interface {
	// View returns the state as it is now. It never blocks.
	View() *state.View
	// StateTime estimates the cluster's clock.
	StateTime() time.Time
	// Serving returns nil, or why this server must not answer.
	Serving() error
}

// Config says what a Server is made of.
type Config struct {
	// Replica and Hub are required. The hub tells of views of the replica.
	Replica Replica
	Hub     *watch.Hub
	// TLS secures the HTTP port; nil serves plaintext.
	TLS *tls.Config
	// Tokens are those that the HTTP port accepts; without any it asks for none.
	Tokens []string
	// Origins are those whose pages may read answers of the HTTP port; "*" stands
	// for all.
	Origins []string
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
	// Registerer gets the metrics; nil keeps them to the server.
	Registerer prometheus.Registerer
	// DrainJitter is the time over which Drain spreads the ends of open streams.
	DrainJitter time.Duration
}

// Server serves the façades of one server. Its methods may be called
// concurrently.
type Server struct {
	config  Config
	service *service
	access  access
	web     *http.Server
	conns   int // the most connections to the HTTP port
	// patience is how long is tried to send what was written.
	patience time.Duration

	stop     context.CancelFunc // ends the goroutine that follows the replica
	stopped  sync.WaitGroup
	requests requests // of the HTTP port
}

// healthInterval is how often the replica is asked whether it serves.
const healthInterval = 200 * time.Millisecond

// New builds a server and begins to follow the replica. Close has to be called in
// any case.
func New(config Config) *Server {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	m := newMetrics(config.Registerer)
	docs := &documents{limit: maxDocumentBytes, metrics: m, log: config.Logger, told: make(map[selector]bool)}
	v := newViews(config.Replica.View, config.Replica.StateTime)
	s := &Server{
		config: config, access: newAccess(config.Tokens, config.Origins), conns: maxConnections, patience: sendTime,
		service: &service{
			replica: config.Replica, views: v, metrics: m, documents: docs, now: time.Now, keepAlive: keepAlive, catchUp: maxCatchUp,
			feeds:   &feeds{views: v, hub: config.Hub, limit: maxSelectors, encode: docs.share, open: make(map[selector]*feed)},
			streams: newStreams(maxStreams),
		},
	}
	s.web = s.newWeb()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.stopped.Go(func() { s.followReplica(ctx) })
	return s
}

// Register adds the services to the gRPC port.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	syncv1.RegisterFlagSyncServiceServer(r, syncGRPC{syncUnary: syncUnary{s.service}})
	evaluationv1.RegisterServiceServer(r, evaluationV1GRPC{evaluationV1: evaluationV1{s.service}})
	evaluationv2.RegisterServiceServer(r, evaluationV2GRPC{evaluationV2: evaluationV2{s.service}})
}

// Serve answers HTTP until Drain or Close, and then returns nil. It closes the
// listener.
func (s *Server) Serve(l net.Listener) error {
	l = &boundedListener{Listener: l, limit: int64(s.conns)}
	var err error
	if s.config.TLS != nil {
		err = s.web.ServeTLS(l, "", "")
	} else {
		err = s.web.Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve flags on %s: %w", l.Addr(), err)
	}
	return nil
}

// Drain ends the service politely: streams end spread over the jitter window, on
// both ports, then requests under way are finished. What is not done soon after,
// or when ctx ends, is cut off: nobody's stop waits for a client that does not
// read. The server is closed afterwards.
func (s *Server) Drain(ctx context.Context) {
	s.service.streams.drain(ctx, s.config.DrainJitter, errDraining)
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := s.web.Shutdown(ctx); err != nil {
		s.config.Logger.Warn("requests for flags are cut off", "cause", err)
	}
	s.Close()
}

// Close ends the service at once and waits for its handlers. Those on the gRPC
// port have to have ended before, or end with it. It is idempotent.
func (s *Server) Close() {
	s.service.streams.drain(context.Background(), 0, errDraining)
	_ = s.web.Close() // closes listeners and connections, which may be closed
	s.requests.close()
	s.stop()
	s.stopped.Wait()
	s.service.feeds.running.Wait()
}

// followReplica ends the streams of a replica that stops serving: what they would
// be told next may be wrong.
func (s *Server) followReplica(ctx context.Context) {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for was := false; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := s.service.serving()
		if was && err != nil {
			s.service.streams.end(err)
		}
		was = err == nil
	}
}
