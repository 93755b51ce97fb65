package guard

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// dice is a call that ends any way.
type dice struct {
	made *atomic.Int64
	rand *rand.Rand
	mu   sync.Mutex
	keep []Place
}

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(n)
}

func (d *dice) Invoke(ctx context.Context, _ int) error {
	d.made.Add(1)
	switch d.roll(12) {
	case 0:
		return status.Error(codes.Unavailable, "")
	case 1:
		return status.Error(codes.ResourceExhausted, "")
	case 2:
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	case 3:
		if d.roll(10) == 0 {
			panic("broken")
		}
	case 4:
		sleep(ctx, 200*time.Microsecond)
	}
	return nil
}

func (d *dice) Result(_ context.Context, err error) Result {
	return Result{Code: status.Code(err), Keep: d.roll(4) == 0}
}

func (d *dice) Twin() Invocation {
	return &dice{made: d.made, rand: rand.New(rand.NewPCG(uint64(d.roll(1000)), 0))}
}
func (d *dice) Adopt(Invocation) {}
func (d *dice) Keep(p Place)     { d.keep = append(d.keep, p) }

// However busy the process is, a note of the time is not believed for more than so
// many calls.
func TestCoarseIsRenewedByCalls(t *testing.T) {
	target, ctx := measured(t, true, unbounded)
	call := func() {
		if err := target.Call(ctx, target.Now(), instant{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 { // starts the ticker
		call()
	}
	for range 1000 {
		before := target.clock.Now()
		for range renewEach {
			call()
		}
		if now := target.coarse.Now(); now < before {
			t.Fatalf("late by %v after %d calls", time.Duration(target.clock.Now()-now), renewEach)
		}
	}
	// What is no plain success reads the clock itself.
	before := target.clock.Now()
	_ = target.Call(ctx, target.Now(), instant{codes.NotFound})
	if now := target.coarse.Now(); now < before {
		t.Errorf("late by %v after a failure", time.Duration(target.clock.Now()-now))
	}
}

// Everything at once, with settings and holds that change: nothing is lost, nothing
// stays taken.
func TestStress(t *testing.T) {
	p := policy.Default()
	p.Timeouts.Call, p.Timeouts.Minimum = 3*ms, 0
	p.Retry.InitialDelay, p.Retry.HedgeDelay, p.Retry.MaxHedges = 100*time.Microsecond, 500*time.Microsecond, 2
	p.Bulkhead = policy.Bulkhead{MaxConcurrent: 3, MaxQueue: 2, MaxWait: ms, MinConcurrent: 1, Methods: map[string]int{putMethod: 2}}
	p.CircuitBreaker.Timeout, p.CircuitBreaker.ProbeTimeout, p.CircuitBreaker.RampStep = 2*ms, ms, ms
	var told atomic.Int64
	g := New(Config{
		Clock: clock.New(), Coarse: true, OnEvent: func(BreakerEvent) { told.Add(1) },
		OnSuspicion: func(d *Dependency) { d.Evidence() },
	})
	defer g.Close()
	changes, stop := new(sync.WaitGroup), make(chan struct{})
	changes.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				g.Apply(said{policies: map[string]policy.Policy{"store": p}})
				g.Dependency("store").Heed(FleetVerdict{})
				return
			case <-time.After(300 * time.Microsecond):
			}
			q, s := p, said{}
			q.Bulkhead.MaxConcurrent, q.Bulkhead.Adaptive = 2+n%3, n%2 == 0
			q.CircuitBreaker.Window = time.Duration(1+n%2) * time.Second
			if n%5 == 0 {
				q.Enforcement = policy.Observe
			}
			if n%7 == 0 {
				s.holds = map[string]flags.Hold{"store": {Dependency: "store", Open: n%2 == 0, Override: "x"}}
			}
			s.policies = map[string]policy.Policy{"store": q}
			g.Apply(s)
			g.Stats()
			d := g.Dependency("store")
			d.Heed(FleetVerdict{Mode: []policy.FleetMode{policy.FleetOff, policy.FleetAdvise, policy.FleetEnforce}[n%3], WithoutTraffic: n%2 == 0})
			if e := d.Evidence(); n%4 == 0 {
				d.Recover(e.Generation)
			} else {
				d.Postpone(e.Generation, time.Duration(n%3)*ms)
			}
		}
	})
	var made, calls, succeeded, panicked atomic.Int64
	var callers sync.WaitGroup
	for i := range uint64(6) {
		callers.Go(func() {
			d := &dice{made: &made, rand: rand.New(rand.NewPCG(i, 1))}
			for range 1500 {
				func() {
					defer func() {
						if recover() != nil {
							panicked.Add(1)
						}
					}()
					target := g.Dependency("store").Target([]string{readMethod, putMethod, postMethod}[d.roll(3)], Method)
					calls.Add(1)
					if d.roll(10) == 0 {
						if permit, err := target.Admit(t.Context(), target.Now()); err == nil {
							made.Add(1)
							go permit.Answered()
							permit.Done(Result{}, 0)
						}
						return
					}
					ctx, cancel := context.WithTimeout(t.Context(), 5*ms)
					defer cancel()
					if err := target.Call(ctx, target.Now(), d); err == nil {
						succeeded.Add(1)
					} else if errors.Is(err, Rejected) {
						time.Sleep(50 * time.Microsecond) //nolint:forbidigo // some time has to pass
					}
				}()
				for _, place := range d.keep {
					place.Release()
				}
				d.keep = nil
			}
		})
	}
	callers.Wait()
	close(stop)
	changes.Wait()
	s := g.Stats().Dependencies[0]
	var total, attempts, transitions uint64
	for _, target := range s.Targets {
		total, attempts = total+target.Calls, attempts+target.Attempts
		for _, n := range target.Transitions {
			transitions += n
		}
		if target.Breaker.State == breaker.Hearsay {
			t.Errorf("%s heeds nobody", target.Name)
		}
		if target.Breaker.Probes > 0 && target.Breaker.State != breaker.HalfOpen {
			t.Errorf("the breaker is %+v", target.Breaker)
		}
	}
	if s.InUse != 0 || s.Queued != 0 || total != uint64(calls.Load()) || attempts != uint64(made.Load()) || transitions != uint64(told.Load()) {
		t.Errorf("%d calls, %d attempts, %d events are counted as %d, %d, %d; %+v", calls.Load(), made.Load(), told.Load(), total, attempts, transitions, s)
	}
	for _, part := range g.Dependency("store").parts {
		if use := part.Use(); use.InUse != 0 || use.Queued != 0 {
			t.Errorf("a part is %+v", use)
		}
	}
	if succeeded.Load() == 0 || panicked.Load() == 0 || transitions == 0 {
		t.Errorf("%d succeeded, %d panicked, %d transitions: it tries too little", succeeded.Load(), panicked.Load(), transitions)
	}
}
