package api

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// fakeFleet is the gossip of servers without gossip: real keys, certificates and
// records, and pools that nobody else is in.
type fakeFleet struct {
	tb      testing.TB
	replica *fakeReplica
	key     *trust.Key

	mu        sync.Mutex
	signers   *trust.Signers
	pools     map[string]*fakePool
	refused   error // by Pool
	uncertain error // of Certify and SignHead
	open      int   // pools held
	signed    int   // heads
	certified int
	timestamp *holdfastv1.SignedHead
	keys      []*holdfastv1.GossipKey
	steps     []*holdfastv1.RotateGossipKeyRequest
	rotateErr error
	attempts  int           // to rotate
	life      time.Duration // until a certificate is to be renewed
}

type fakePool struct {
	*fleet.Store
	of        *fakeFleet
	namespace string

	mu       sync.Mutex
	settings *holdfastv1.GossipSettings
	members  int
	direct   []string
	counted  int // how often they were asked for
	verify   func(ctx context.Context, address, member string) error
	told     map[string]health.Population
	asked    int // for changes
}

func newKey(tb testing.TB) *trust.Key {
	tb.Helper()
	key, err := trust.NewKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newFakeFleet(tb testing.TB, r *fakeReplica) *fakeFleet {
	tb.Helper()
	f := &fakeFleet{tb: tb, replica: r, key: newKey(tb), pools: make(map[string]*fakePool), life: time.Hour}
	f.sign(1)
	return f
}

// sign makes another set of signers.
func (f *fakeFleet) sign(version uint64) {
	signers, err := trust.NewSigners(f.key, f.replica.View().Epoch(), version, []trust.Server{{ID: "n1", Key: f.key.Public()}})
	if err != nil {
		f.tb.Fatal(err)
	}
	f.set(func() { f.signers = signers })
}

func (f *fakeFleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeFleet) count(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *n
}

// in returns the pool of a namespace.
func (f *fakeFleet) in(namespace string) *fakePool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.pools[namespace]
	if !ok {
		p = &fakePool{
			Store: fleet.NewStore(fleet.StoreConfig{Namespace: namespace, Clock: clock.New()}),
			of:    f, namespace: namespace, members: 1,
			settings: &holdfastv1.GossipSettings{Seeds: []string{"10.0.0.1:7402"}, Label: "hf-" + namespace, Keys: [][]byte{[]byte("sixteen bytes ok")}},
			verify:   func(context.Context, string, string) error { return nil },
		}
		p.SetSigners(f.signers)
		f.pools[namespace] = p
	}
	return p
}

func (f *fakeFleet) Pool(namespace string) (FleetPool, func(), error) {
	f.mu.Lock()
	refused := f.refused
	f.mu.Unlock()
	if refused != nil {
		return nil, nil, refused
	}
	p := f.in(namespace)
	f.set(func() { f.open++ })
	return p, func() { f.set(func() { f.open-- }) }, nil
}

func (f *fakeFleet) Signers() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signers.Bytes()
}

func (f *fakeFleet) SignHead(namespace string, epoch document.Epoch, revision uint64, root document.Root) (*holdfastv1.SignedHead, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.uncertain != nil {
		return nil, f.uncertain
	}
	f.signed++
	return trust.SignHead(f.key, trust.Head{Namespace: namespace, Epoch: epoch, Revision: revision, Root: root, StateTime: 1}), nil
}

func (f *fakeFleet) Timestamp() *holdfastv1.SignedHead {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.timestamp
}

func (f *fakeFleet) Keys(string) []*holdfastv1.GossipKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.keys)
}

func (f *fakeFleet) RotateKey(_ context.Context, step *holdfastv1.RotateGossipKeyRequest) ([]*holdfastv1.GossipKey, error) {
	if id, _ := f.replica.Leader(); id != f.replica.id {
		return nil, &consensus.NotLeaderError{ID: id}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts++
	if f.rotateErr != nil {
		return nil, f.rotateErr
	}
	f.steps = append(f.steps, step)
	f.keys = append(f.keys, &holdfastv1.GossipKey{Id: "k" + strings.Repeat("1", len(f.steps))})
	return slices.Clone(f.keys), nil
}

func (p *fakePool) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *fakePool) Settings() *holdfastv1.GossipSettings {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settings
}

func (p *fakePool) Certify(who Participant) ([]byte, time.Time, error) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if p.of.uncertain != nil {
		return nil, time.Time{}, p.of.uncertain
	}
	p.of.certified++
	b, err := trust.Certify(p.of.key, trust.Certificate{
		Namespace: p.namespace, ID: who.ID, Service: who.Service, Host: who.Host, Zone: who.Zone, PublicKey: who.PublicKey,
		NotAfter: time.Now().Add(time.Hour).UnixMilli(),
	})
	return b, time.Now().Add(p.of.life), err
}

func (p *fakePool) Verify(ctx context.Context, address, member string) error {
	p.mu.Lock()
	verify := p.verify
	p.mu.Unlock()
	return verify(ctx, address, member)
}

func (p *fakePool) Members() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.members
}

func (p *fakePool) Directs() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counted++
	all := map[string]bool{}
	for _, id := range p.direct {
		all[id] = true
	}
	return all
}

func (p *fakePool) Changes(since uint64, most int) ([][]byte, uint64) {
	p.set(func() { p.asked++ })
	return p.Store.Changes(since, most)
}

func (p *fakePool) Take(record []byte, id string) error {
	_, _, err := p.Store.Take(record, id)
	return err
}

func (p *fakePool) SetPopulation(population map[string]health.Population) {
	p.mu.Lock()
	p.told = population
	p.mu.Unlock()
	p.Store.SetPopulation(population)
}

// population returns what the pool was told last of a service.
func (p *fakePool) population(service string) health.Population {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[service]
}

var errOutOfReach = errors.New("no answer by UDP")

// gossiper is a session that takes part in gossip, and what it was sent.
type gossiper struct {
	*instance
	key      *trust.Key
	sequence uint64

	events   []*holdfastv1.ConnectResponse // those with an event
	settings []*holdfastv1.GossipSettings
	heads    []*holdfastv1.SignedHead
	stamps   []*holdfastv1.SignedHead
	records  [][]byte
	batches  int // of records
}

// gossips opens a session that wants to take part.
func (n *node) gossips(t *testing.T, id string, changes ...func(*holdfastv1.Hello)) *gossiper {
	t.Helper()
	key := newKey(t)
	hello := helloOf(id)
	hello.Gossip = &holdfastv1.GossipState{Mode: modeRelayed, PublicKey: key.Public()}
	for _, change := range changes {
		change(hello)
	}
	return &gossiper{instance: n.connect(t, hello), key: key}
}

// until reads until a condition holds.
func (g *gossiper) until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for !condition() {
		resp, err := g.stream.Recv()
		if err != nil {
			t.Fatalf("before %s: %v", what, err)
		}
		if resp.GetEpoch().GetCounter() == 0 || resp.GetStateTime() == nil {
			t.Fatalf("no epoch or no state time in %v", resp)
		}
		if resp.GetEvent() != nil {
			g.events = append(g.events, resp)
		}
		if s := resp.GetGossip(); s != nil {
			g.settings = append(g.settings, s)
		}
		if h := resp.GetHead(); h != nil {
			g.heads = append(g.heads, h)
		}
		if s := resp.GetTimestamp(); s != nil {
			g.stamps = append(g.stamps, s)
		}
		if len(resp.GetEvidence()) > 0 {
			g.batches++
		}
		for _, e := range resp.GetEvidence() {
			g.records = append(g.records, e.GetRecord())
		}
	}
}

// granted reads until the instance has been told a mode, and returns the settings.
func (g *gossiper) granted(t *testing.T, mode string) *holdfastv1.GossipSettings {
	t.Helper()
	last := func() *holdfastv1.GossipSettings {
		if len(g.settings) == 0 {
			return nil
		}
		return g.settings[len(g.settings)-1]
	}
	g.until(t, "the grant of "+mode, func() bool { return last() != nil && last().GetMode() == mode })
	return last()
}

// wants tells the server how the instance wants to take part.
func (g *gossiper) wants(t *testing.T, state *holdfastv1.GossipState) {
	t.Helper()
	if state.GetPublicKey() == nil {
		state.PublicKey = g.key.Public()
	}
	g.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Gossip{Gossip: state}})
}

// observed returns a record that says that a dependency is broken.
func (g *gossiper) observed(t *testing.T, certificate []byte, dependency string) []byte {
	t.Helper()
	g.sequence++
	r := &health.Record{Incarnation: 1, Sequence: g.sequence, Reports: []health.Report{{
		Dependency: dependency, Opinion: health.Open, Cause: health.TooManyFailures, Calls: 20, Failures: 20, Since: time.Second,
	}}}
	r.Normalize()
	b, err := fleet.Seal(g.key, certificate, r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hands hands a record in.
func (g *gossiper) hands(t *testing.T, record []byte) {
	t.Helper()
	g.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Evidence{Evidence: &holdfastv1.Evidence{Record: record}}})
}

// fleeted starts a cluster of one with gossip.
func fleeted(t *testing.T, options ...func(*Config)) (*node, *fakeFleet) {
	t.Helper()
	r := newFakeCluster(t, "n1").replicas[0]
	f := newFakeFleet(t, r)
	options = append([]func(*Config){func(c *Config) { c.Fleet = f }}, options...)
	n := serve(t, r, options...)
	t.Cleanup(func() {
		n.Close()
		if open := f.count(&f.open); open != 0 {
			t.Errorf("%d pools are still held", open)
		}
	})
	return n, f
}
