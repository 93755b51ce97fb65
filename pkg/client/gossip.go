package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/relay"
	"github.com/holdfast-dev/holdfast/internal/session"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// How an instance takes part in gossip.
const (
	// GossipOff leaves the instance alone: its breakers are its own.
	GossipOff = "off"
	// GossipRelayed lets its evidence travel over its session; servers gossip for it.
	// It opens no socket.
	GossipRelayed = "relayed"
	// GossipDirect makes it a member of the pool of its namespace, once a server has
	// found that it can be reached by UDP and TCP. Until then it is relayed.
	GossipDirect = "direct"
)

// bindPause is how long a pool whose address cannot be bound waits for another try.
const bindPause = 30 * time.Second

// peers is the client's part in what instances tell each other: evidence of their
// breakers, and, while servers cannot be reached, views.
type peers struct {
	client *Client
	logger *slog.Logger
	wanted string // the mode
	key    *trust.Key
	store  *fleet.Store
	member *fleet.Member
	relay  *relay.Relay
	// ready is closed once the fields above hold: the session may call before.
	ready chan struct{}

	latest  atomic.Pointer[holdfastv1.GossipSettings] // not followed yet
	wake    chan struct{}                             // holds one token: there are some
	others  chan struct{}                             // holds one token: members have come or gone
	stop    context.CancelFunc
	running sync.WaitGroup
	granted atomic.Pointer[grant]
	reached atomic.Pointer[reach]         // nil without a pool
	newer   atomic.Pointer[trust.Signers] // those that count now; nil before any do

	// Of the goroutine.
	settings *holdfastv1.GossipSettings // that are followed
	seeds    []string                   // members that are kept on the disk
}

// grant is what a server said last.
type grant struct{ mode, why string }

// reach is a pool that runs.
type reach struct {
	pool     *gossip.Pool
	evidence *gossip.Channel
	label    string
	keys     [][]byte
	joined   bool
}

// checkGossip refuses what cannot be meant.
func checkGossip(config *Config) error {
	switch config.Gossip {
	case "", GossipOff, GossipRelayed, GossipDirect:
	default:
		return fmt.Errorf("open client: Gossip: %q is not known; use %q, %q or %q", config.Gossip, GossipOff, GossipRelayed, GossipDirect)
	}
	for name, addr := range map[string]string{"GossipAddr": config.GossipAddr, "GossipAdvertise": config.GossipAdvertise} {
		if addr == "" {
			continue
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("open client: %s: %w; host:port is needed", name, err)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil || host != "" && net.ParseIP(host) == nil {
			return fmt.Errorf("open client: %s: %q is not an IP address and a port", name, addr)
		}
	}
	return nil
}

// newPeers returns the client's part; nil where it takes none.
func newPeers(c *Client) (*peers, error) {
	wanted := cmp.Or(c.config.Gossip, GossipRelayed)
	if wanted == GossipOff || disabledByEnvironment() {
		return nil, nil //nolint:nilnil // methods of nil take no part
	}
	key, err := trust.NewKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("open client: %w", err)
	}
	return &peers{
		client: c, logger: c.logger, wanted: wanted, key: key,
		ready: make(chan struct{}), wake: make(chan struct{}, 1), others: make(chan struct{}, 1),
	}, nil
}

// session returns how the session is to take part; nil for not at all.
func (p *peers) session() *session.Gossip {
	if p == nil {
		return nil
	}
	return &session.Gossip{State: p.state, Settings: p.take, Evidence: p.hear, Own: p.own, Head: p.head}
}

// start begins, with what the disk knew.
func (p *peers) start(of *session.Session, incarnation uint64) {
	c, known := p.client, ownTrust(of.Trust(), p.client.config.InstanceID)
	if key, err := trust.ParseKey(known.Key); err == nil {
		p.key = key
	}
	p.store = fleet.NewStore(fleet.StoreConfig{
		Namespace: c.config.Namespace, Clock: c.clock, Time: p.stateTime, Logger: p.logger, OnChange: func() { p.member.Wake() },
	})
	p.member = fleet.NewMember(fleet.MemberConfig{
		Guard: c.calls.guard, Store: p.store, Clock: c.clock, Key: p.key, Incarnation: incarnation, Seed: mathrand.Uint64(),
		Logger: p.logger, OnEvent: c.fleetChanged, Spread: p.spread, Vitals: p.vitals,
	})
	p.relay = relay.New(relay.Config{Namespace: c.config.Namespace, Key: p.key, OnSigners: p.trust, Logger: p.logger})
	p.granted.Store(&grant{mode: GossipOff, why: "no server has answered yet"})
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.relay.Start(of)
	p.member.Start()
	p.remember(known.Settings)
	p.running.Go(func() { p.run(ctx) })
	c.suspected.Store(p.member)
	close(p.ready)
}

// remember begins with what a server said before the process was restarted, which lets
// it be a member of the pool, and know whom to believe, where no server can be reached.
func (p *peers) remember(s *holdfastv1.GossipSettings) {
	if s == nil {
		return
	}
	if s.GetMode() == GossipDirect && p.wanted == GossipDirect {
		p.granted.Store(&grant{mode: GossipDirect})
	}
	p.seeds = s.GetSeeds()
	if err := p.relay.TrustServer(s.GetSigners()); err != nil {
		p.logger.Warn("the servers' signing keys on disk are not taken", "error", err)
	}
	p.latest.Store(s)
	p.look()
}

// close says farewell and waits for everything, also in a pool, until ctx ends.
func (p *peers) close(ctx context.Context) error {
	if p == nil {
		return nil
	}
	p.client.suspected.Store(nil)
	p.stop()
	p.member.Close()
	p.running.Wait()
	err := p.leave(ctx)
	p.relay.Close()
	return err
}

func (p *peers) look() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// state implements session.Gossip.
func (p *peers) state() *holdfastv1.GossipState {
	<-p.ready
	state := &holdfastv1.GossipState{Mode: p.wanted, PublicKey: p.key.Public()}
	if r := p.reached.Load(); r != nil {
		state.Address, state.Member = r.pool.Addr(), r.pool.Name()
	}
	return state
}

// take implements session.Gossip. What is slow about settings is left to the goroutine.
func (p *peers) take(s *holdfastv1.GossipSettings) {
	<-p.ready
	p.granted.Store(&grant{mode: s.GetMode(), why: s.GetWhy()})
	if len(s.GetSigners()) > 0 {
		if err := p.relay.TrustServer(s.GetSigners()); err != nil {
			p.logger.Warn("the servers' signing keys are not taken", "error", err)
		}
	}
	p.latest.Store(s)
	p.look()
}

// hear implements session.Gossip.
func (p *peers) hear(records [][]byte) {
	<-p.ready
	for _, b := range records {
		p.store.Merge(b)
	}
}

// own implements session.Gossip.
func (p *peers) own() []byte {
	<-p.ready
	return p.member.Record()
}

// head implements session.Gossip.
func (p *peers) head(head, timestamp *holdfastv1.SignedHead) {
	<-p.ready
	p.relay.Head(head, timestamp)
}

// notSaid is why an instance takes no part whose server has not said that it may. Those
// of this version say so with their first message.
const notSaid = "the server says nothing of fleet health, as none did before 0.4"

// connected tells whether a server is. What another one has granted ends with it, but for
// being a member of the pool.
func (p *peers) connected(now bool) {
	if p == nil {
		return
	}
	<-p.ready
	if now && p.granted.Load().mode != GossipDirect {
		p.granted.Store(&grant{mode: GossipOff, why: notSaid})
	}
	p.relay.Connected(now)
}

// trust takes the signers that count from now on, by a server's word or by gossip.
func (p *peers) trust(signers *trust.Signers) {
	p.store.SetSigners(signers)
	p.newer.Store(signers)
	p.look()
}

// spread lets the instance's own record travel, by whatever way there is.
func (p *peers) spread(id string, news bool) {
	if r := p.reached.Load(); r != nil && r.joined {
		if news {
			r.evidence.Spread(id)
		} else {
			r.evidence.Refresh(id)
		}
	}
	if p.granted.Load().mode == GossipRelayed {
		p.client.session.SendEvidence()
	}
}

// vitals tells how the pool is.
func (p *peers) vitals() fleet.Vitals {
	r := p.reached.Load()
	if r == nil || !r.joined {
		return fleet.Vitals{Members: 1}
	}
	m := r.pool.Metrics()
	return fleet.Vitals{Health: m.Health, Members: m.Members, Left: m.Left, Heard: m.Silence}
}

// stateTime returns the estimate of state time; the zero time without one.
func (p *peers) stateTime() time.Time {
	if now := p.client.session.StateTime(); now > 0 {
		return time.UnixMilli(now)
	}
	return time.Time{}
}

// run follows settings.
func (p *peers) run(ctx context.Context) {
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.others:
			p.contained(p.keep)
			continue
		case <-p.wake:
		case <-retry.C:
		}
		p.contained(func() {
			if err := p.follow(ctx); err != nil {
				p.logger.Warn("not in the pool; evidence travels over the session", "error", err)
				retry.Reset(bindPause)
			}
		})
	}
}

// contained runs f and logs a panic: the host's process is not ours to end.
func (p *peers) contained(f func()) {
	defer func() {
		if v := recover(); v != nil {
			defer func() { _ = recover() }() // of the logger itself
			p.logger.Error("following the settings of gossip failed", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// follow obeys the settings that were given last. The error is that of a pool that
// cannot be entered.
func (p *peers) follow(ctx context.Context) error {
	if s := p.latest.Swap(nil); s != nil {
		p.settings = s
		p.learn(s)
	}
	s := p.settings
	if s == nil {
		return nil
	}
	p.keep()
	if p.wanted != GossipDirect || s.GetLabel() == "" || s.GetMode() == GossipOff {
		return p.leave(ctx)
	}
	r := p.reached.Load()
	if r != nil && r.label != s.GetLabel() {
		if err := p.leave(ctx); err != nil {
			return err
		}
		r = nil
	}
	switch {
	case r == nil:
		return p.enter(s)
	case !slices.EqualFunc(r.keys, s.GetKeys(), bytes.Equal):
		if err := r.pool.SetKeys(s.GetKeys()); err != nil {
			p.logger.Warn("the keys of the pool cannot be changed; entering it anew", "error", err)
			return errors.Join(p.leave(ctx), p.enter(s))
		}
		p.reached.Store(&reach{r.pool, r.evidence, r.label, s.GetKeys(), r.joined})
	}
	p.join(s)
	return nil
}

// learn takes in what settings say of the instance itself and of the others.
func (p *peers) learn(s *holdfastv1.GossipSettings) {
	if b := s.GetCertificate(); len(b) > 0 {
		if err := p.member.SetCertificate(b); err != nil {
			p.logger.Warn("the instance has no certificate, so others do not hear of its breakers", "error", err)
		} else {
			p.relay.SetCertificate(b)
		}
	}
	population := map[string]health.Population{}
	for _, of := range s.GetPopulation() {
		population[of.GetService()] = health.Population{Hosts: int(of.GetHosts()), Zones: int(of.GetZones())}
	}
	p.store.SetPopulation(population)
	p.member.Wake()
}

// keep writes to the disk what a start without servers needs.
func (p *peers) keep() {
	p.client.session.KeepTrust(mirror.Trust{Key: p.key.Seed(), Settings: p.kept()})
}

// enter makes a pool that others can reach, and joins it if a server found so.
func (p *peers) enter(s *holdfastv1.GossipSettings) error {
	c := &p.client.config
	pool, err := gossip.New(gossip.Config{
		Name: c.InstanceID, BindAddr: cmp.Or(c.GossipAddr, net.JoinHostPort(cmp.Or(c.LocalAddr, "0.0.0.0"), "0")), AdvertiseAddr: c.GossipAdvertise,
		SourceIP: c.LocalAddr, Profile: gossip.Instances, Label: s.GetLabel(), Keys: s.GetKeys(), Logger: p.logger, OnChange: p.membersChanged,
	})
	if err != nil {
		return fmt.Errorf("enter the pool: %w", err)
	}
	evidence := pool.AddRecords("evidence", p.store)
	p.relay.Attach(pool)
	if err := pool.Start(); err != nil {
		p.relay.Attach(nil)
		return fmt.Errorf("enter the pool: %w", err)
	}
	p.reached.Store(&reach{pool, evidence, s.GetLabel(), s.GetKeys(), false})
	p.client.session.SendGossip()
	p.join(s)
	return nil
}

// join looks for the others, once it is known that they can reach this instance.
func (p *peers) join(s *holdfastv1.GossipSettings) {
	r := p.reached.Load()
	if s.GetMode() != GossipDirect {
		return
	}
	r.pool.Join(s.GetSeeds()...)
	if !r.joined {
		p.reached.Store(&reach{r.pool, r.evidence, r.label, r.keys, true})
		p.member.Wake()
	}
}

// leave gives the pool up, if there is one.
func (p *peers) leave(ctx context.Context) error {
	r := p.reached.Swap(nil)
	if r == nil {
		return nil
	}
	p.relay.Attach(nil)
	if err := r.pool.Close(ctx); err != nil {
		return fmt.Errorf("leave the pool: %w", err)
	}
	return nil
}

// suspect is told by the guard that something happened to a dependency.
func (c *Client) suspect(d *guard.Dependency) {
	if m := c.suspected.Load(); m != nil {
		m.Suspect(d)
	}
}
