package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/api"
	monotonic "github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/gossip"
)

const (
	// maxPools is how many pools of instances a server is in at once, one for each
	// namespace in use; a further one is refused with NO_GOSSIP until one has been idle.
	maxPools = 64
	// poolIdle is how long a server stays in a pool that nobody uses.
	poolIdle = 10 * time.Minute
	// poolLook is how often pools are looked after beside changes, and poolPause the
	// least time between two looks.
	poolLook  = 2 * time.Second
	poolPause = 50 * time.Millisecond
)

// pools is this server's part in the gossip of instances. It implements api.Fleet.
type pools struct {
	n        *Node
	listener *gossip.Listener
	clock    *monotonic.Clock
	idle     time.Duration

	mu     sync.Mutex // guards open and what instancePool says
	open   map[string]*instancePool
	gone   poolTotals // of the pools that were left
	closed bool
}

var _ api.Fleet = (*pools)(nil)

func newPools(n *Node, listener *gossip.Listener) *pools {
	return &pools{n: n, listener: listener, clock: monotonic.New(), idle: poolIdle, open: make(map[string]*instancePool)}
}

// Pool implements api.Fleet.
func (p *pools) Pool(namespace string) (api.FleetPool, func(), error) {
	if err := p.n.Serving(); err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, api.Errorf(api.ReasonDraining, "this server is shutting down")
	}
	pool, ok := p.open[namespace]
	if !ok {
		if len(p.open) >= maxPools {
			return nil, nil, api.Errorf(api.ReasonNoGossip, "this server is in the pools of %d namespaces, and can be in no more; it leaves one that nobody has used for %s", maxPools, p.idle)
		}
		pool = newInstancePool(p, namespace)
		if err := pool.start(p.siblings()); err != nil {
			pool.close(context.Background())
			return nil, nil, api.Errorf(api.ReasonNoGossip, "this server cannot join the pool of %s: %v", namespace, err)
		}
		p.open[namespace] = pool
	}
	pool.users++
	return pool, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		pool.users--
		pool.idleSince = time.Now()
	}), nil
}

// stateTime is the time by which certificates end; zero while it is not known.
func (p *pools) stateTime() time.Time {
	if !p.n.clock.known() {
		return time.Time{}
	}
	return p.n.clock.estimate()
}

// siblings returns where the other servers gossip.
func (p *pools) siblings() []string {
	self := p.n.pool.Addr()
	var addrs []string
	for _, m := range p.n.pool.Members() {
		if m.Addr != self {
			addrs = append(addrs, m.Addr)
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

// all returns the pools that this server is in.
func (p *pools) all() []*instancePool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*instancePool, 0, len(p.open))
	for _, pool := range p.open {
		all = append(all, pool)
	}
	return all
}

// keep saves the charter after each change, keeps the pools in step with it and with
// the state, and leaves those that nobody uses.
func (p *pools) keep(ctx context.Context) {
	ticker := time.NewTicker(poolLook)
	defer ticker.Stop()
	var saved <-chan struct{}
	for {
		changed, moved := p.n.charter.Changed(), p.n.changed.wait()
		if changed != saved {
			if err := p.n.saveCharter(); err != nil {
				p.n.log.Error("cannot write down what the servers agree on about gossip", "error", err)
			} else {
				saved = changed
			}
		}
		siblings := p.siblings()
		for _, pool := range p.all() {
			pool.update(ctx, siblings)
		}
		p.leaveIdle(ctx, time.Now())
		p.tellHeads(ctx, moved, changed, ticker.C)
		if ctx.Err() != nil {
			return
		}
	}
}

// tellHeads passes on each change of the state, until there is more to look after.
func (p *pools) tellHeads(ctx context.Context, moved, changed <-chan struct{}, look <-chan time.Time) {
	for {
		for _, pool := range p.all() {
			pool.tellHead()
		}
		if !pause(ctx, poolPause) {
			return
		}
		select {
		case <-moved:
			moved = p.n.changed.wait()
		case <-changed:
			return
		case <-look:
			return
		case <-ctx.Done():
			return
		}
	}
}

// leaveIdle leaves the pools that nobody has used for long.
func (p *pools) leaveIdle(ctx context.Context, now time.Time) {
	p.mu.Lock()
	var left []*instancePool
	for namespace, pool := range p.open {
		if pool.users == 0 && now.Sub(pool.idleSince) >= p.idle {
			left = append(left, pool)
			delete(p.open, namespace)
			p.retire(pool)
		}
	}
	p.mu.Unlock()
	for _, pool := range left {
		pool.close(ctx)
	}
}

// close leaves all pools at once.
func (p *pools) close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	var leaving sync.WaitGroup
	for _, pool := range p.all() {
		leaving.Go(func() { pool.close(ctx) })
	}
	leaving.Wait()
	return nil
}
