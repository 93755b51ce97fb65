package health

import (
	"math"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Scope is of whom a finding is true.
type Scope uint8

// A dependency is broken for the fleet, or only as seen from a zone.
const (
	ScopeFleet Scope = iota
	ScopeZone
)

func (s Scope) String() string { return [...]string{"fleet", "zone"}[s] }

// Reason is why a conclusion is what it is.
type Reason uint8

// Reasons of a Finding, then those that only a Verdict has.
const (
	NoEvidence Reason = iota // nobody finds it broken
	TooFewHosts
	OnlySuspicions // no host has opened by its own evidence
	TooFewZones
	MostAreWell
	Settling // a quorum that is only just there
	Damped   // a quorum too soon after the last change
	Quorum
	Stands   // fewer than the quorum by now, not few enough to close
	Dwelling // too few by now, too soon to close

	OwnEvidence     // opened by its own breaker
	OwnSuccesses    // which veto what others say
	OwnRamp         // lets more and more calls through; how they end decides
	NoSuspicion     // of its own, though it calls the dependency
	DoubtsItself    // whatever others say
	TwoHosts        // or fewer: others are shown and not obeyed
	ModeOff         // says the policy
	ModeAdvise      // says the policy
	MaxDependencies // are held back by hearsay already
	MaxInstances    // are
)

func (r Reason) String() string {
	return [...]string{
		"nobody finds it broken", "too few hosts", "only suspicions", "too few zones", "most are well",
		"settling", "too soon after the last change", "quorum", "still enough hosts", "dwelling",
		"own evidence", "own successes", "own ramp", "no suspicion of its own", "doubts itself", "two hosts or fewer, advice only",
		"mode off", "mode advise", "too many dependencies held back", "too many instances held back",
	}[r]
}

// fewHosts is how many are too few to tell which of them is wrong.
const fewHosts = 2

// Population is where the instances of the asking service are, as servers know.
type Population struct {
	Hosts, Zones int
}

// State is what an instance's own breaker of a dependency does, all targets together.
type State uint8

// States of breakers. Those that an operator holds open or closed are none of these:
// nothing is to be asked or said about them.
const (
	Passing  State = iota // closed
	Holding               // back by hearsay
	Opened                // by evidence of its own
	HalfOpen              // a probe is under way
	Ramping               // recovering
)

// Own is the evidence of the instance that asks.
type Own struct {
	State State
	// Calls and Failures are of the breaker's window, Successes of the veto window.
	Calls, Failures, Successes uint64
}

// Hard reports whether the breaker has opened by evidence of its own.
func (o *Own) Hard() bool { return o.State == Opened || o.State == HalfOpen }

// Opinion is what the instance thinks; Speak says whether it should say so.
func (o *Own) Opinion(f policy.Fleet) Opinion {
	switch {
	case o.State == Opened:
		return Open
	case o.State == HalfOpen:
		return Probing
	case o.vetoes(&f) && 2*o.Failures < o.Calls: // also where one method is held back
		return Well
	case o.State == Holding:
		return Hearsay
	case o.State == Ramping:
		return Recovering
	case o.suspects(&f):
		return Suspects
	default:
		return None
	}
}

func (o *Own) vetoes(f *policy.Fleet) bool {
	return o.Successes > 0 && o.Successes >= uint64(max(f.VetoSuccesses, 1)) //nolint:gosec // at least 1
}

func (o *Own) suspects(f *policy.Fleet) bool {
	return o.Failures > 0 && o.Failures >= uint64(max(f.SuspicionThreshold, 1)) //nolint:gosec // at least 1
}

// Case is everything that a verdict depends on.
type Case struct {
	Now            int64
	Fleet          policy.Fleet
	WithoutTraffic policy.FleetWithoutTraffic
	Own            Own
	Population     Population
	Doubt          Doubt
	// Dependencies are those that the instance has used lately, Armed those other than
	// this one whose last verdict had Arm or ArmIdle.
	Dependencies, Armed int
	Tally               *Tally
	Standing            Standing
}

// Finding is what the fleet says of a dependency, to anybody in the same zone.
type Finding struct {
	Open   bool
	Reason Reason
	Scope  Scope
	// HostsOpen of Hosts find it broken, HostsNeeded must; with zones likewise. Hosts
	// are those that call it as far as known, the asking one included.
	HostsOpen, HostsNeeded, Hosts int
	ZonesOpen, ZonesNeeded        int
	WeightOpen, WeightWell        float64
}

// Verdict is what an instance concludes about a dependency.
type Verdict struct {
	// Open: it is held to be broken. Hearsay: calls are to be held back though own
	// evidence would not do so. Reason and Mode belong to these two.
	Open, Hearsay bool
	Reason        Reason
	Mode          policy.FleetMode
	// Arm: as soon as, and as long as, a breaker has its own suspicion it is to hold
	// calls back. ArmIdle: also without calls to judge by. Both hold until the next
	// Verdict.
	Arm, ArmIdle bool
	// Suspecting is what the fleet says to those who suspect the dependency, Idle to
	// those who make no calls.
	Suspecting, Idle Finding
}

// Verdict judges. It depends on the case only.
func (c *Case) Verdict() (Verdict, Standing) {
	idle := c.Fleet
	idle.Mode, idle.Quorum, idle.OpenRatio = c.WithoutTraffic.Mode, c.WithoutTraffic.Quorum, c.WithoutTraffic.OpenRatio
	idle.CloseRatio = min(idle.CloseRatio, idle.OpenRatio)

	var v Verdict
	s := c.Standing
	v.Suspecting, s.suspecting = c.find(&c.Fleet, s.suspecting)
	v.Idle, s.idle = c.find(&idle, s.idle)
	why, whyIdle := c.permit(&c.Fleet, &v.Suspecting, s.armed), c.permit(&idle, &v.Idle, s.armedIdle)
	v.Arm, v.ArmIdle = why == Quorum, whyIdle == Quorum
	s.armed, s.armedIdle = v.Arm, v.ArmIdle

	of, why, arm := &v.Suspecting, why, v.Arm
	v.Mode = c.Fleet.Mode
	holding := c.Own.State == Holding
	if holding && !v.Arm && v.ArmIdle || !holding && c.Own.Calls == 0 {
		of, why, arm, v.Mode = &v.Idle, whyIdle, v.ArmIdle, idle.Mode
	}
	v.Open, v.Hearsay, v.Reason = of.Open, arm, of.Reason
	switch {
	case c.Own.Hard():
		v.Open, v.Hearsay, v.Reason = true, false, OwnEvidence
	case c.Own.vetoes(&c.Fleet):
		v.Open, v.Hearsay, v.Reason = false, false, OwnSuccesses
	case c.Own.State == Ramping:
		v.Open, v.Hearsay, v.Reason = false, false, OwnRamp
	case !v.Open:
	case !arm:
		v.Reason = why
	case c.Own.Calls > 0 && !holding && !c.Own.suspects(&c.Fleet):
		v.Open, v.Hearsay, v.Reason = false, false, NoSuspicion
	}
	return v, s
}

// find asks the fleet, and if that does not find the dependency broken, the zone.
func (c *Case) find(f *policy.Fleet, d damper) (Finding, damper) {
	finding, holds := c.count(f, ScopeFleet)
	if !finding.Open && c.zones() > 1 && c.Tally.me.Host != "" {
		if zone, still := c.count(f, ScopeZone); zone.Open || !holds && still {
			finding, holds = zone, still
		}
	}
	want := finding.Open || d.open && holds
	next := d.next(c.Now, want, finding.Scope, f)
	switch {
	case next.open && !want:
		finding.Reason = Dwelling
	case next.open && !finding.Open:
		finding.Reason = Stands
	case !next.open && want && c.Now < next.until:
		finding.Reason = Damped
	case !next.open && want:
		finding.Reason = Settling
	}
	finding.Open = next.open
	if next.open {
		finding.Scope = next.scope
		if finding.Hosts <= fewHosts {
			finding.Reason = TwoHosts
		}
	}
	return finding, next
}

func (c *Case) zones() int { return max(c.Tally.Zones, c.Population.Zones) }

// count says whether there is a quorum, and if not, whether what is there is enough
// for a verdict that stands: more than half of the hosts, and the lower watermark.
func (c *Case) count(f *policy.Fleet, scope Scope) (finding Finding, holds bool) {
	count, hosts, zones := &c.Tally.Fleet, c.Population.Hosts, c.zones()
	if scope == ScopeZone {
		count, hosts, zones = &c.Tally.Zone, (hosts+zones-1)/zones, 1
	}
	own := 0
	if c.Tally.me.Host != "" {
		own = 1
	}
	hosts = max(hosts, count.hosts()+own)
	finding = Finding{
		Scope: scope, Hosts: hosts,
		HostsOpen: count.Open, HostsNeeded: max(1, min(f.Quorum, (hosts+1)/2)),
		ZonesOpen: count.ZonesOpen, ZonesNeeded: max(1, min(f.Zones, zones)),
		WeightOpen: count.WeightOpen, WeightWell: count.WeightWell,
	}
	share := count.Share()
	switch {
	case count.Open == 0:
		finding.Reason = NoEvidence
	case count.Hard == 0:
		finding.Reason = OnlySuspicions
	case count.Open < finding.HostsNeeded:
		finding.Reason = TooFewHosts
	case share < f.OpenRatio:
		finding.Reason = MostAreWell
	case count.ZonesOpen < finding.ZonesNeeded:
		finding.Reason = TooFewZones
	default:
		finding.Open, finding.Reason = true, Quorum
	}
	return finding, 2*count.Open > finding.HostsNeeded && share >= f.CloseRatio
}

const rounding = 1e-9 // 0.29 × 100 is 29

// permit says why a finding is not to be obeyed; Quorum if it is. An instance that
// obeys already is not one too many.
func (c *Case) permit(f *policy.Fleet, of *Finding, armed bool) Reason {
	switch {
	case !of.Open:
		return of.Reason
	case f.Mode == policy.FleetAdvise:
		return ModeAdvise
	case f.Mode != policy.FleetEnforce:
		return ModeOff
	case c.Doubt != 0:
		return DoubtsItself
	case of.Hosts <= fewHosts:
		return TwoHosts
	case c.Armed+1 > max(1, int(f.MaxDependencies*float64(c.Dependencies)+rounding)):
		return MaxDependencies
	case !armed && !c.convinced(f) && !c.chosen(f.MaxInstances, of):
		return MaxInstances
	default:
		return Quorum
	}
}

// convinced tells whether what the instance saw itself is so much more than a suspicion, twice
// as many failures and at least half of its calls, that to hold back is hardly hearsay. Those
// are not counted against the share of callers, unless that is none at all: callers of which
// each method is called too rarely to open would go on for as long as the outage lasts.
func (c *Case) convinced(f *policy.Fleet) bool {
	o := &c.Own
	return f.MaxInstances > 0 && o.Failures >= 2*uint64(max(f.SuspicionThreshold, 1)) && 2*o.Failures >= o.Calls //nolint:gosec // at least 1
}

// chosen keeps the share of callers that hearsay cuts off within a bound, without
// asking anybody: each instance has a stable place in [0, 1), drawn from its id and the
// dependency, and obeys if that is below share·n/(n−open). Of the n hosts that call, open
// ones need no hearsay; as many of the rest as the share of all of them allows are
// chosen, always the same ones. At least one of n is.
//
// Where others say that so many hold back already, nobody further does.
func (c *Case) chosen(share float64, of *Finding) bool {
	n := float64(of.Hosts)
	most := max(share, 1/n)
	if float64(c.Tally.Hearsay) >= math.Ceil(most*n) {
		return false
	}
	rest := max(n-float64(of.HostsOpen), 1)
	return Place(c.Tally.dependency, c.Tally.me.ID) < most*n/rest
}

// Place is an instance's place among all for a dependency: evenly spread over [0, 1),
// and always the same.
func Place(dependency, id string) float64 {
	return float64(hash("place", dependency, id)>>11) / (1 << 53)
}
