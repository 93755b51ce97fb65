package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/charter"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/relay"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// evidenceChannel is what records of instances travel under.
	evidenceChannel = "evidence"
	// witnessesAsked is how many members are asked to verify an address until one has
	// reached it.
	witnessesAsked = 3
)

// instancePool is this server's membership in the pool of a namespace: it holds what
// the instances say, speaks for those that are relayed, and tells heads. It implements
// api.FleetPool.
type instancePool struct {
	*fleet.Store

	of        *pools
	namespace string
	relay     *relay.Relay
	settings  atomic.Pointer[holdfastv1.GossipSettings]

	joined atomic.Pointer[membership] // nil while it is between two

	users     int       // guarded by the mutex of pools
	idleSince time.Time // guarded by the mutex of pools

	// What follows belongs to the goroutine of pools.keep, once the pool is open.

	signers  *trust.Signers // those that store and relay know
	siblings []string       // that have been joined
	// The newest head and timestamp that were passed on; told has no revision and time.
	told         trust.Head
	toldRevision uint64
	toldTime     *holdfastv1.SignedHead
}

// membership is one life in the pool: the label, which follows from the cluster's
// lineage, is for life.
type membership struct {
	label    string
	pool     *gossip.Pool
	evidence *gossip.Channel
	keys     []charter.Key
}

var _ api.FleetPool = (*instancePool)(nil)

func newInstancePool(of *pools, namespace string) *instancePool {
	n := of.n
	log := n.log.With("namespace", namespace)
	p := &instancePool{
		of: of, namespace: namespace, idleSince: time.Now(),
		Store: fleet.NewStore(fleet.StoreConfig{Namespace: namespace, Clock: of.clock, Time: of.stateTime, Logger: log}),
		relay: relay.New(relay.Config{Namespace: namespace, Logger: log}),
	}
	p.settings.Store(&holdfastv1.GossipSettings{})
	p.relay.Start(nil)
	return p
}

// poolLabelOf keeps the pools of clusters and of namespaces apart.
func poolLabelOf(lineage [16]byte, namespace string) string {
	h := sha256.Sum256(append(append([]byte("holdfast/label/1\x00"), lineage[:]...), namespace...))
	return "hf-" + hex.EncodeToString(h[:8])
}

func values(keys []charter.Key) [][]byte {
	all := make([][]byte, len(keys))
	for i, k := range keys {
		all[i] = k.Value()
	}
	return all
}

// start joins the pool.
func (p *instancePool) start(siblings []string) error {
	n := p.of.n
	m := &membership{label: poolLabelOf(n.machine.View().Epoch().Lineage, p.namespace), keys: n.charter.PoolKeys(p.namespace)}
	transport, err := p.of.listener.Transport(m.label)
	if err != nil {
		return err //nolint:wrapcheck // the caller says what it was about
	}
	m.pool, err = gossip.New(gossip.Config{
		Name: n.id, Transport: transport, Label: m.label, Keys: values(m.keys), Profile: gossip.Instances,
		Join: siblings, Logger: n.log.With("namespace", p.namespace),
	})
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	m.evidence = m.pool.AddRecords(evidenceChannel, p.Store)
	p.relay.Attach(m.pool)
	if err := m.pool.Start(); err != nil {
		return err //nolint:wrapcheck // as above
	}
	p.joined.Store(m)
	p.siblings = siblings
	p.trust(n.charter.Signers())
	p.tell(m)
	n.log.Info("joined the pool of instances", "namespace", p.namespace, "label", m.label, "encrypted", len(m.keys) > 0)
	return nil
}

// trust tells store and relay who signs.
func (p *instancePool) trust(signers *trust.Signers) {
	if signers == nil || signers == p.signers {
		return
	}
	p.signers = signers
	p.SetSigners(signers)
	if err := p.relay.TrustServer(signers.Bytes()); err != nil {
		p.of.n.log.Warn("the set of signers is not passed on to instances", "namespace", p.namespace, "error", err)
	}
}

// update brings the membership in step with the charter, the lineage and the other
// servers.
func (p *instancePool) update(ctx context.Context, siblings []string) {
	n := p.of.n
	if m := p.joined.Load(); m == nil || m.label != poolLabelOf(n.machine.View().Epoch().Lineage, p.namespace) {
		p.leave(ctx)
		if err := p.start(siblings); err != nil {
			n.log.Warn("cannot join the pool of instances", "namespace", p.namespace, "error", err)
			return
		}
	}
	m := p.joined.Load()
	if keys := n.charter.PoolKeys(p.namespace); !slices.Equal(keys, m.keys) {
		if err := m.pool.SetKeys(values(keys)); err != nil {
			n.log.Error("cannot change the keys of the pool of instances", "namespace", p.namespace, "error", err)
		} else {
			m.keys = keys
		}
	}
	if !slices.Equal(siblings, p.siblings) {
		m.pool.Join(siblings...)
		p.siblings = siblings
	}
	p.trust(n.charter.Signers())
	p.tell(m)
}

// tell brings up to date what instances are told.
func (p *instancePool) tell(m *membership) {
	seeds := []string{m.pool.Addr()}
	for _, other := range m.pool.Members() {
		if slices.Contains(p.siblings, other.Addr) && len(seeds) < maxMembers {
			seeds = append(seeds, other.Addr)
		}
	}
	slices.Sort(seeds[1:])
	now := &holdfastv1.GossipSettings{Seeds: seeds, Label: m.label, Keys: values(m.keys)}
	if !proto.Equal(now, p.settings.Load()) {
		p.settings.Store(now)
	}
}

// tellHead passes on the head of the namespace where it has changed, and the newest
// timestamp.
func (p *instancePool) tellHead() {
	n := p.of.n
	if n.mayDeclare() != nil {
		return
	}
	stamp := p.of.Timestamp()
	if stamp == p.toldTime {
		stamp = nil
	} else {
		p.toldTime = stamp
	}
	view := n.machine.View()
	now := trust.Head{Namespace: p.namespace, Epoch: view.Epoch(), Root: view.Namespace(p.namespace).Root()}
	var head *holdfastv1.SignedHead
	// With a timestamp goes a head of as late a revision: who has the root knows that
	// what it has is still the newest, whatever other namespaces do.
	if now != p.told || stamp != nil && view.Revision() > p.toldRevision {
		p.told, p.toldRevision = now, view.Revision()
		now.Revision, now.StateTime = view.Revision(), view.Time()
		head = trust.SignHead(n.key, now)
	}
	if head != nil || stamp != nil {
		p.relay.Head(head, stamp)
	}
}

// leave ends the membership.
func (p *instancePool) leave(ctx context.Context) {
	p.relay.Attach(nil)
	m := p.joined.Swap(nil)
	if m == nil {
		return
	}
	if err := m.pool.Close(ctx); err != nil {
		p.of.n.log.Warn("left the pool of instances without an orderly end", "namespace", p.namespace, "error", err)
	}
}

// close leaves the pool for good.
func (p *instancePool) close(ctx context.Context) {
	p.leave(ctx)
	p.relay.Close()
}

// Settings implements api.FleetPool.
func (p *instancePool) Settings() *holdfastv1.GossipSettings { return p.settings.Load() }

// Certify implements api.FleetPool.
func (p *instancePool) Certify(of api.Participant) (certificate []byte, renew time.Time, err error) {
	return p.of.certify(p.namespace, of)
}

// Verify implements api.FleetPool. The member beside this server is an instance where
// there is another one, since what a server reaches others may not; else a server.
func (p *instancePool) Verify(ctx context.Context, address, member string) error {
	m := p.joined.Load()
	if m == nil {
		return api.Errorf(api.ReasonUnavailable, "this server is not in the pool of %s", p.namespace)
	}
	if err := m.pool.Probe(ctx, address, member); err != nil {
		return fmt.Errorf("this server: %w", err)
	}
	var err error
	for _, witness := range p.witnesses(m, member) {
		// One that says no may have too much to do, be cut off itself, or lie.
		if err = m.pool.ProbeThrough(ctx, witness, address, member); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("another member: %w", err)
	}
	return nil
}

// witnesses returns a few members other than this server and the one of a name, in the
// order in which they are to be asked.
func (p *instancePool) witnesses(m *membership, member string) []string {
	var instances, servers []string
	for _, other := range m.pool.Members() {
		switch {
		case other.Name == member || other.Name == m.pool.Name():
		case p.server(other.Name):
			servers = append(servers, other.Name)
		default:
			instances = append(instances, other.Name)
		}
	}
	for _, names := range [][]string{instances, servers} {
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	}
	all := slices.Concat(instances, servers)
	return all[:min(len(all), witnessesAsked)]
}

// server tells whether a member of the pool is one of the cluster's servers.
func (p *instancePool) server(member string) bool {
	id, _, _ := strings.Cut(member, "/")
	_, is := serverByID(p.of.n.servers(), id)
	return is
}

// Members implements api.FleetPool.
func (p *instancePool) Members() int {
	if m := p.joined.Load(); m != nil {
		return m.pool.Metrics().Members
	}
	return 0
}

// Directs implements api.FleetPool. An instance begins its name in the pool with its id.
func (p *instancePool) Directs() map[string]bool {
	all := map[string]bool{}
	if m := p.joined.Load(); m != nil {
		for _, other := range m.pool.Members() {
			if i := strings.LastIndexByte(other.Name, '/'); i >= 0 {
				all[other.Name[:i]] = true
			}
		}
	}
	return all
}

// Take implements api.FleetPool.
func (p *instancePool) Take(record []byte, id string) error {
	key, news, err := p.Store.Take(record, id)
	if err != nil {
		return err //nolint:wrapcheck // says everything
	}
	if m := p.joined.Load(); news && m != nil {
		m.evidence.Spread(key)
	}
	return nil
}
