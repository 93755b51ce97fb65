package health

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

func drawPolicy(t *rapid.T) (policy.Fleet, policy.FleetWithoutTraffic) {
	modes := rapid.SampledFrom([]policy.FleetMode{policy.FleetEnforce, policy.FleetEnforce, policy.FleetAdvise, policy.FleetOff})
	share := rapid.SampledFrom([]float64{0.01, 0.2, 0.3, 0.5, 0.9, 1})
	f := policy.Default().Fleet
	f.Mode, f.Quorum, f.Zones = modes.Draw(t, "mode"), rapid.IntRange(1, 5).Draw(t, "quorum"), rapid.IntRange(1, 3).Draw(t, "zones")
	f.OpenRatio = share.Draw(t, "open")
	f.CloseRatio = min(f.OpenRatio, share.Draw(t, "close"))
	f.Dwell = rapid.SampledFrom([]time.Duration{0, time.Second, 2 * time.Second}).Draw(t, "dwell")
	f.MaxDwell = rapid.SampledFrom([]time.Duration{f.Dwell, 5 * time.Second, time.Minute}).Draw(t, "max dwell")
	f.MaxDependencies, f.MaxInstances = share.Draw(t, "dependencies"), rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "instances")
	return f, policy.FleetWithoutTraffic{
		Mode: modes.Draw(t, "idle mode"), Quorum: rapid.IntRange(1, 5).Draw(t, "idle quorum"), OpenRatio: share.Draw(t, "idle open"),
	}
}

func drawOwn(t *rapid.T) Own {
	o := Own{
		State: State(rapid.IntRange(0, 4).Draw(t, "state")), Calls: rapid.Uint64Range(0, 20).Draw(t, "own calls"),
		Successes: rapid.Uint64Range(0, 5).Draw(t, "own successes"),
	}
	o.Failures = min(rapid.Uint64Range(0, 4).Draw(t, "own failures"), o.Calls)
	return o
}

// naiveDamper keeps the times of all changes, and weighs each of them.
type naiveDamper struct {
	open    bool
	changes []int64
	dwell   time.Duration
	wanted  []bool // at each question
	asked   []int64
	from    int // the first question after the last change
}

func (n *naiveDamper) ask(now int64, want bool, f policy.Fleet) bool {
	n.wanted, n.asked = append(n.wanted, want), append(n.asked, now)
	if want == n.open {
		return n.open
	}
	if len(n.changes) > 0 && now < n.changes[len(n.changes)-1]+int64(n.dwell) {
		return n.open
	}
	if want { // must have been wanted at every question of the last 100 ms, and before
		since := len(n.asked) - 1
		for since > n.from && n.wanted[since-1] {
			since--
		}
		if now-n.asked[since] < int64(100*time.Millisecond) {
			return n.open
		}
	}
	penalty := 0.0
	for _, at := range n.changes {
		penalty += math.Exp2(-float64(now-at) / float64(time.Minute))
	}
	n.dwell = time.Duration(min(float64(f.Dwell)*math.Exp2(penalty), float64(f.MaxDwell)))
	n.open, n.changes, n.from = want, append(n.changes, now), len(n.asked)
	return n.open
}

// naiveFind says whether there is a quorum, and whether there is enough to stay open,
// as the words of the policy have it.
func naiveFind(c *Case, f policy.Fleet) (opens, holds bool) {
	y := c.Tally
	zones := max(y.Zones, c.Population.Zones)
	ask := func(k Count, hosts, zones int) (bool, bool) {
		n := max(hosts, k.Open+k.Well+1)
		needed := min(f.Quorum, int(math.Ceil(float64(n)/2)))
		share := 0.0
		if k.open > 0 {
			share = float64(k.open) / float64(k.open+k.well)
		}
		return k.Hard > 0 && k.Open >= needed && k.ZonesOpen >= min(f.Zones, zones) && share >= f.OpenRatio,
			float64(k.Open) > float64(needed)/2 && share >= f.CloseRatio
	}
	opens, holds = ask(y.Fleet, c.Population.Hosts, zones)
	if zones > 1 {
		a, b := ask(y.Zone, int(math.Ceil(float64(c.Population.Hosts)/float64(zones))), 1)
		opens, holds = opens || a, holds || b
	}
	return opens, holds
}

// TestVerdictIsItsNaiveTwin asks the same questions of the rules and of their twin
// while records come, go and expire, and holds what must be true of every verdict.
func TestVerdictIsItsNaiveTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, idle := drawPolicy(t)
		idleFleet := f
		idleFleet.Quorum, idleFleet.OpenRatio, idleFleet.CloseRatio = idle.Quorum, idle.OpenRatio, min(f.CloseRatio, idle.OpenRatio)
		me := drawOrigin(t)
		table, now := NewTable(0), int64(0)
		var standing Standing
		var twin, idleTwin naiveDamper
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, second / 20, second / 10, second, 4 * second, 70 * second}).Draw(t, "pause")
			if rapid.IntRange(0, 2).Draw(t, "say") > 0 {
				first, n := rapid.IntRange(0, 7).Draw(t, "first"), rapid.IntRange(1, 5).Draw(t, "how many")
				side := rapid.SampledFrom([]Opinion{Open, Open, Probing, Well, Suspects, Hearsay}).Draw(t, "all say")
				for i := first; i < first+n; i++ {
					h := drawHeard(t)
					h.from = Origin{ID: fmt.Sprint(i), Host: fmt.Sprint("x", i), Zone: fmt.Sprint("z", i%3)}
					h.record = Record{Incarnation: 9, Sequence: uint64(step), Reports: []Report{{Dependency: "dep-0", Opinion: side, Calls: 20, Failures: 12, Successes: 4}}} //nolint:gosec // small
					h.put(table, now)
				}
			}
			tally := table.Tally(now, "dep-0", me)
			c := Case{
				Now: now, Fleet: f, WithoutTraffic: idle, Own: drawOwn(t), Tally: &tally, Standing: standing,
				Population:   Population{rapid.IntRange(0, 12).Draw(t, "hosts"), rapid.IntRange(0, 3).Draw(t, "zones")},
				Dependencies: rapid.IntRange(1, 9).Draw(t, "dependencies"), Armed: rapid.IntRange(0, 3).Draw(t, "armed"),
			}
			if rapid.IntRange(0, 9).Draw(t, "doubt") == 0 {
				c.Doubt = DoubtAll
			}
			before := standing
			var v Verdict
			v, standing = c.Verdict()

			opens, holds := naiveFind(&c, f)
			if want := twin.ask(now, opens || twin.open && holds, f); v.Suspecting.Open != want {
				t.Fatalf("%v: %+v, want %v\n%+v", time.Duration(now), v.Suspecting, want, c)
			}
			opens, holds = naiveFind(&c, idleFleet)
			if want := idleTwin.ask(now, opens || idleTwin.open && holds, idleFleet); v.Idle.Open != want {
				t.Fatalf("%v idle: %+v, want %v\n%+v", time.Duration(now), v.Idle, want, c)
			}
			checkVerdict(t, &c, v, before)
			if again, s := c.Verdict(); again != v || s != standing {
				t.Fatal("not a function of the case")
			}
		}
	})
}

// checkVerdict holds what must be true of every verdict.
func checkVerdict(t *rapid.T, c *Case, v Verdict, before Standing) {
	hard := c.Own.State == Opened || c.Own.State == HalfOpen
	veto := c.Own.Successes >= uint64(c.Fleet.VetoSuccesses) //nolint:gosec // small
	switch {
	case hard && (!v.Open || v.Hearsay || v.Reason != OwnEvidence):
		t.Fatalf("own evidence: %+v", v)
	case !hard && veto && (v.Open || v.Hearsay):
		t.Fatalf("own successes: %+v", v)
	case v.Hearsay && !v.Open, v.Hearsay && !v.Arm && !v.ArmIdle:
		t.Fatalf("hearsay without grounds: %+v", v)
	case c.Doubt != 0 && (v.Arm || v.ArmIdle):
		t.Fatalf("doubts itself and obeys: %+v", v)
	case v.Arm && (c.Fleet.Mode != policy.FleetEnforce || !v.Suspecting.Open || v.Suspecting.Hosts <= 2):
		t.Fatalf("armed: %+v", v)
	case v.ArmIdle && (c.WithoutTraffic.Mode != policy.FleetEnforce || !v.Idle.Open || v.Idle.Hosts <= 2):
		t.Fatalf("armed without traffic: %+v", v)
	case (v.Arm || v.ArmIdle) && c.Armed > 0 && float64(c.Armed)+1 > c.Fleet.MaxDependencies*float64(c.Dependencies)+1e-6:
		t.Fatalf("too many dependencies: %+v", v)
	case v.Hearsay && c.Own.State != Holding && c.Own.Calls > 0 && c.Own.Failures < uint64(c.Fleet.SuspicionThreshold): //nolint:gosec // small
		t.Fatalf("hearsay without suspicion: %+v", v)
	}
	if v.Arm && !before.armed && c.Fleet.MaxInstances == 0 && c.Tally.Hearsay > 0 {
		t.Fatalf("a second instance: %+v", v)
	}
	if v.Reason.String() == "" || v.Suspecting.HostsNeeded < 1 || v.Suspecting.ZonesNeeded < 1 {
		t.Fatalf("%+v", v)
	}
}

// standingCase is a clear quorum for an instance in the middle of it.
func standingCase(t *testing.T, hosts int, id string) (*Case, *Table) {
	t.Helper()
	table := NewTable(0)
	for i := range 3 {
		h := say(fmt.Sprint("x", i), 1, Report{Dependency: "d", Opinion: Open, Calls: 5, Failures: 5})
		h.from.Zone = fmt.Sprint(i % 2)
		h.put(table, 0)
	}
	tally := table.Tally(0, "d", Origin{ID: id, Host: id, Zone: "0"})
	return &Case{
		Fleet: policy.Default().Fleet, WithoutTraffic: policy.Default().FleetWithoutTraffic, Own: Own{Calls: 10, Failures: 2},
		Population: Population{hosts, 2}, Dependencies: 4, Tally: &tally,
	}, table
}

func (c *Case) settled() Verdict {
	_, c.Standing = c.Verdict()
	c.Now += int64(settle)
	v, s := c.Verdict()
	c.Standing = s
	return v
}

// TestShareOfInstances: of a thousand who suspect the dependency at the same moment
// and cannot know of each other, about the share that the policy allows obeys, and
// always the same ones.
func TestShareOfInstances(t *testing.T) {
	for _, share := range []float64{0, 0.1, 0.5, 1} {
		obey := 0
		for i := range 1000 {
			c, _ := standingCase(t, 1000, fmt.Sprint("i", i))
			c.Fleet.MaxInstances = share
			v := c.settled()
			if v.Hearsay {
				obey++
			} else if v.Reason != MaxInstances || !v.Open {
				t.Fatalf("%+v", v)
			}
		}
		if want := 1000 * share; math.Abs(float64(obey)-want) > 45 {
			t.Errorf("%d of 1000 obey, want about %v", obey, want)
		}
	}
}

// TestWhoIsConvincedObeys: the share is of those who have little more than a suspicion, unless
// it is none at all.
func TestWhoIsConvincedObeys(t *testing.T) {
	for _, test := range []struct {
		share float64
		own   Own
		obey  bool
	}{
		{0.1, Own{Calls: 8, Failures: 4}, true},
		{0.1, Own{Calls: 9, Failures: 4}, false},
		{0.1, Own{Calls: 3, Failures: 3}, false},
		{0, Own{Calls: 8, Failures: 8}, false},
	} {
		obeying := 0
		for i := range 100 {
			c, _ := standingCase(t, 1000, fmt.Sprint("i", i))
			if c.Fleet.MaxInstances, c.Own = test.share, test.own; c.settled().Hearsay {
				obeying++
			}
		}
		if (obeying == 100) != test.obey || obeying > 30 && !test.obey {
			t.Errorf("%+v: %d of 100 obey", test, obeying)
		}
	}
}

// TestWhoObeysStays: neither others who hold back, nor those who recover, push out one
// that holds back already.
func TestWhoObeysStays(t *testing.T) {
	c, table := standingCase(t, 8, "me")
	if v := c.settled(); !v.Hearsay {
		t.Fatalf("%+v", v)
	}
	for i := range 6 {
		say(fmt.Sprint("y", i), 1, Report{Dependency: "d", Opinion: Hearsay}).put(table, 0)
	}
	tally := table.Tally(c.Now, "d", Origin{ID: "me", Host: "me", Zone: "0"})
	c.Tally, c.Own.State = &tally, Holding
	if v, _ := c.Verdict(); !v.Hearsay {
		t.Errorf("%+v", v)
	}
	c.Standing = Standing{suspecting: c.Standing.suspecting}
	if v, _ := c.Verdict(); v.Arm {
		t.Errorf("a newcomer beside six: %+v", v)
	}
}

func TestStandingForgets(t *testing.T) {
	c, _ := standingCase(t, 8, "me")
	c.Fleet.MaxInstances = 1
	if !c.Standing.Forgettable(0) {
		t.Error("the zero value")
	}
	_, c.Standing = c.Verdict()
	if at, ok := c.Standing.Again(0); !ok || at != int64(settle) || c.Standing.Forgettable(0) {
		t.Errorf("settling: %v %v", at, ok)
	}
	if v := c.settled(); !v.Hearsay || c.Standing.Forgettable(c.Now) {
		t.Errorf("%+v", v)
	}
	empty := NewTable(0).Tally(0, "d", Origin{ID: "me", Host: "me", Zone: "0"})
	c.Tally = &empty
	v, s := c.Verdict()
	if v.Reason != Dwelling || !v.Suspecting.Open {
		t.Errorf("%+v", v)
	}
	at, ok := s.Again(c.Now)
	if !ok || at != c.Now+int64(c.Fleet.Dwell) {
		t.Errorf("dwelling until %v %v", time.Duration(at), ok)
	}
	c.Now = at
	if v, c.Standing = c.Verdict(); v.Suspecting.Open {
		t.Errorf("%+v", v)
	}
	if _, ok := c.Standing.Again(c.Now); ok || c.Standing.Forgettable(c.Now+int64(time.Minute)) {
		t.Error("closed: nothing to wait for, and nothing to forget yet")
	}
	if !c.Standing.Forgettable(c.Now + int64(10*time.Minute)) {
		t.Error("never forgettable")
	}
}

func TestOwnOpinion(t *testing.T) {
	f := policy.Default().Fleet
	for _, c := range []struct {
		own  Own
		want Opinion
	}{
		{Own{State: Opened}, Open},
		{Own{State: HalfOpen, Successes: 9, Calls: 9}, Probing},
		{Own{State: Holding}, Hearsay},
		{Own{State: Holding, Calls: 4, Failures: 1, Successes: 2}, Hearsay},
		{Own{State: Holding, Calls: 9, Failures: 5, Successes: 4}, Hearsay},
		{Own{State: Holding, Calls: 9, Failures: 2, Successes: 7}, Well},
		{Own{State: Ramping}, Recovering},
		{Own{State: Ramping, Calls: 4, Successes: 3}, Well},
		{Own{Calls: 9, Failures: 1}, None},
		{Own{Calls: 9, Failures: 2, Successes: 2}, Suspects},
		{Own{Calls: 9, Failures: 2, Successes: 3}, Well},
		{Own{Calls: 9, Failures: 5, Successes: 3}, Suspects},
		{Own{Calls: 9, Successes: 2}, None},
	} {
		if got := c.own.Opinion(f); got != c.want {
			t.Errorf("%+v: %v, want %v", c.own, got, c.want)
		}
	}
}
