package sim

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/guard"
)

// bucket is the grain in which arrivals are counted.
const bucket = 100 * time.Millisecond

// Answer is what a dependency does with a call. One that Hangs answers when its caller
// has given up.
type Answer struct {
	Code  codes.Code
	After time.Duration
	Hangs bool
}

// The usual answers.
var (
	Well    = Answer{After: 2 * time.Millisecond}
	Refused = Answer{Code: codes.Unavailable, After: time.Millisecond}
	Hanging = Answer{Hangs: true}
	Slow    = Answer{After: 800 * time.Millisecond}
)

// Behaviour is how a dependency answers an instance at a time. It is called
// concurrently.
type Behaviour func(i *Instance, now time.Time) Answer

// Always answers alike.
func Always(a Answer) Behaviour { return func(*Instance, time.Time) Answer { return a } }

// Only lets those who are meant have an answer of their own, and all others another.
func Only(meant func(*Instance) bool, theirs, others Answer) Behaviour {
	return func(i *Instance, _ time.Time) Answer {
		if meant(i) {
			return theirs
		}
		return others
	}
}

// Dependency is a remote that instances call. It counts what arrives.
type Dependency struct {
	name      string
	start     time.Time
	behaviour atomic.Pointer[Behaviour]

	mu       sync.Mutex // guards arrivals
	arrivals []int      // by bucket since start
}

func newDependency(name string) *Dependency {
	d := &Dependency{name: name, start: time.Now()}
	d.Behave(Always(Well))
	return d
}

// Behave lets it answer so from now on.
func (d *Dependency) Behave(b Behaviour) { d.behaviour.Store(&b) }

func (d *Dependency) arrive(now time.Time) {
	at := int(now.Sub(d.start) / bucket)
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.arrivals) <= at {
		d.arrivals = append(d.arrivals, 0)
	}
	d.arrivals[at]++
}

// Arrived counts the calls that arrived from one time to another, to 100 ms.
func (d *Dependency) Arrived(from, to time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	total := 0
	first, end := int(from.Sub(d.start)/bucket), int(to.Sub(d.start)/bucket)
	for at := max(first, 0); at < min(end, len(d.arrivals)); at++ {
		total += d.arrivals[at]
	}
	return total
}

// PerSecond counts the calls in each second from one time to another.
func (d *Dependency) PerSecond(from, to time.Time) []int {
	var all []int
	for at := from; at.Before(to); at = at.Add(time.Second) {
		all = append(all, d.Arrived(at, at.Add(time.Second)))
	}
	return all
}

// call is one call of an instance.
type call struct {
	to   *Dependency
	from *Instance
	fail bool // for once, in good times
}

var _ guard.Invocation = (*call)(nil)

// Invoke implements guard.Invocation.
func (c *call) Invoke(ctx context.Context, _ int) error {
	now := time.Now()
	c.to.arrive(now)
	answer := (*c.to.behaviour.Load())(c.from, now)
	if answer.Hangs {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	select {
	case <-time.After(answer.After):
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	if c.fail && answer.Code == codes.OK {
		return status.Error(codes.Internal, "now and then")
	}
	return status.Error(answer.Code, "simulated")
}

// Result implements guard.Invocation.
func (c *call) Result(_ context.Context, err error) guard.Result {
	return guard.Result{Code: status.Code(err)}
}

// Twin implements guard.Invocation.
func (c *call) Twin() guard.Invocation { return nil }

// Adopt implements guard.Invocation.
func (c *call) Adopt(guard.Invocation) {}

// warming is a dependency that comes back with little capacity, which grows: what is
// beyond it fails. It is how a stampede trips what has just recovered.
type warming struct {
	since time.Time
	full  float64       // calls a second
	after time.Duration // until it has them

	mu   sync.Mutex // guards the rest
	at   time.Time
	left float64
}

// Warming returns the behaviour of a dependency that bears a tenth of so many calls a
// second now and all of them after a time. Beyond that calls fail.
func Warming(full float64, after time.Duration) Behaviour {
	w := &warming{since: time.Now(), full: full, after: after, at: time.Now()}
	return func(_ *Instance, now time.Time) Answer {
		if w.bears(now) {
			return Well
		}
		return Refused
	}
}

func (w *warming) bears(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	capacity := w.full * min(1, 0.1+0.9*float64(now.Sub(w.since))/float64(w.after))
	w.left = min(w.left+capacity*now.Sub(w.at).Seconds(), capacity/2) // what waits for half a second is served
	w.at = now
	if w.left < 1 {
		return false
	}
	w.left--
	return true
}

func newRandom(seed uint64, part uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, part)) //nolint:gosec // a simulation is to be repeatable
}
