package api

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/health"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// populationPause is the time between two counts of the instances.
const populationPause = 15 * time.Second

// count keeps the population up to date.
func (f *fleetSpace) count(ctx context.Context) {
	ticker := time.NewTicker(populationPause)
	defer ticker.Stop()
	var before map[string]health.Population
	for {
		now, whole := f.of.instances.population(ctx, f.namespace)
		if ctx.Err() != nil {
			return
		}
		first := before == nil
		if before = f.publish(before, now, whole); first {
			close(f.counted)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// publish shows the greater one of two counts: an instance that changes its server, or
// starts anew, is not missed, since fewer hosts mean a lower quorum. What cannot be
// counted because a server is silent stays at least as it was. It returns what the
// next count is compared with.
func (f *fleetSpace) publish(before, now map[string]health.Population, whole bool) map[string]health.Population {
	all := maps.Clone(now)
	for service, was := range before {
		is := all[service]
		all[service] = health.Population{Hosts: max(is.Hosts, was.Hosts), Zones: max(is.Zones, was.Zones)}
	}
	if !whole {
		now = all
	}
	f.pool.SetPopulation(all)
	if services, changed := f.terms.Load().differ(all); changed {
		f.change(func(t *fleetTerms) { t.population = services })
	}
	return now
}

// differ returns where instances are as they are told, if that is other than what they
// were told.
func (t *fleetTerms) differ(all map[string]health.Population) (services []*holdfastv1.ServicePopulation, changed bool) {
	known := t.byService()
	changed = len(known) != len(all)
	for _, service := range slices.Sorted(maps.Keys(all)) {
		is, was := all[service], known[service]
		changed = changed || is.Zones != was.Zones || max(is.Hosts, was.Hosts)-min(is.Hosts, was.Hosts) > min(is.Hosts, was.Hosts)/10
		services = append(services, &holdfastv1.ServicePopulation{
			Service: service, Hosts: uint32(is.Hosts), Zones: uint32(is.Zones), //nolint:gosec // few
		})
	}
	return services, changed
}

func (t *fleetTerms) byService() map[string]health.Population {
	m := make(map[string]health.Population, len(t.population))
	for _, s := range t.population {
		m[s.GetService()] = health.Population{Hosts: int(s.GetHosts()), Zones: int(s.GetZones())}
	}
	return m
}

// told returns the services that an instance is told of: its own in any case.
func (t *fleetTerms) told(service string) []*holdfastv1.ServicePopulation {
	if len(t.population) <= MaxToldServices {
		return t.population
	}
	list := slices.Clone(t.population[:MaxToldServices])
	i, ok := slices.BinarySearchFunc(t.population, service, func(s *holdfastv1.ServicePopulation, name string) int {
		return strings.Compare(s.GetService(), name)
	})
	if ok && i >= MaxToldServices {
		list[MaxToldServices-1] = t.population[i]
	}
	return list
}

// population counts the hosts and zones of each service over all servers. It tells
// whether every server was heard.
func (s *instanceService) population(ctx context.Context, namespace string) (counts map[string]health.Population, whole bool) {
	counts = make(map[string]health.Population)
	hosts, zones := make(map[string]bool), make(map[string]bool)
	service := ""
	done := func() {
		if len(hosts) > 0 {
			counts[service] = health.Population{Hosts: len(hosts), Zones: len(zones)}
		}
		clear(hosts)
		clear(zones)
	}
	var v violations
	all := &holdfastv1.InstanceFilter{Namespace: namespace}
	req := &peerv1.ListInstancesRequest{Filter: all}
	unreachable, err := s.merged(ctx, req, v.instances("filter", all), func(i *holdfastv1.Instance) {
		if i.GetIdentity().GetService() != service {
			done()
			service = i.GetIdentity().GetService()
		}
		hosts[hostOf(i.GetAddress())] = true
		if zone := i.GetIdentity().GetLabels()[zoneLabel]; zone != "" {
			zones[zone] = true
		}
	})
	done()
	return counts, err == nil && len(unreachable) == 0
}

// zoneLabel is the label under which an instance tells its zone.
const zoneLabel = "zone"

// hostOf returns the host of an address as a server sees it; empty where it has none.
func hostOf(address string) string {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	return a.Addr().Unmap().WithZone("").String()
}
