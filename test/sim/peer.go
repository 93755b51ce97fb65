package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

const (
	// service is what all instances are.
	service = "checkout"
	// seeds are the members that others join through, each through a few.
	seeds      = 8
	seedsTried = 3
)

// peer is an instance's part in gossip.
type peer struct {
	addr      string
	transport *mesh.Transport
	pool      *gossip.Pool
	store     *fleet.Store
	member    *fleet.Member // nil for a liar
}

// addr is where an instance gossips.
func (i *Instance) addr() string { return fmt.Sprintf("%s:%d", i.Host, 7000+i.N) }

// newPeer makes an instance's part in gossip; it joins through the given addresses.
func newPeer(i *Instance, join []string) (*peer, error) {
	p := &peer{addr: i.addr()}
	w := i.world
	own, certificate, err := w.trust.certify(w.plan.Seed, i.serial(), i.ID, i.Place)
	if err != nil {
		return nil, err
	}
	if p.transport, err = w.network.Transport(p.addr); err != nil {
		return nil, fmt.Errorf("attach %s: %w", i.ID, err)
	}
	p.transport.Place(i.zone)
	p.pool, err = gossip.New(gossip.Config{Name: i.ID, Label: "sim", Transport: p.transport, Join: join, Profile: gossip.Instances})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", i.ID, err)
	}
	told := clock.New()
	p.store = fleet.NewStore(fleet.StoreConfig{Namespace: namespace, Clock: told, Verify: w.trust.verify, OnChange: i.wake})
	p.store.SetSigners(w.trust.signers)
	p.store.SetPopulation(w.plan.population())
	channel := p.pool.AddRecords("evidence", p.store)
	p.member = fleet.NewMember(fleet.MemberConfig{
		Guard: i.guard, Store: p.store, Clock: told, Key: own, Incarnation: i.incarnation, Seed: i.serial(),
		Spread: say(channel), Vitals: p.vitals,
	})
	if err := p.member.SetCertificate(certificate); err != nil {
		return nil, fmt.Errorf("certify %s: %w", i.ID, err)
	}
	if err := p.pool.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", i.ID, err)
	}
	p.member.Start()
	return p, nil
}

func (p *peer) vitals() fleet.Vitals {
	m := p.pool.Metrics()
	return fleet.Vitals{Health: m.Health, Members: m.Members, Left: m.Left, Heard: m.Silence}
}

// stop ends without a farewell. A nil peer has nothing to stop.
func (p *peer) stop() {
	if p == nil {
		return
	}
	ended, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	_ = p.transport.Shutdown() // first: nobody hears that it leaves
	if p.member != nil {
		p.member.Close()
	}
	_ = p.pool.Close(ended)
}

// join lets all instances gossip. They come over some seconds, each through a few of
// the first, so that the timers of memberlist are not in step.
func (w *World) join() {
	random := newRandom(w.plan.Seed, 1<<32)
	var addrs []string
	for _, i := range w.instances[:min(seeds, len(w.instances))] {
		addrs = append(addrs, i.addr())
	}
	begin := time.Now()
	for n, i := range w.instances {
		random.Shuffle(len(addrs), func(a, b int) { addrs[a], addrs[b] = addrs[b], addrs[a] })
		p, err := newPeer(i, slices.Clone(addrs[:min(seedsTried, len(addrs))]))
		if err != nil {
			w.t.Fatal(err)
		}
		i.peer.Store(p)
		w.Pass(time.Until(begin.Add(w.plan.joining() * time.Duration(n+1) / time.Duration(len(w.instances)))))
	}
}

// traffic is what all instances have sent and received.
func (w *World) traffic() (sum mesh.Traffic) {
	for _, i := range w.instances {
		t := i.peer.Load().transport.Traffic()
		sum.SentBytes += t.SentBytes
		sum.ReceivedBytes += t.ReceivedBytes
		sum.SentPackets += t.SentPackets
	}
	return sum
}

// say lets a member's own record travel.
func say(c *gossip.Channel) fleet.Spread {
	return func(id string, news bool) {
		if news {
			c.Spread(id)
		} else {
			c.Refresh(id)
		}
	}
}
