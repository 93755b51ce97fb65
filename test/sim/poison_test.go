package sim

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Liars with valid certificates claim that everything is broken, while calls fail now
// and then, so that there always are some who are suspicious.
func TestLiars(t *testing.T) {
	unhurried(t)
	together(t)
	table := NewTable("liars say for a while that everything is open", "instances", "calls fail", "liars", "instances opened", "breakers", "kept of 1,000 calls", "over after")
	for _, n := range sizes(40, 300, 1000) {
		for _, errors := range []float64{0, 0.02} {
			p := NewPlan(n, *seed)
			p.Fleet, p.Errors = true, errors
			inWorld(t, fmt.Sprintf("%d instances, %s of calls fail", n, percent(errors)), p, func(w *World) {
				for _, share := range shares() {
					liars := int(math.Ceil(share * float64(n)))
					h := w.RunLiars(liars, 20*time.Second)
					table.Row(n, percent(errors), liars, percent(h.Opened), h.Openings, h.Kept, h.Over)
					if errors == 0 && h.Openings > 0 {
						w.t.Errorf("%d liars opened %d breakers of instances whose calls succeed", liars, h.Openings)
					}
					if h.Opened > 0.02 || h.Kept > 1 {
						w.t.Errorf("%d liars opened breakers of %s of the instances, and kept %.1f of 1,000 calls back", liars, percent(h.Opened), h.Kept)
					}
				}
			})
		}
	}
	t.Log(table)
}

// Instances that make no calls of a dependency have nothing of their own to hold
// against lies, only what those say who do. What is advised opens nothing; what is enforced
// opens them in an outage.
func TestLiarsAndTheIdle(t *testing.T) {
	unhurried(t)
	together(t)
	n := sizes(40, 300)[0]
	table := NewTable("liars say that everything is open to instances of which a third make no calls of it", "instances", "fleet_without_traffic", "liars",
		"breakers with calls opened", "idle ones opened", "over after", "in an outage, idle ones opened")
	for _, mode := range []policy.FleetMode{policy.FleetAdvise, policy.FleetEnforce} {
		p := NewPlan(n, *seed)
		p.Fleet, p.Methods, p.Rates = true, 1, []Rate{{0.67, 4}, {0.33, 0}}
		p.Policy = func(settings *policy.Policy) { settings.FleetWithoutTraffic.Mode = mode }
		inWorld(t, string(mode), p, func(w *World) {
			liars := int(math.Ceil(0.05 * float64(n)))
			h := w.RunLiars(liars, 20*time.Second)
			outage := w.measure(everybody, func() {
				w.Dependency("payments").Behave(Always(Refused))
				w.Pass(20 * time.Second)
			})
			table.Row(n, mode, liars, h.Openings, of(h.Idle, w.idles("")), h.Over, of(outage.Idle, w.idles("payments")))
			if h.Openings > 0 {
				w.t.Errorf("%d breakers opened where calls succeed", h.Openings)
			}
			if mode == policy.FleetAdvise && h.Idle > 0 {
				w.t.Errorf("%d idle breakers opened by what is advice", h.Idle)
			}
			if enforced := mode == policy.FleetEnforce; !enforced && outage.Idle > 0 || enforced && outage.Idle < w.idles("payments")/2 {
				w.t.Errorf("%s idle breakers opened in an outage", of(outage.Idle, w.idles("payments")))
			}
			if h.Over > 20*time.Second {
				w.t.Errorf("hearsay outlasts the lies by %v", h.Over)
			}
		})
	}
	t.Log(table)
}

func of(n, all int) string { return fmt.Sprintf("%d of %d", n, all) }

// Liars join a real outage: some say that the dependency is broken, also when it is well
// again, and some that it is well, also while it is dead.
func TestLiarsInAnOutage(t *testing.T) {
	unhurried(t)
	together(t)
	n := sizes(40, 300)[0]
	table := NewTable("a dependency dies, and comes back after 40 s, among liars", "instances", "liars", "say", "50 %", "99 %", "calls in 10 s", "probes/s", "75 % back", "all closed", "tripped again")
	var honest Outage
	run := func(liars int, say string, lie func(*Liar) func(uint64)) {
		p := NewPlan(n, *seed)
		p.Fleet = true
		inWorld(t, fmt.Sprintf("%d liars say it is %s", liars, say), p, func(w *World) {
			tell, hush := w.liarsJoin(liars)
			tell(lie)
			o := w.RunOutage("payments", Refused, 40*time.Second, func(full float64) Behaviour { return Warming(full, 10*time.Second) })
			hush()
			table.Row(n, liars, say, Percentile(o.FailFast, 0.5), Percentile(o.FailFast, 0.99), o.Sent, mean(o.Probes), o.Back, o.Full, o.Trips)
			if liars == 0 {
				honest = o
				return
			}
			if o.Back == never || o.Back > honest.Back+15*time.Second || o.Full == never || o.Full > honest.Full+45*time.Second {
				w.t.Errorf("75 %% of the calls are back after %v, all after %v; without liars %v and %v", short(o.Back), short(o.Full), short(honest.Back), short(honest.Full))
			}
			if half := Percentile(o.FailFast, 0.5); half == never || half > 2*Percentile(honest.FailFast, 0.5)+time.Second {
				w.t.Errorf("half of the breakers fail fast after %v, without liars %v", short(half), short(Percentile(honest.FailFast, 0.5)))
			}
		})
	}
	run(0, "nothing", broken)
	for _, share := range shares() {
		liars := int(math.Ceil(share * float64(n)))
		run(liars, "broken", broken)
		run(liars, "well", well)
	}
	t.Log(table)
}

func shares() []float64 {
	if *long {
		return []float64{0.01, 0.03, 0.05}
	}
	return []float64{0.05}
}

// One process speaks for twenty hosts, with their certificates and without their keys.
// And one has kept what hosts said in an outage that is over.
func TestForger(t *testing.T) {
	unhurried(t)
	together(t)
	synctest.Test(t, func(t *testing.T) {
		p := NewPlan(sizes(40, 300)[0], *seed)
		p.Fleet, p.Errors = true, 0.05
		w := Begin(t, p)
		l, err := w.newLiar(len(w.instances))
		if err != nil {
			t.Fatal(err)
		}
		w.Pass(5 * time.Second)
		h := w.measure(everybody, func() {
			l.Lie(l.ForgeOthers(w.instances[:20]))
			w.Pass(30 * time.Second)
		})
		l.Hush()
		refused := uint64(0)
		for _, i := range w.instances {
			refused += i.peer.Load().store.Metrics().Forged
		}
		t.Logf("20 hosts forged: %d breakers opened, %d records refused", h.Openings, refused)
		if h.Openings > 0 || refused == 0 {
			t.Error("a forged record counts, or none was tried")
		}

		w.RunOutage("payments", Refused, shut+5*time.Second, func(float64) Behaviour { return Always(Well) })
		w.Pass(2 * time.Minute)
		if len(l.held.heard) < 3 {
			t.Fatalf("there are %d records to replay", len(l.held.heard))
		}
		h = w.measure(everybody, func() {
			l.Lie(l.Replay)
			w.Pass(time.Minute)
		})
		t.Logf("%d old records replayed: %d breakers opened, %.1f %% of instances, %.2f of 1,000 calls kept back", len(l.held.heard), h.Openings, 100*h.Opened, h.Kept)
		if h.Openings > 0 {
			t.Error("what was said in an outage that is over counts again")
		}
	})
}

// One host is sick, or one instance cannot reach a dependency: nobody else opens.
func TestSick(t *testing.T) {
	unhurried(t)
	together(t)
	n := sizes(40, 300)[0]
	type sickness struct {
		name  string
		meant func(*Instance) bool
	}
	all := []sickness{
		{"the instances of one host", func(i *Instance) bool { return i.Host == "10.0.0.1" }},
		{"one instance", func(i *Instance) bool { return i.N == 0 }},
	}
	for _, sick := range all {
		p := NewPlan(n, *seed)
		p.Fleet, p.Errors = true, 0.02
		inWorld(t, sick.name, p, func(w *World) {
			others := func(i *Instance) bool { return !sick.meant(i) }
			h := w.measure(others, func() {
				w.Dependency("payments").Behave(Only(sick.meant, Refused, Well))
				w.Pass(20 * time.Second)
			})
			w.t.Logf("payments fails for %s only: %d breakers of others opened by hearsay", sick.name, h.Openings)
			if h.Openings > 0 {
				w.t.Errorf("payments fails for %s only, and %d breakers of others opened", sick.name, h.Openings)
			}
		})
	}
}
