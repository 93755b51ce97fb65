package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
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
	// resources are the worker pools and connection pools of dependencies.
	resources resources

	connection atomic.Pointer[ConnectionChanged] // what was told last

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
	if disabledByEnvironment() {
		c.logger.Warn("HOLDFAST_DISABLE is set: nothing is enforced, and flags have the values of the code")
		c.holder.decideLocally(&flags.Local{Disable: true}, disableEnv)
		c.start(nil)
		return c, nil
	}
	var local *localFile
	if config.LocalOverrides != "" {
		local = &localFile{path: config.LocalOverrides, logger: c.logger}
	} else if path := os.Getenv(localEnv); path != "" {
		local = &localFile{path: path, logger: c.logger}
	}
	if local != nil {
		if l, changed := local.look(); changed {
			c.holder.decideLocally(l, local.path)
		}
	}
	if len(config.Servers) > 0 {
		if err := c.connect(); err != nil {
			return nil, errors.Join(err, c.identity.release())
		}
	}
	c.start(local)
	c.await(ctx)
	return c, nil
}

// build makes a client that runs nothing yet.
func build(config Config, now *clock.Clock) (*Client, error) {
	if config.Service == "" {
		return nil, errors.New("open client: Service is empty; name the service that the process is an instance of")
	}
	if config.Namespace == "" {
		config.Namespace = document.DefaultNamespace
	}
	if err := document.CheckName(config.Namespace); err != nil {
		return nil, fmt.Errorf("open client: Namespace: %w", err)
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
	c.calls = newCalls(callsConfig{
		clock: now, coarse: config.CoarseClock, seed: rand.Uint64(), logger: logger, service: config.Service,
		replyBytes: config.ReplyCacheBytes, onBreaker: c.breakerChanged,
	})
	c.holder.apply, c.holder.changed = c.calls.Apply, c.viewChanged
	c.holder.apply(c.holder.rules(c.holder.current.Load()))
	return c, nil
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
	c.session, err = session.Open(session.Config{
		Servers: c.config.Servers, Namespace: c.config.Namespace, Handler: (*link)(c), Dir: c.config.CacheDir,
		Identity: session.Identity{
			ID: c.config.InstanceID, Service: c.config.Service, Labels: c.config.Labels,
			// Later starts have later wall clocks, mostly; the server takes a
			// lower one from another process for what it is.
			Incarnation: uint64(max(1, time.Now().UnixMilli())), SDK: "holdfast-go/" + version.Version, Host: host,
		},
		TLS: c.config.TLS, LocalAddr: c.config.LocalAddr, DialOptions: c.config.ServerDialOptions, Logger: c.logger,
	})
	if err != nil {
		return fmt.Errorf("open client: %w", err)
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
		if next := c.holder.expire(); next > 0 {
			timer.Reset(min(next, time.Hour)) // by then the estimate of state time may be another one
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		case <-poll:
			if l, changed := local.look(); changed {
				c.holder.decideLocally(l, local.path)
				if c.session != nil {
					c.session.Report(c.holder.report())
				}
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
	if c.session == nil || patience < 0 {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.ready:
	case <-ctx.Done():
	case <-timer.C:
	}
	if c.holder.view() == nil {
		c.logger.Warn("no view of the control plane yet: the defaults of the code apply until there is one", "servers", c.config.Servers, "error", c.session.Status().Err)
	}
}

// defaultOpenTimeout is how long Open waits where the configuration does not say.
const defaultOpenTimeout = 5 * time.Second

// Close ends every goroutine of the client and waits for that until ctx ends. What
// was made with it keeps answering from the last view. It may be called again.
func (c *Client) Close(ctx context.Context) error {
	c.closer.Do(func() {
		c.stop()
		go func() {
			defer close(c.closed)
			c.upkeep.Wait()
			c.failed = c.resources.close(ctx)
			if c.session != nil {
				c.failed = errors.Join(c.failed, c.session.Close(context.Background()))
			}
			c.calls.Close()
			c.events.close()
			c.failed = errors.Join(c.failed, c.identity.release())
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
	select {
	case c.wake <- struct{}{}:
	default:
	}
	c.events.tell(Event{Time: c.clock.Wall(), View: &v})
}

// breakerChanged tells of another state of a breaker.
func (c *Client) breakerChanged(e guard.BreakerEvent) {
	c.events.tell(Event{Time: e.Wall, Breaker: &BreakerChanged{
		Dependency: e.Dependency, Target: e.Target, From: e.From.String(), To: e.To.String(), Reason: e.Reason.String(), By: e.By,
		Calls: e.Counts.Calls, Failures: e.Counts.Failures, Slow: e.Counts.Slow, OpenFor: e.OpenFor,
	}})
}
