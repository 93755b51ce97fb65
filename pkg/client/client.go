package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/seam"
	"github.com/holdfast-dev/holdfast/internal/session"
	"github.com/holdfast-dev/holdfast/internal/version"
)

// Client is the SDK of one process. It is made by Open.
type Client struct {
	config   Config
	logger   *slog.Logger
	clock    *clock.Clock
	identity identity
	holder   *holder
	events   *bus
	calls    *calls
	session  *session.Session // nil without servers
	peers    *peers           // nil without gossip
	// suspected hears of what happens to dependencies; nil while nobody does.
	suspected atomic.Pointer[fleet.Member]
	// resources are the worker pools and connection pools of dependencies.
	resources resources

	connection atomic.Pointer[ConnectionChanged] // what was told last
	empty      bool                              // of viewChanged: the namespace was

	ready  chan struct{} // closed once there is a view
	once   sync.Once     // closes ready
	wake   chan struct{} // tells upkeep that ends may have changed
	stop   context.CancelFunc
	upkeep sync.WaitGroup
	closed chan struct{} // closed when everything has stopped
	closer sync.Once
	failed error // why closing did not work; read after closed
}

// Open returns at once where a view is cached; otherwise it waits for the first one
// for OpenTimeout, or until ctx ends, and then goes on with the defaults of the
// code. The error says what is wrong with the configuration; nothing else is one.
// What ctx does later means nothing to the client.
func Open(ctx context.Context, config Config) (*Client, error) {
	c, err := build(config, clock.New())
	if err != nil {
		return nil, err
	}
	local := c.decideLocally()
	if len(config.Servers) > 0 {
		if err := c.connect(); err != nil {
			c.calls.Close()
			return nil, errors.Join(err, c.identity.release())
		}
	} else {
		c.logger.Info("no servers: only the code decides")
	}
	c.start(local)
	c.await(ctx)
	return c, nil
}

// decideLocally obeys what is decided at the process itself. It returns the file to
// follow; nil for none. A process that is disabled has its session all the same, so
// that operators see it, and why it does not obey.
func (c *Client) decideLocally() *localFile {
	if disabledByEnvironment() {
		c.logger.Warn("HOLDFAST_DISABLE is set: nothing is enforced, and flags have the values of the code", "value", os.Getenv(disableEnv))
		c.holder.decideLocally(&flags.Local{Disable: true}, disableEnv)
		return nil
	}
	path := cmp.Or(c.config.LocalOverrides, os.Getenv(localEnv))
	if path == "" {
		return nil
	}
	local := &localFile{path: path, logger: c.logger}
	local.follow(c.holder)
	if local.last == nil && local.failed == "" {
		c.logger.Info("watching the file of local overrides, which is not there yet", "file", path)
	}
	return local
}

// build makes a client that runs nothing yet.
func build(config Config, now *clock.Clock) (*Client, error) {
	config.Namespace = cmp.Or(config.Namespace, document.DefaultNamespace)
	if err := checkNames(&config); err != nil {
		return nil, err
	}
	base, err := settings(config.Policies)
	if err != nil {
		return nil, err
	}
	logger := config.Logger
	if logger == nil {
		logger = slog.Default()
	}
	config.Labels = maps.Clone(config.Labels)
	if config.Labels == nil {
		config.Labels = map[string]string{}
	}
	if service, ok := config.Labels["service"]; ok && service != config.Service {
		return nil, fmt.Errorf("open client: Labels: service is %q, but Service is %q; leave the label out", service, config.Service)
	}
	config.Labels["service"] = config.Service
	self, err := identify(&config)
	if err != nil {
		logger.Warn("the instance will have another id after a restart", "error", err)
	}
	config.InstanceID = self.id
	c := &Client{
		config: config, logger: logger, clock: now, identity: self, events: new(bus),
		ready: make(chan struct{}), wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	c.holder = newHolder(now, flags.Instance{ID: self.id, Labels: document.LabelsOf(config.Labels)}, base)
	c.holder.namespace, c.holder.alone = config.Namespace, len(config.Servers) == 0
	c.calls = newCalls(callsConfig{
		clock: now, coarse: config.CoarseClock, seed: rand.Uint64(), logger: logger, service: config.Service,
		replyBytes: config.ReplyCacheBytes, onBreaker: c.breakerChanged, onSuspicion: c.suspect,
	})
	c.holder.apply, c.holder.changed = c.calls.Apply, c.viewChanged
	c.holder.apply(c.holder.rules(c.holder.current.Load()))
	return c, nil
}

// checkNames refuses what every server would refuse.
func checkNames(config *Config) error {
	if config.Service == "" {
		return errors.New("open client: Service is empty; name the service that the process is an instance of")
	}
	if err := document.CheckName(config.Namespace); err != nil {
		return fmt.Errorf("open client: Namespace: %w", err)
	}
	if err := document.CheckName(drawID(config.Service)); err != nil { // the id of an instance begins with it
		return fmt.Errorf("open client: Service: %w", err)
	}
	if config.InstanceID != "" {
		if err := document.CheckName(config.InstanceID); err != nil {
			return fmt.Errorf("open client: InstanceID: %w", err)
		}
	}
	if err := checkGossip(config); err != nil {
		return err
	}
	for i, addr := range config.Servers {
		if err := checkServer(addr); err != nil {
			return fmt.Errorf("open client: Servers[%d]: %w", i, err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(config.Labels)) {
		if err := document.CheckName(key); err != nil {
			return fmt.Errorf("open client: Labels: %q: %w", key, err)
		}
	}
	return nil
}

// checkServer refuses what is no host:port.
func checkServer(addr string) error {
	if addr == "" {
		return errors.New("is empty; host:port is needed")
	}
	if scheme, rest, ok := strings.Cut(addr, "://"); ok {
		return fmt.Errorf("%q is a URL; leave out %q, so that %q remains, which has to be host:port", addr, scheme+"://", rest)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%w; host:port is needed", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has the port %q; a number up to 65535 is needed", addr, port)
	}
	return nil
}

// settings reads the policies given in code.
func settings(definitions map[string]string) (map[string]policy.Policy, error) {
	all := make(map[string]policy.Policy, len(definitions))
	for _, name := range slices.Sorted(maps.Keys(definitions)) {
		canonical, err := document.Canonical([]byte(definitions[name]))
		if err != nil {
			return nil, fmt.Errorf("open client: Policies: %s: %w", name, err)
		}
		p, violations := policy.Resolve(builtIn(name), canonical)
		if len(violations) > 0 {
			return nil, fmt.Errorf("open client: Policies: %s: %s", name, violations[0])
		}
		all[name] = p
	}
	return all, nil
}

// connect opens the session, which installs what the disk has.
func (c *Client) connect() error {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	// Later starts have later wall clocks, mostly; the server takes a lower one from
	// another process for what it is.
	incarnation := uint64(max(1, time.Now().UnixMilli()))
	if c.peers, err = newPeers(c); err != nil {
		return err
	}
	c.session, err = session.Open(session.Config{
		Servers: c.config.Servers, Namespace: c.config.Namespace, Handler: (*link)(c), Dir: c.config.CacheDir,
		Identity: session.Identity{
			ID: c.config.InstanceID, Service: c.config.Service, Labels: c.config.Labels,
			Incarnation: incarnation, SDK: "holdfast-go/" + version.Version, Host: host,
		},
		TLS: c.config.TLS, LocalAddr: c.config.LocalAddr, DialOptions: c.config.ServerDialOptions, Logger: c.logger,
		Gossip: c.peers.session(),
	})
	if err != nil {
		return fmt.Errorf("open client: %w", err)
	}
	if c.peers != nil {
		c.peers.start(c.session, incarnation)
	}
	return nil
}

// start begins the upkeep: ends of overrides, and the file of local ones.
func (c *Client) start(local *localFile) {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.upkeep.Go(func() { c.keepUp(ctx, local) })
}

// keepUp ends overrides by the own clock, and follows the file of local overrides.
func (c *Client) keepUp(ctx context.Context, local *localFile) {
	var poll <-chan time.Time
	if local != nil {
		ticker := time.NewTicker(localInterval)
		defer ticker.Stop()
		poll = ticker.C
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		was := c.holder.current.Load()
		if seam.Bug(seam.EndsNeedServer) {
			timer.Stop()
		} else if next := c.holder.expire(); next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
		if c.session != nil && c.holder.current.Load() != was { // what could not be obeyed may be another
			c.session.Acknowledge()
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		case <-poll:
			if local.follow(c.holder) && c.session != nil {
				c.session.Acknowledge()
			}
		}
	}
}

// await waits for the first view as long as Open may.
func (c *Client) await(ctx context.Context) {
	patience := c.config.OpenTimeout
	if patience == 0 {
		patience = defaultOpenTimeout
	}
	if c.session == nil || patience < 0 || c.holder.disabledBy() != "" {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.ready:
	case <-ctx.Done():
	case <-timer.C:
	}
	if now := c.holder.current.Load(); now.source != FromDefaults || now.disabled {
		return
	}
	told := []any{"servers", c.config.Servers}
	if err := c.session.Status().Err; err != nil {
		told = append(told, "error", err)
	}
	c.logger.Warn("no view of the control plane yet: the defaults of the code apply until there is one", told...)
}

// defaultOpenTimeout is how long Open waits where the configuration does not say.
const defaultOpenTimeout = 5 * time.Second

// Close ends every goroutine of the client and waits for that, also for fallbacks and
// work of pools that are under way, until ctx ends. What was made with it keeps
// answering from the last view, whose overrides no longer end. It may be called
// again.
func (c *Client) Close(ctx context.Context) error {
	c.closer.Do(func() {
		c.stop()
		go func() {
			defer close(c.closed)
			c.upkeep.Wait()
			c.failed = c.peers.close(ctx)
			if c.session != nil {
				c.failed = errors.Join(c.failed, c.session.Close(context.Background()))
			}
			// The host's functions come last: one that hangs keeps nothing from a
			// successor.
			c.failed = errors.Join(c.failed, c.identity.release(), c.resources.close(ctx))
			c.events.close()
			c.calls.Close()
		}()
	})
	select {
	case <-c.closed:
		return c.failed
	case <-ctx.Done():
		return fmt.Errorf("close client: %w", ctx.Err())
	}
}

// viewChanged tells of another view.
func (c *Client) viewChanged(v ViewChanged) {
	if c.holder.source != FromDefaults {
		c.once.Do(func() { close(c.ready) })
	}
	if now := c.holder.current.Load(); now.empty != c.empty {
		if c.empty = now.empty; c.empty {
			c.logger.Warn(emptyNamespace(c.config.Namespace)) //nolint:sloglint // the words of Status
		}
	}
	c.look()
	c.events.tell(Event{Time: c.clock.Wall(), View: &v})
}

// look lets upkeep look again at what ends.
func (c *Client) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// breakerChanged tells of another state of a breaker.
func (c *Client) breakerChanged(e guard.BreakerEvent) {
	c.events.tell(Event{Time: e.Wall, Breaker: &BreakerChanged{
		Dependency: e.Dependency, Target: e.Target, From: e.From.String(), To: e.To.String(), Reason: e.Reason.String(), By: e.By,
		Calls: e.Counts.Calls, Failures: e.Counts.Failures, Slow: e.Counts.Slow, OpenFor: e.OpenFor,
	}})
}
