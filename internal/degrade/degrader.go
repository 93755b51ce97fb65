package degrade

import (
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/replies"
)

// Config says what a Degrader is made of.
type Config struct {
	// Clock is required.
	Clock *clock.Clock
	// ReplyBytes bounds the replies that are kept; below 1 none are.
	ReplyBytes int64
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
	// Random draws from [0, 1); nil means the generator of the process.
	Random func() float64
}

// Degrader keeps what the points of an instance share: registered chains and
// recorded replies. Its methods may be called at the same time.
type Degrader struct {
	clock   *clock.Clock
	logger  *slog.Logger
	random  func() float64
	replies *replies.Cache[any] // nil: nothing is kept
	running chains

	mu     sync.Mutex // of those who register
	chains atomic.Pointer[map[string][]Func]

	logged   atomic.Int64  // when a failure was last logged
	unlogged atomic.Uint64 // failures since
}

// New returns a degrader without chains and replies.
func New(config Config) *Degrader {
	d := &Degrader{clock: config.Clock, logger: config.Logger, random: config.Random}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	if d.random == nil {
		d.random = rand.Float64
	}
	if config.ReplyBytes > 0 {
		d.replies = replies.New[any](config.ReplyBytes)
	}
	d.chains.Store(&map[string][]Func{})
	d.logged.Store(-int64(logInterval))
	return d
}

// Register gives a name to a chain of functions, in place of the one that had it. An
// empty chain takes the name away.
func (d *Degrader) Register(name string, chain ...Func) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := maps.Clone(*d.chains.Load())
	if len(chain) == 0 {
		delete(next, name)
	} else {
		next[name] = slices.Clone(chain)
	}
	d.chains.Store(&next)
}

func (d *Degrader) chain(name string) []Func { return (*d.chains.Load())[name] }

// Replies returns what the cache of replies has seen.
func (d *Degrader) Replies() replies.Use {
	if d.replies == nil {
		return replies.Use{}
	}
	return d.replies.Use()
}

// Close waits for the functions of fallbacks that still run. Those that are asked
// later run in the goroutine of the call.
func (d *Degrader) Close() { d.running.close() }

// logInterval is the least time between two lines about failing fallbacks.
const logInterval = time.Second

// failed logs that a chain did not answer, at most once a second.
func (d *Degrader) failed(p *Point, chain string, err error) {
	now, last := d.clock.Now(), d.logged.Load()
	if now-last < int64(logInterval) || !d.logged.CompareAndSwap(last, now) {
		d.unlogged.Add(1)
		return
	}
	d.logger.Error("a fallback did not answer", "dependency", p.name, "target", p.target, "chain", chain,
		"unlogged", d.unlogged.Swap(0), "error", err)
}

// Dependency returns what the points of a dependency share: how many chains run at
// a time. Whoever calls it keeps it.
func (d *Degrader) Dependency(name string) *Dependency {
	return &Dependency{degrader: d, name: name}
}

// Dependency is a dependency whose calls are degraded.
type Dependency struct {
	degrader *Degrader
	name     string
	running  atomic.Int64 // chains
}

// Point returns the point of a method or operation on a side. Whoever calls it keeps
// it.
func (d *Dependency) Point(target string, side flags.Side) *Point {
	return &Point{Dependency: d, target: target, side: side}
}

// chains counts the goroutines that run chains.
type chains struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when closed and n is 0; made by close
}

// begin tells whether a goroutine may be started; end ends it.
func (c *chains) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.n++
	return true
}

func (c *chains) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.closed {
		close(c.idle)
	}
}

func (c *chains) close() {
	c.mu.Lock()
	if !c.closed {
		c.closed, c.idle = true, make(chan struct{})
		if c.n == 0 {
			close(c.idle)
		}
	}
	idle := c.idle
	c.mu.Unlock()
	<-idle
}
