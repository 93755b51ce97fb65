package fleet

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// maxPictured bounds the reports of one dependency in a picture; the number of all is
	// told.
	maxPictured = 1000
	// maxPicturedDependencies bounds the dependencies: the most spoken of are shown, and
	// how many others there are.
	maxPicturedDependencies = 100
)

// Picture shows what the instances say of a dependency, or of all where it is empty,
// and what an instance concludes that has heard it for a while and obeys policies.
// Mode tells how an instance takes part; it and policies are asked under the lock of the
// store. Where there are too many dependencies the last one is none: its name says how
// many are left out, its count is of their reports, and it has no verdict. The caller adds
// what else is to be told.
func (s *Store) Picture(dependency string, policies func(dependency string) policy.Policy, mode func(id string) string) *holdfastv1.Fleet {
	picture := &holdfastv1.Fleet{}
	s.look(func(t *health.Table, population map[string]health.Population) {
		hosts := map[string]bool{}
		for held := range t.All() {
			if !held.Record.Leaving {
				hosts[held.Host] = true
				picture.Instances++
			}
		}
		picture.Hosts = uint32(len(hosts)) //nolint:gosec // bounded by the table
		names, others := []string{dependency}, (*holdfastv1.FleetDependency)(nil)
		if dependency == "" {
			names, others = mostSpokenOf(t)
		}
		for _, name := range names {
			p := policies(name)
			picture.Dependencies = append(picture.Dependencies, pictured(s.now(), t, name, &p, population, mode))
		}
		if others != nil {
			picture.Dependencies = append(picture.Dependencies, others)
		}
	})
	return picture
}

// mostSpokenOf returns the dependencies that are shown, by name, and what stands for the
// others; nil if there are none.
func mostSpokenOf(t *health.Table) (names []string, others *holdfastv1.FleetDependency) {
	names = t.Dependencies()
	if len(names) <= maxPicturedDependencies {
		return names, nil
	}
	slices.SortStableFunc(names, func(a, b string) int { return -cmp.Compare(t.Reports(a), t.Reports(b)) })
	rest := names[maxPicturedDependencies:]
	others = &holdfastv1.FleetDependency{Name: fmt.Sprintf("(%d more; ask for one by name)", len(rest))}
	for _, name := range rest {
		others.ReportCount += uint32(t.Reports(name)) //nolint:gosec // bounded by the table
	}
	names = names[:maxPicturedDependencies]
	slices.Sort(names)
	return names, others
}

func pictured(now int64, t *health.Table, name string, p *policy.Policy, population map[string]health.Population, mode func(string) string) *holdfastv1.FleetDependency {
	votes, tally := t.Votes(now, name, health.Origin{}), t.Tally(now, name, health.Origin{})
	c := health.Case{Fleet: p.Fleet, WithoutTraffic: p.FleetWithoutTraffic, Tally: &tally, Dependencies: 1}
	c.Fleet.MaxDependencies, c.Fleet.MaxInstances = 1, 1                          // which instances are held back is another question
	d := &holdfastv1.FleetDependency{Name: name, ReportCount: uint32(len(votes))} //nolint:gosec // bounded by the table
	for i := range votes {
		of := population[votes[i].Service]
		c.Population.Hosts, c.Population.Zones = max(c.Population.Hosts, of.Hosts), max(c.Population.Zones, of.Zones)
		if i < maxPictured {
			d.Reports = append(d.Reports, reported(&votes[i], mode))
		}
	}
	d.VerdictWithoutTraffic = concluded(now, c, p.FleetWithoutTraffic.Mode)
	c.Own = health.Own{Calls: math.MaxUint32, Failures: math.MaxUint32}
	d.Verdict = concluded(now, c, p.Fleet.Mode)
	return d
}

// concluded is what an instance concludes for which it has been so for a while.
func concluded(now int64, c health.Case, mode policy.FleetMode) *holdfastv1.FleetVerdict {
	c.Now = now - int64(time.Minute)
	_, c.Standing = c.Verdict()
	c.Now = now
	v, _ := c.Verdict()
	f, reason := &v.Suspecting, v.Reason
	if c.Own.Calls == 0 {
		f = &v.Idle
	}
	if !f.Open {
		reason = f.Reason
	}
	if reason == health.TwoHosts && mode == policy.FleetEnforce {
		mode = policy.FleetAdvise
	}
	//nolint:gosec // bounded by the table
	return &holdfastv1.FleetVerdict{
		Open: f.Open, Mode: string(mode), Reason: reason.String(),
		HostsOpen: uint32(f.HostsOpen), HostsNeeded: uint32(f.HostsNeeded),
		ZonesOpen: uint32(f.ZonesOpen), ZonesNeeded: uint32(f.ZonesNeeded),
		WeightOpen: f.WeightOpen, WeightWell: f.WeightWell,
	}
}

func reported(v *health.Vote, mode func(string) string) *holdfastv1.FleetReport {
	return &holdfastv1.FleetReport{
		InstanceId: v.ID, Service: v.Service, Host: v.Host, Zone: v.Zone,
		Opinion: v.Opinion.String(), Reason: v.Cause.String(), Calls: uint64(v.Calls), Failures: uint64(v.Failures),
		Since: durationpb.New(v.Since), Age: durationpb.New(v.Age), DoubtsItself: v.Doubt != 0, Ignored: v.Ignored, Mode: mode(v.ID),
	}
}
