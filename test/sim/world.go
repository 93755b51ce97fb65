package sim

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

// World is a fleet with its dependencies and its network, in a bubble of virtual time.
type World struct {
	t            *testing.T
	plan         Plan
	start        time.Time
	network      *mesh.Network
	dependencies []*Dependency
	instances    []*Instance
	crashed      []*Instance
	liars        []*Liar
	lied         int        // how many liars there were before
	trust        *authority // nil without gossip
}

// Begin makes a world and starts its instances; it must be called in a bubble. The
// returned world ends with the test.
func Begin(t *testing.T, plan Plan) *World {
	t.Helper()
	w := &World{t: t, plan: plan, start: time.Now(), network: mesh.New(plan.Seed)}
	w.network.Links(plan.Across)
	for zone := range plan.Zones {
		w.network.Between(zone, zone, plan.Within)
	}
	for _, name := range plan.Dependencies {
		w.dependencies = append(w.dependencies, newDependency(name))
	}
	for n := range plan.Instances {
		w.instances = append(w.instances, newInstance(w, n))
	}
	t.Cleanup(w.end)
	if plan.Fleet {
		trust, err := newAuthority(plan.Seed)
		if err != nil {
			t.Fatal(err)
		}
		w.trust = trust
		w.join()
		t.Logf("%d instances gossip", plan.Instances)
	} else {
		w.Pass(plan.joining())
	}
	if !plan.LoadLater {
		w.startLoad()
	}
	return w
}

func (w *World) startLoad() {
	for _, i := range w.instances {
		i.startLoad()
	}
}

// end stops everything at once: nobody says farewell, which would take its time.
func (w *World) end() {
	for _, l := range w.liars {
		l.Hush()
	}
	var all sync.WaitGroup
	for _, i := range w.instances {
		all.Go(i.stop)
	}
	for _, l := range w.liars {
		all.Go(l.peer.Load().stop)
	}
	all.Wait()
	if w.plan.Fleet {
		w.Pass(2 * time.Minute) // probes of memberlist end with their own timeouts, which its doubt in itself stretches
	}
}

// stop ends without a farewell, as a crash does.
func (i *Instance) stop() {
	i.stopLoad()
	i.peer.Load().stop()
	i.guard.Close()
}

// Pass lets virtual time pass.
func (w *World) Pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// Dependency returns a dependency by name.
func (w *World) Dependency(name string) *Dependency {
	n := slices.IndexFunc(w.dependencies, func(d *Dependency) bool { return d.name == name })
	return w.dependencies[n]
}

// Changes returns what all breakers did from one time to another, in order.
func (w *World) Changes(from, to time.Time) []Change {
	var all []Change
	for _, i := range w.instances {
		all = append(all, i.Changes(from, to)...)
	}
	slices.SortStableFunc(all, func(a, b Change) int { return int(a.At - b.At) })
	return all
}

// Until waits until a condition holds, and returns how long that took; more than within
// fails the test.
func (w *World) Until(within time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) >= within {
			w.t.Errorf("not within %v: %s", within, what)
			return within
		}
		w.Pass(100 * time.Millisecond)
	}
	return time.Since(start)
}
