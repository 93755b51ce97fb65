package fleet

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
	"github.com/holdfast-dev/holdfast/internal/health"
)

// pooled are instances that gossip over a network.
type pooled struct {
	*instance
	pool    *gossip.Pool
	channel *gossip.Channel
	addr    string
	started atomic.Bool
}

// join makes an instance a member of the real pool of a network.
func join(t *testing.T, network *mesh.Network, k int) *pooled {
	t.Helper()
	p := &pooled{addr: fmt.Sprintf("10.0.0.%d:7946", k+1)}
	transport, err := network.Transport(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("checkout-%d", k)
	p.pool, err = gossip.New(gossip.Config{
		Name: id, Transport: transport, Profile: gossip.Instances, Join: []string{"10.0.0.1:7946", "10.0.0.2:7946"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.instance = newEther().instance(t, option{id: id, zone: fmt.Sprintf("zone-%d", k%2), vitals: func() Vitals {
		if !p.started.Load() {
			return Vitals{Members: 1}
		}
		m := p.pool.Metrics()
		return Vitals{Health: m.Health, Members: m.Members, Left: m.Left, Heard: m.Silence}
	}})
	p.channel = p.pool.AddRecords("evidence", p.store)
	p.member.SetSpread(func(id string, news bool) {
		if news {
			p.channel.Spread(id)
		} else {
			p.channel.Refresh(id)
		}
	})
	if err := p.pool.Start(); err != nil {
		t.Fatal(err)
	}
	p.started.Store(true)
	return p
}

func (p *pooled) stop(t *testing.T) {
	t.Helper()
	p.close()
	if err := p.pool.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestOverGossip tells the whole story over the real gossip: a dependency dies, all
// hold back, the fleet is cut in two, it recovers on both sides, and all is forgotten.
func TestOverGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := mesh.New(1)
		network.Shape(time.Millisecond, 0.05)
		const n = 10
		var all []*instance
		var members []*pooled
		for k := range n {
			p := join(t, network, k)
			members, all = append(members, p), append(all, p.instance)
			<-time.After(50 * time.Millisecond)
		}
		defer func() {
			for _, p := range members {
				p.stop(t)
			}
			<-time.After(10 * time.Second) // of the library's last probes
		}()
		for _, i := range all {
			i.store.SetPopulation(map[string]health.Population{"checkout": {Hosts: n, Zones: 2}})
		}
		<-time.After(5 * time.Second)
		var o outage
		stop := o.run(all, func(k int) time.Duration { return time.Duration(10+60*k) * time.Millisecond })
		<-time.After(5 * time.Second)
		o.down.Store(true)
		<-time.After(2 * time.Second)
		if k := opened(all); k < 9 {
			t.Errorf("2 s after the dependency died %d of %d hold back", k, n)
		}
		var left, right []string
		for k, p := range members {
			if k < 5 {
				left = append(left, p.addr)
			} else {
				right = append(right, p.addr)
			}
		}
		network.Partition(left, right)
		<-time.After(30 * time.Second)
		before := o.calls.Load()
		<-time.After(30 * time.Second)
		if probes := o.calls.Load() - before; probes < 2 || probes > 30 {
			t.Errorf("%d probes in 30 s of two halves", probes)
		}
		o.down.Store(false)
		<-time.After(time.Minute)
		if k := opened(all); k != 0 {
			t.Errorf("a minute after the end of the outage %d hold back", k)
		}
		network.Heal()
		<-time.After(time.Minute)
		for _, p := range members {
			if keys := p.store.Keys(); len(keys) != 0 {
				t.Errorf("%s still holds %v", p.id, keys)
			}
			if m := p.pool.Metrics().Members; m != n {
				t.Errorf("%s knows %d members", p.id, m)
			}
		}
		stop()
	})
}
