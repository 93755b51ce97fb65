package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/charter"
	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/facade"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/trust"
	"github.com/holdfast-dev/holdfast/internal/watch"
)

// minSnapshotInterval is how often the log of a server that keeps a very short one
// is looked at.
const minSnapshotInterval = 200 * time.Millisecond

// FatalError ends a server that cannot go on: its disk, its log or its state is
// not to be trusted, or the cluster has removed it.
type FatalError struct{ Err error }

// Error implements error.
func (e *FatalError) Error() string { return "cannot go on: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FatalError) Unwrap() error { return e.Err }

// Node is a server. It implements api.Replica.
type Node struct {
	config    Config
	log       *slog.Logger
	startTime time.Time
	tickEvery time.Duration
	// commandVersion is the highest that this server understands.
	commandVersion uint32
	validator      api.Validator

	machine *state.Machine
	hub     *watch.Hub
	clock   *clock
	fsm     *fsm
	changed signal // the state has changed

	// Set by Start, in this order.
	id          string
	dir         *dataDir
	promise     *promise
	recovery    *recovery
	tls         tlsConfigs
	dialOptions []grpc.DialOption
	flagTokens  []string
	hashes      *hashes
	raft        *consensus.Node
	apiAddr     string // what others dial
	httpAddr    string
	flagsAddr   string // empty where flags are not served over HTTP
	listeners   listeners
	pool        *gossip.Pool
	key         *trust.Key // what this server signs with
	charter     *charter.Charter
	saving      sync.Mutex      // held while the charter is written down
	toServers   *gossip.Channel // what the charter travels by
	stamp       stamp
	pools       *pools
	api         *api.Server
	facade      *facade.Server
	registry    *prometheus.Registry

	started    chan struct{} // closed when Start is done
	fatal      chan error    // holds the first fatal error
	fenced     atomic.Pointer[string]
	draining   atomic.Bool
	caughtUpAt atomic.Pointer[time.Time]
	strangers  map[string]string // the leader's: servers of other clusters, by lineage
	onStarted  func()
	stops      stops
}

// New returns a server that is not started.
func New(config Config, log *slog.Logger) *Node {
	n := &Node{
		config: config.clone(), log: log, startTime: time.Now(),
		tickEvery: tickInterval, commandVersion: state.Version, validator: flags.Validator{},
		machine: state.New(), clock: &clock{}, registry: prometheus.NewRegistry(),
		started: make(chan struct{}), fatal: make(chan error, 1), strangers: make(map[string]string),
		stops: stops{log: log},
	}
	n.hub = watch.NewHub(n.machine.View())
	n.fsm = &fsm{
		machine: n.machine, hub: n.hub, clock: n.clock, moved: n.changed.fire,
		ticked: func(index uint64, hash [32]byte) {
			view := n.machine.View()
			n.hashes.record(index, view.Revision(), hash)
			n.stamp.note(view)
		},
	}
	n.noteCaughtUp()
	return n
}

// Start opens everything and returns when the server listens; it may not belong
// to a cluster yet then. After an error, Stop releases what was opened.
func (n *Node) Start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		n.openDir, n.openSecurity, n.openRaft, n.openListeners, n.openPool, n.openServers,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	close(n.started)
	n.log.Info("server started", "id", n.id, "data_dir", n.dir.path,
		"api", n.apiAddr, "http", n.httpAddr, "flags", n.flagsAddr, "raft", n.raft.Addr(), "gossip", n.pool.Addr())
	return nil
}

func (n *Node) openDir(context.Context) error {
	if n.config.Dev {
		sweepDevDirs(os.TempDir(), time.Now(), n.log)
		temp, err := makeDevDir(os.TempDir())
		if err != nil {
			return err
		}
		n.config.DataDir = temp
		n.stops.push("temporary data", func(context.Context) error { return os.RemoveAll(temp) })
	}
	dir, err := openDataDir(n.config.DataDir)
	if err != nil {
		return err
	}
	n.dir = dir
	n.stops.push("data directory", func(context.Context) error { return dir.close() })
	if err := dir.removed(); err != nil {
		return err
	}
	if n.id, err = dir.nodeID(n.config.NodeID); err != nil {
		return err
	}
	n.log = n.log.With("server", n.id)
	if n.promise, err = openPromise(dir, n.id); err != nil {
		return err
	}
	if n.recovery, err = openRecovery(dir); err != nil {
		return err
	}
	n.hashes = newHashes(n.id)
	return nil
}

func (n *Node) openSecurity(context.Context) (err error) {
	if n.tls, err = loadTLS(&n.config); err != nil {
		return err
	}
	n.dialOptions = dialOptions(&n.config, n.tls.client)
	if n.config.FlagsTokenFile != "" {
		if n.flagTokens, err = facade.ReadTokens(n.config.FlagsTokenFile); err != nil {
			return fmt.Errorf("open flags-token-file: %w", err)
		}
	}
	return nil
}

// timing is the profile that the configuration names.
func timing(c *Config) consensus.Timing {
	t := consensus.DefaultTiming()
	if c.Timing == "slow" {
		t = consensus.SlowTiming()
	}
	if want := uint64(max(0, c.SnapshotThreshold)); want > 0 {
		// A short log is looked at as often as it may grow, and kept as short.
		if share := float64(want) / float64(t.SnapshotThreshold); share < 1 {
			t.TrailingLogs = uint64(share * float64(t.TrailingLogs))
			t.SnapshotInterval = max(minSnapshotInterval, time.Duration(share*float64(t.SnapshotInterval)))
		}
		t.SnapshotThreshold = want
	}
	return t
}

// advertised is what others dial for an address listened on.
func (n *Node) advertised(bound string) string {
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return bound
	}
	if n.config.Advertise != "" {
		host = n.config.Advertise
	}
	return net.JoinHostPort(host, port)
}

func (n *Node) openRaft(context.Context) error {
	raft, err := consensus.Open(consensus.Config{
		ID: n.id, DataDir: n.dir.file(dirRaft), BindAddr: n.config.RaftAddr,
		AdvertiseAddr: n.advertised(n.config.RaftAddr), SourceIP: n.config.SourceIP,
		ServerTLS: n.tls.raft, ClientTLS: n.tls.client,
		Timing: timing(&n.config), DisableNudge: !n.config.Nudge, Logger: n.log,
		Lead: n.lead, OnFatal: n.fail,
	}, n.fsm)
	switch {
	case errors.Is(err, consensus.ErrCorrupt):
		return fmt.Errorf("open raft: %w: %w", ErrDamaged, err)
	case err != nil:
		return fmt.Errorf("open raft: %w", hinted(err))
	}
	n.raft = raft
	n.stops.push("raft", raft.Close)
	if raft.HasState() || !n.config.alone() {
		return nil
	}
	if err := raft.Bootstrap([]consensus.Member{{ID: n.id, Addr: raft.Addr(), Voter: true}}); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	return nil
}

// fail records the first fatal error. Consensus calls it.
func (n *Node) fail(err error) {
	if errors.Is(err, consensus.ErrRemoved) {
		// Written down, so that a restart by the service manager does not bring a
		// removed server back.
		err = errors.Join(fmt.Errorf("%w; delete %s to let it join as a new one", err, n.dir.path), n.dir.write(fileRemoved, nil))
	}
	select {
	case n.fatal <- err:
	default:
	}
}

// listeners are bound before the pool tells others of them, and are served once
// everything is there that an answer may need.
type listeners struct {
	api, http net.Listener
	flags     net.Listener // nil where flags are not served over HTTP
}

func (n *Node) openListeners(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if n.listeners.api, err = lc.Listen(ctx, "tcp", n.config.APIAddr); err != nil {
		return fmt.Errorf("listen for the API: %w", hinted(err))
	}
	n.stops.push("api listener", closing(n.listeners.api))
	if n.listeners.http, err = lc.Listen(ctx, "tcp", n.config.HTTPAddr); err != nil {
		return fmt.Errorf("listen for HTTP: %w", hinted(err))
	}
	n.stops.push("http listener", closing(n.listeners.http))
	n.apiAddr = n.advertised(n.listeners.api.Addr().String())
	n.httpAddr = n.listeners.http.Addr().String()
	if n.config.FlagsAddr == flagsOff {
		return nil
	}
	if n.listeners.flags, err = lc.Listen(ctx, "tcp", n.config.FlagsAddr); err != nil {
		return fmt.Errorf("listen for flags: %w", hinted(err))
	}
	n.stops.push("flags listener", closing(n.listeners.flags))
	n.flagsAddr = n.listeners.flags.Addr().String()
	return nil
}

// hinted says what to do about a port in use.
func hinted(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; if that is another server of yours, choose other ports with --port-base", err)
	}
	return err
}

// closing closes a listener that its server may have closed already.
func closing(l net.Listener) func(context.Context) error {
	return func(context.Context) error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("close listener: %w", err)
		}
		return nil
	}
}

func (n *Node) openPool(context.Context) error {
	keys, err := loadGossipKeys(n.config.GossipKeyFile)
	if err != nil {
		return err
	}
	if err := n.openCharter(keys); err != nil {
		return err
	}
	if size := n.meta().largest(); size > maxMetaBytes {
		return fmt.Errorf("open pool: the addresses of this server take %d bytes too many to be told to others; use shorter names", size-maxMetaBytes)
	}
	listener, err := gossip.Listen(gossip.ListenerConfig{
		BindAddr: n.config.GossipAddr, AdvertiseAddr: n.config.Advertise, SourceIP: n.config.SourceIP,
	})
	if err != nil {
		return fmt.Errorf("open pool: %w", hinted(err))
	}
	n.stops.push("gossip listener", func(context.Context) error { return listener.Close() })
	transport, err := listener.Transport(poolLabel)
	if err != nil {
		return fmt.Errorf("open pool: %w", err)
	}
	pool, err := gossip.New(gossip.Config{
		Name: n.id, Transport: transport, Label: poolLabel, Keys: keys, Meta: n.encodeMeta, Join: n.config.Join, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("open pool: %w", err)
	}
	broadcast := pool.AddState("hashes", n.hashes)
	n.toServers = pool.AddRecords("charter", n.charter)
	if err := pool.Start(); err != nil {
		return fmt.Errorf("open pool: %w", err)
	}
	n.pool = pool
	n.stops.push("pool", pool.Close)
	n.loop("observer", func(ctx context.Context) { n.observe(ctx, broadcast) })
	n.pools = newPools(n, listener)
	n.stops.push("pools of instances", n.pools.close)
	n.loop("keeper of pools", n.pools.keep)
	return nil
}

func (n *Node) openServers(context.Context) error {
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCollector(n))
	n.api = api.New(api.Config{
		Replica: n, Hub: n.hub, Validator: n.validator, ServerID: n.id,
		TLS: n.tls.api, DialOptions: n.dialOptions, Logger: n.log,
		Registerer: n.registry, DrainJitter: n.config.DrainJitter, TempDir: n.dir.path, MaxSessions: n.config.MaxSessions, Fleet: n.pools,
	})
	n.openFlags()
	web := &http.Server{
		Handler: n.handler(loopbackListener(n.listeners.http)), ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	// The API is pushed last and so stops first: health stays visible, and the
	// streams of flags on its port have ended when those of the other port do.
	n.serve("http", func() error { return web.Serve(n.listeners.http) }, web.Shutdown)
	closeFlags := func(context.Context) error { n.facade.Close(); return nil }
	if n.listeners.flags != nil {
		n.serve("flags", func() error { return n.facade.Serve(n.listeners.flags) }, closeFlags)
	} else {
		n.stops.push("flags", closeFlags)
	}
	n.serve("api", func() error { return n.api.Serve(n.listeners.api) }, func(context.Context) error { n.api.Close(); return nil })
	n.loop("synchronizer", n.synchronize)
	if !n.raft.HasState() {
		n.loop("founding", n.foundLoop)
	}
	return nil
}

// openFlags makes the façades and adds them to the API.
func (n *Node) openFlags() {
	n.facade = facade.New(facade.Config{
		Replica: n, Hub: n.hub, TLS: n.tls.flags, Tokens: n.flagTokens, Origins: n.config.FlagsCORSOrigins,
		Logger: n.log, Registerer: n.registry, DrainJitter: n.config.DrainJitter,
	})
	n.facade.Register(n.api.GRPC())
	if n.listeners.flags != nil && len(n.flagTokens) == 0 && !loopbackListener(n.listeners.flags) {
		n.log.Warn("everybody who reaches flags-addr can read all flags; flags-token-file has it ask for a token", "flags_addr", n.flagsAddr)
	}
}

// serve runs a server until its stop; one that fails before is fatal.
func (n *Node) serve(name string, run func() error, stop func(context.Context) error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("serve %s: %w", name, err))
		}
	}()
	n.stops.push(name, func(ctx context.Context) error {
		err := stop(ctx)
		<-done
		return err
	})
}

// loop runs a goroutine until its stop.
func (n *Node) loop(name string, run func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	n.stops.push(name, func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// Run starts the server and serves until ctx ends, and then stops in an orderly
// way. It returns nil, what went wrong at the start, or a *FatalError.
func (n *Node) Run(ctx context.Context) error {
	if err := n.Start(ctx); err != nil {
		return errors.Join(err, n.Stop(context.WithoutCancel(ctx)))
	}
	if n.onStarted != nil {
		n.onStarted()
	}
	select {
	case err := <-n.fatal:
		n.log.Error("the server cannot go on", "error", err)
		return &FatalError{err}
	case <-ctx.Done():
		return n.Drain(context.WithoutCancel(ctx))
	}
}

// Drain stops the server in an orderly way: it says that it is not ready, lets
// load balancers notice, hands over the leadership, ends the streams spread over
// the jitter, leaves the pool and stops.
func (n *Node) Drain(ctx context.Context) error {
	n.draining.Store(true)
	n.log.Info("draining", "delay", n.config.DrainDelay)
	pause(ctx, n.config.DrainDelay)
	ctx, cancel := context.WithTimeout(ctx, n.config.ShutdownTimeout)
	defer cancel()
	if n.raft.Status().Role == consensus.Leader && voters(n.raft.Members(), n.id) > 0 {
		if err := n.raft.Transfer(ctx, ""); err != nil {
			n.log.Warn("leadership not handed over; the others will elect", "error", err)
		}
	}
	// Together, as each spreads its streams over the jitter, and in half of the time:
	// a client that does not read must not take it from what stops after them.
	services, done := context.WithTimeout(ctx, n.config.ShutdownTimeout/2)
	var flags sync.WaitGroup
	flags.Go(func() { n.facade.Drain(services) })
	n.api.Drain(services)
	flags.Wait()
	done()
	err := n.Stop(ctx)
	n.log.Info("stopped")
	return err
}

// Stop releases everything at once, the latest first. It is idempotent.
func (n *Node) Stop(ctx context.Context) error { return n.stops.run(ctx) }

// WaitServing returns once the server answers, or when ctx ends.
func (n *Node) WaitServing(ctx context.Context) error {
	for {
		changed := n.changed.wait()
		if n.Serving() == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until the server serves: %w", ctx.Err())
		}
	}
}

// OnStarted has a function called by Run once the server listens. It must be set
// before Run.
func (n *Node) OnStarted(fn func()) { n.onStarted = fn }

// ID returns the server's identity; empty before Start.
func (n *Node) ID() string { return n.id }

// APIAddr returns where others reach the API; empty before Start.
func (n *Node) APIAddr() string { return n.apiAddr }

// HTTPAddr returns where health and metrics are; empty before Start.
func (n *Node) HTTPAddr() string { return n.httpAddr }

// FlagsAddr returns where flags are served over HTTP; empty before Start, and
// where they are not.
func (n *Node) FlagsAddr() string { return n.flagsAddr }

// RaftAddr returns where others reach Raft. It may not be called before Start.
func (n *Node) RaftAddr() string { return n.raft.Addr() }

// GossipAddr returns where others reach the pool. It may not be called before
// Start.
func (n *Node) GossipAddr() string { return n.pool.Addr() }

// Fatal holds the error that ends the server, when there is one.
func (n *Node) Fatal() <-chan error { return n.fatal }
