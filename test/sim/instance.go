package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// rules are the same policy for all dependencies.
type rules struct{ policy policy.Policy }

func (r rules) Revision() uint64                                        { return 1 }
func (r rules) Disabled() bool                                          { return false }
func (r rules) Policy(string) policy.Policy                             { return r.policy }
func (r rules) Hold(string, string) (flags.Hold, bool)                  { return flags.Hold{}, false }
func (r rules) Method(flags.Side, string, bool) flags.Plan              { return flags.Plan{} }
func (r rules) Operation(string) flags.Plan                             { return flags.Plan{} }
func (r rules) RecordMethod(flags.Side, string, bool) []flags.Recording { return nil }
func (r rules) RecordOperation(string) []flags.Recording                { return nil }

// Change is a change of a breaker's state.
type Change struct {
	Instance           *Instance
	At                 time.Duration // since the world began
	Dependency, Target string
	From, To           breaker.State
	Reason             breaker.Reason
}

func (c *Change) String() string {
	return fmt.Sprintf("%v %s %s/%s %v→%v (%v)", c.At, c.Instance.ID, c.Dependency, c.Target, c.From, c.To, c.Reason)
}

// Instance is a process with breakers, with or without gossip.
type Instance struct {
	ID string
	N  int
	Place
	world  *World
	guard  *guard.Guard
	random *rand.Rand // of its load
	lines  []line
	peer   atomic.Pointer[peer] // nil without gossip
	// incarnation grows with each start of its part in gossip.
	incarnation uint64

	mu      sync.Mutex // guards changes
	changes []Change

	cancel context.CancelFunc
	work   sync.WaitGroup
}

// line is the load of one target.
type line struct {
	dependency *Dependency
	target     *guard.Target
	every      time.Duration // on average; 0 makes no calls
	next       time.Time
}

func newInstance(w *World, n int) *Instance {
	i := &Instance{
		ID: fmt.Sprintf("i%04d", n), N: n, Place: w.plan.place(n), world: w, random: newRandom(w.plan.Seed, uint64(n)+1), //nolint:gosec // not negative
	}
	i.guard = guard.New(i.guardConfig())
	i.guard.Apply(rules{w.plan.policy()})
	for _, d := range w.dependencies {
		rate := w.plan.rate(i.random)
		for m, share := range w.plan.shares() {
			l := line{dependency: d, target: i.guard.Dependency(d.name).Target(fmt.Sprintf("m%d", m), guard.Operation)}
			if rate*share > 0 {
				l.every = time.Duration(float64(time.Second) / (rate * share))
			}
			i.lines = append(i.lines, l)
		}
	}
	return i
}

// serial tells runs of instances apart.
func (i *Instance) serial() uint64 { return uint64(i.N+1) + i.incarnation<<32 } //nolint:gosec // not negative

// wake has its part in gossip look at what happened.
func (i *Instance) wake() {
	if p := i.peer.Load(); p != nil && p.member != nil {
		p.member.Wake()
	}
}

func (i *Instance) guardConfig() guard.Config {
	return guard.Config{Clock: clock.New(), Seed: i.world.plan.Seed<<16 + uint64(i.N), OnEvent: i.heard, OnSuspicion: func(*guard.Dependency) { i.wake() }} //nolint:gosec // not negative
}

func (i *Instance) heard(e guard.BreakerEvent) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.changes = append(i.changes, Change{
		Instance: i, At: time.Since(i.world.start), Dependency: e.Dependency, Target: e.Target, From: e.From, To: e.To, Reason: e.Reason,
	})
}

// Changes returns what its breakers did from one time to another.
func (i *Instance) Changes(from, to time.Time) []Change {
	i.mu.Lock()
	defer i.mu.Unlock()
	var some []Change
	for _, c := range i.changes {
		if at := i.world.start.Add(c.At); !at.Before(from) && at.Before(to) {
			some = append(some, c)
		}
	}
	return some
}

// run makes calls, open loop, until the context ends.
func (i *Instance) run(ctx context.Context) {
	for {
		l := i.due()
		if l == nil {
			return
		}
		timer := time.NewTimer(time.Until(l.next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		c := &call{to: l.dependency, from: i, fail: i.random.Float64() < i.world.plan.Errors}
		i.work.Go(func() { _ = l.target.Call(ctx, l.target.Now(), c) })
		// Nearly regular: an instance with one call a second has one in most seconds.
		l.next = l.next.Add(time.Duration((0.5 + i.random.Float64()) * float64(l.every)))
	}
}

// due returns the line whose call comes next.
func (i *Instance) due() *line {
	var first *line
	for n := range i.lines {
		if l := &i.lines[n]; l.every > 0 && (first == nil || l.next.Before(first.next)) {
			first = l
		}
	}
	return first
}

func (i *Instance) startLoad() {
	for n := range i.lines {
		i.lines[n].next = time.Now().Add(time.Duration(i.random.Float64() * float64(i.lines[n].every)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	i.cancel = cancel
	i.work.Go(func() { i.run(ctx) })
}

func (i *Instance) stopLoad() {
	if i.cancel != nil {
		i.cancel()
	}
	i.work.Wait()
}

// State is the state of a target's breaker.
func (i *Instance) states(dependency string) map[breaker.State]int {
	all := map[breaker.State]int{}
	for _, d := range i.guard.Stats().Dependencies {
		if d.Name != dependency {
			continue
		}
		for _, t := range d.Targets {
			all[t.Breaker.State]++
		}
	}
	return all
}
