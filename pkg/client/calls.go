package client

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/degrade"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// calls is what all transports share: the guard, the degradation, and for each
// method and operation the target in which the two meet.
type calls struct {
	guard    *guard.Guard
	degrader *degrade.Degrader
	clock    *clock.Clock
	logger   *slog.Logger
	service  string
	off      atomic.Bool
	// connections numbers gRPC connections.
	connections atomic.Uint64

	dependencies table[*dependency]
	served       *dependency // what the process itself serves
}

type callsConfig struct {
	clock      *clock.Clock
	coarse     bool
	seed       uint64
	logger     *slog.Logger
	service    string
	replyBytes int64 // 0 for the default, below 0 for none
	onBreaker  func(guard.BreakerEvent)
	// onSuspicion is told of what guard.Config.OnSuspicion is.
	onSuspicion func(*guard.Dependency)
}

// defaultReplyBytes bounds the cache of replies where the configuration does not say.
const defaultReplyBytes = 16 << 20

func newCalls(config callsConfig) *calls {
	if config.replyBytes == 0 {
		config.replyBytes = defaultReplyBytes
	}
	c := &calls{
		clock: config.clock, logger: config.logger, service: config.service,
		guard: guard.New(guard.Config{
			Clock: config.clock, Coarse: config.coarse, Seed: config.seed, Logger: config.logger, OnEvent: config.onBreaker,
			OnSuspicion: config.onSuspicion,
		}),
		degrader: degrade.New(degrade.Config{Clock: config.clock, ReplyBytes: config.replyBytes, Logger: config.logger}),
	}
	c.served = newDependency(c, c.guard.Server(config.service), flags.ServerSide)
	return c
}

// Apply makes rules hold for all calls that begin after it returned.
func (c *calls) Apply(rules guard.Rules) {
	c.guard.Apply(rules)
	c.off.Store(rules.Disabled())
}

// disabled tells that calls are to be made as if there were no SDK.
func (c *calls) disabled() bool { return c.off.Load() }

// Close ends what runs in the background, and waits for it and for functions of
// fallbacks.
func (c *calls) Close() {
	c.guard.Close()
	c.degrader.Close()
}

// client returns a dependency that the process calls.
func (c *calls) client(name string) *dependency {
	if d, ok := c.dependencies.find(name); ok {
		return d
	}
	return c.dependencies.add(name, func(name string) *dependency {
		return newDependency(c, c.guard.Dependency(name), flags.ClientSide)
	})
}

// server returns what the process serves: its targets are the methods.
func (c *calls) server() *dependency { return c.served }

// degradations counts what was degraded, in the order of dependencies and targets.
func (c *calls) degradations() []DegradationStats {
	var all []DegradationStats
	add := func(d *dependency) {
		for i := range d.targets {
			for _, t := range d.targets[i].all() {
				s := t.point.Stats()
				all = append(all, DegradationStats{
					Dependency: s.Dependency, Target: s.Target, Side: s.Side.String(), Rejected: s.Rejected, Shed: s.Shed,
					Cached: s.Cached, CacheMisses: s.Misses, Fallbacks: s.Fallbacks, FallbackFailures: s.Failures, Recorded: s.Recorded,
				})
			}
		}
	}
	for _, d := range c.dependencies.all() {
		add(d)
	}
	add(c.served)
	slices.SortFunc(all, func(a, b DegradationStats) int {
		return cmp.Or(cmp.Compare(a.Dependency, b.Dependency), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Side, b.Side))
	})
	return all
}

func (c *calls) replyStats() ReplyStats {
	use := c.degrader.Replies()
	return ReplyStats{
		Entries: use.Entries, Bytes: use.Bytes, Hits: use.Hits, Misses: use.Misses + use.Stale, Evicted: use.Evicted, TooLarge: use.Refused,
	}
}

// dependency is what is called, or served, with the targets that are known of it.
type dependency struct {
	*guard.Dependency
	calls   *calls
	degrade *degrade.Dependency
	side    flags.Side
	targets [2]table[*target] // by guard.Kind: a method and an operation may have one name
}

func newDependency(c *calls, d *guard.Dependency, side flags.Side) *dependency {
	return &dependency{Dependency: d, calls: c, degrade: c.degrader.Dependency(d.Name()), side: side}
}

// target is a method or operation.
type target struct {
	*guard.Target
	dependency *dependency
	point      *degrade.Point
	// spare keeps the memory of calls that have ended: *unaryCall of methods,
	// *operationCall[T] of operations.
	spare sync.Pool
}

// target returns a method or operation; nil for a method that is left alone. It
// allocates nothing for one that is known.
func (d *dependency) target(name string, kind guard.Kind) *target {
	if t, ok := d.targets[kind].find(name); ok {
		return t
	}
	if kind == guard.Method && excluded(name) {
		return nil
	}
	return d.targets[kind].add(name, func(name string) *target {
		return &target{Target: d.Target(name, kind), dependency: d, point: d.degrade.Point(name, d.side)}
	})
}

// excluded tells whether a method is left alone: what tells whether a server is
// alive must not depend on what it is asked for, and reflection serves people.
func excluded(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.")
}

// table is a map by names that is read without a lock. The zero table is empty.
type table[V any] struct {
	entries atomic.Pointer[map[string]V]
	mu      sync.Mutex // of those who add
}

// maxNames bounds the names of a table: all further ones share the value of
// guard.Others.
const maxNames = 512

func (t *table[V]) find(name string) (V, bool) {
	v, ok := t.all()[name]
	return v, ok
}

// add returns the value of a name, the same one each time; fresh makes it.
func (t *table[V]) add(name string, fresh func(name string) V) V {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.all()
	if _, ok := known[name]; !ok && len(known) >= maxNames {
		name = guard.Others
	}
	if v, ok := known[name]; ok {
		return v
	}
	next := make(map[string]V, len(known)+1)
	maps.Copy(next, known)
	next[name] = fresh(name)
	t.entries.Store(&next)
	return next[name]
}

// all returns the values by name. The map must not be changed.
func (t *table[V]) all() map[string]V {
	if entries := t.entries.Load(); entries != nil {
		return *entries
	}
	return nil
}
