package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Pool runs work for one dependency that is no call, on at most bulkhead.workers
// goroutines of its policy, with bulkhead.max_queue functions waiting: with none by
// default, work is refused while all workers are busy. Its bounds hold also where
// the policy only observes.
type Pool struct {
	dependency *guard.Dependency
	pool       *bulkhead.Pool

	sizing sync.Mutex                    // held while size changes
	size   atomic.Pointer[policy.Policy] // by which the pool was sized last
}

// PoolUse is what a pool has seen: its bounds, what runs and waits now, and since it
// was made, the functions that ended, that were refused and that panicked.
type PoolUse = bulkhead.PoolUse

// Pool returns the pool of workers of a dependency, the same one each time. Closing
// the client waits for what it runs.
func (c *Client) Pool(dependency string) *Pool {
	return c.resources.workers(c.calls.guard.Dependency(dependency), c.logger)
}

// Submit runs fn soon, on another goroutine. It does not wait: where no more work may
// wait, the error is a *Rejection, BulkheadFull, and fn is never called. fn gets ctx,
// and is called also if that has ended by then. A panic of fn is logged.
func (p *Pool) Submit(ctx context.Context, fn func(context.Context)) error {
	p.resize()
	err := p.pool.Submit(ctx, fn)
	if errors.Is(err, bulkhead.ErrFull) {
		return &Rejection{
			Reason: BulkheadFull, Dependency: p.dependency.Name(), Target: "pool", Code: codes.ResourceExhausted,
			Message: "all workers are busy, and no more work may wait",
		}
	}
	if err != nil {
		return fmt.Errorf("%s: submit work: %w", p.dependency.Name(), err)
	}
	return nil
}

// Use returns what the pool has seen.
func (p *Pool) Use() PoolUse {
	p.resize()
	return p.pool.Use()
}

func (p *Pool) resize() {
	if p.size.Load() == p.dependency.Policy() {
		return
	}
	p.sizing.Lock()
	defer p.sizing.Unlock()
	now := p.dependency.Policy()
	p.pool.Resize(now.Bulkhead.Workers, now.Bulkhead.MaxQueue)
	p.size.Store(now)
}

// resources are what a client keeps for dependencies apart from each other: workers
// and connections. The zero value is ready.
type resources struct {
	mu         sync.Mutex
	closed     bool
	pools      map[*guard.Dependency]*Pool
	transports map[*guard.Dependency]*transport
}

func (r *resources) workers(dependency *guard.Dependency, logger *slog.Logger) *Pool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pools[dependency]
	if ok {
		return p
	}
	name, now := dependency.Name(), dependency.Policy()
	p = &Pool{dependency: dependency, pool: bulkhead.NewPool(now.Bulkhead.Workers, now.Bulkhead.MaxQueue, func(value any, stack []byte) {
		logger.Error("work in a pool panicked", "dependency", name, "panic", value, "stack", string(stack))
	})}
	p.size.Store(now)
	if r.pools == nil {
		r.pools = map[*guard.Dependency]*Pool{}
	}
	r.pools[dependency] = p
	if r.closed {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.pool.Close(ended) // it is empty
	}
	return p
}

func (r *resources) transport(dependency *guard.Dependency) *transport {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.transports[dependency]
	if !ok {
		t = &transport{dependency: dependency}
		if r.transports == nil {
			r.transports = map[*guard.Dependency]*transport{}
		}
		r.transports[dependency] = t
	}
	return t
}

// close refuses more work and waits until what there is is done, or ctx ends, which
// ends the contexts of the work as well. It closes idle connections.
func (r *resources) close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	pools := slices.Collect(maps.Values(r.pools))
	for _, t := range r.transports {
		t.CloseIdleConnections()
	}
	r.mu.Unlock()
	var errs []error
	for _, p := range pools {
		if err := p.pool.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.dependency.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// transport is the connections of one dependency, as many as its policy allows.
type transport struct {
	dependency *guard.Dependency

	mu      sync.Mutex // held while current changes
	current atomic.Pointer[sizedTransport]
}

// sizedTransport is an http.Transport, whose settings cannot be changed, with those
// that it was made by.
type sizedTransport struct {
	*http.Transport
	by     *policy.Policy
	bounds transportBounds
}

type transportBounds struct {
	connections, idle int
	connect           time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.now().RoundTrip(req)
}

// CloseIdleConnections closes the connections that no request uses.
func (t *transport) CloseIdleConnections() {
	if now := t.current.Load(); now != nil {
		now.CloseIdleConnections()
	}
}

// now returns the transport that the policy allows now.
func (t *transport) now() *http.Transport {
	p := t.dependency.Policy()
	if now := t.current.Load(); now != nil && now.by == p {
		return now.Transport
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	next := &sizedTransport{by: p, bounds: transportBounds{p.Bulkhead.MaxConnections, p.Bulkhead.MaxConnections, p.Timeouts.Connect}}
	if p.Enforcement != policy.Enforce {
		next.bounds.connections = 0 // no bound
	}
	was := t.current.Load()
	switch {
	case was == nil:
		next.Transport = newTransport(next.bounds)
	case was.bounds == next.bounds:
		next.Transport = was.Transport
	default:
		next.Transport = newTransport(next.bounds)
		defer was.CloseIdleConnections() // those in use close after a while without any
	}
	t.current.Store(next)
	return next.Transport
}

func newTransport(b transportBounds) *http.Transport {
	dialer := &net.Dialer{Timeout: b.connect, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
		MaxConnsPerHost: b.connections, MaxIdleConns: b.idle, MaxIdleConnsPerHost: b.idle,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: b.connect, ExpectContinueTimeout: time.Second,
	}
}
