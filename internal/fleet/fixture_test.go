package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testNamespace = "shop"

// keyOf returns the key of a name, always the same one.
func keyOf(tb testing.TB, name string) *trust.Key {
	tb.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := trust.ParseKey(seed[:])
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// signersOf returns the set that has the keys of servers of these names.
func signersOf(tb testing.TB, servers ...string) *trust.Signers {
	tb.Helper()
	var keys []trust.Server
	for _, name := range servers {
		keys = append(keys, trust.Server{ID: name, Key: keyOf(tb, name).Public()})
	}
	set, err := trust.NewSigners(keyOf(tb, servers[0]), document.Epoch{Counter: 1}, 1, keys)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// certify returns the certificate of an instance, by a server.
func certify(tb testing.TB, server string, c trust.Certificate) []byte {
	tb.Helper()
	if c.Namespace == "" {
		c.Namespace = testNamespace
	}
	if c.PublicKey == nil {
		c.PublicKey = keyOf(tb, c.ID).Public()
	}
	if c.NotAfter == 0 {
		c.NotAfter = time.Now().Add(trust.CertificateLife).UnixMilli()
	}
	b, err := trust.Certify(keyOf(tb, server), c)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// rules are what a test says.
type rules struct{ policy policy.Policy }

func (rules) Revision() uint64                                        { return 1 }
func (rules) Disabled() bool                                          { return false }
func (r rules) Policy(string) policy.Policy                           { return r.policy }
func (rules) Hold(string, string) (flags.Hold, bool)                  { return flags.Hold{}, false }
func (rules) Method(flags.Side, string, bool) flags.Plan              { return flags.Plan{} }
func (rules) Operation(string) flags.Plan                             { return flags.Plan{} }
func (rules) RecordMethod(flags.Side, string, bool) []flags.Recording { return nil }
func (rules) RecordOperation(string) []flags.Recording                { return nil }

// ether carries records from store to store, after a moment, unless they are lost.
type ether struct {
	mu        sync.Mutex
	instances []*instance
	lost      func(from, to string) bool // nil: none
	random    *rand.Rand
	verified  map[string]trust.Certificate
}

func newEther() *ether {
	return &ether{random: rand.New(rand.NewPCG(1, 2)), verified: map[string]trust.Certificate{}} //nolint:gosec // a test
}

// verify verifies each record once for all stores.
func (e *ether) verify(c *Claim) (trust.Certificate, error) {
	key := string(c.Certificate) + string(c.Signed) + string(c.Signature)
	e.mu.Lock()
	by, ok := e.verified[key]
	e.mu.Unlock()
	if ok {
		return by, nil
	}
	by, err := c.Verify()
	if err == nil {
		e.mu.Lock()
		e.verified[key] = by
		e.mu.Unlock()
	}
	return by, err
}

// spread sends a record to all others.
func (e *ether) spread(from *instance, id string) {
	b := from.store.Encode(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, to := range e.instances {
		if to == from || e.lost != nil && e.lost(from.id, to.id) {
			continue
		}
		time.AfterFunc(time.Millisecond+time.Duration(e.random.Int64N(int64(4*time.Millisecond))), func() { to.store.Merge(b) })
	}
}

// instance is a process with breakers, in a fleet.
type instance struct {
	id, host string
	clock    *clock.Clock
	guard    *guard.Guard
	store    *Store
	member   *Member // nil where it is on its own
	ether    *ether

	mu     sync.Mutex
	trace  []string
	events []Event
	back   []int64 // when breakers recovered because of the probes of others
}

// option changes an instance.
type option struct {
	id, service, host, zone string
	incarnation             uint64
	policy                  func(*policy.Policy)
	alone                   bool // without a member
	vitals                  func() Vitals
}

// instance adds a member to the fleet.
func (e *ether) instance(tb testing.TB, o option) *instance {
	tb.Helper()
	if o.service == "" {
		o.service = "checkout"
	}
	if o.host == "" {
		o.host = "host-of-" + o.id
	}
	if o.incarnation == 0 {
		o.incarnation = 1
	}
	p := policy.Default()
	p.Retry.MaxAttempts = 1
	if o.policy != nil {
		o.policy(&p)
	}
	i := &instance{id: o.id, host: o.host, clock: clock.New(), ether: e}
	i.guard = guard.New(guard.Config{
		Clock: i.clock, Seed: 7 + uint64(len(e.instances)), OnEvent: i.changed,
		OnSuspicion: func(d *guard.Dependency) {
			if i.member != nil {
				i.member.Suspect(d)
			}
		},
	})
	i.guard.Apply(rules{p})
	i.store = NewStore(StoreConfig{Namespace: testNamespace, Clock: i.clock, Verify: e.verify, OnChange: func() {
		if i.member != nil {
			i.member.Wake()
		}
	}})
	i.store.SetSigners(signersOf(tb, "server"))
	if !o.alone {
		i.member = NewMember(MemberConfig{
			Guard: i.guard, Store: i.store, Clock: i.clock, Key: keyOf(tb, o.id), Incarnation: o.incarnation, Seed: uint64(len(e.instances)),
			OnEvent: func(v Event) { i.mu.Lock(); i.events = append(i.events, v); i.mu.Unlock() },
			Spread:  func(id string, _ bool) { e.spread(i, id) },
			Vitals:  o.vitals,
		})
		if err := i.member.SetCertificate(certify(tb, "server", trust.Certificate{ID: o.id, Service: o.service, Host: o.host, Zone: o.zone})); err != nil {
			tb.Fatal(err)
		}
		i.member.Start()
	}
	e.mu.Lock()
	e.instances = append(e.instances, i)
	e.mu.Unlock()
	return i
}

// instances adds so many of them, each on a host of its own, of zones in turn.
func (e *ether) fleet(tb testing.TB, n int, o option) []*instance {
	tb.Helper()
	all := make([]*instance, n)
	for k := range all {
		o.id, o.zone = fmt.Sprintf("checkout-%d", k), fmt.Sprintf("zone-%d", k%2)
		all[k] = e.instance(tb, o)
	}
	for _, i := range all {
		i.store.SetPopulation(map[string]health.Population{"checkout": {Hosts: n, Zones: min(n, 2)}})
	}
	return all
}

func (i *instance) changed(e guard.BreakerEvent) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if e.Reason == breaker.FleetProbes {
		i.back = append(i.back, e.At)
	}
	i.trace = append(i.trace, fmt.Sprintf("%v %s/%s %v→%v %v open for %v", time.Duration(e.At), e.Dependency, e.Target, e.From, e.To, e.Reason, e.OpenFor))
}

func (i *instance) close() {
	if i.member != nil {
		i.member.Close()
	}
	i.guard.Close()
}

func closeAll(all []*instance) {
	for _, i := range all {
		i.close()
	}
}

var errDown = status.Error(codes.Unavailable, "down")

type invocation struct{ err error }

func (c invocation) Invoke(context.Context, int) error { return c.err }

func (invocation) Twin() guard.Invocation { return nil }
func (invocation) Adopt(guard.Invocation) {}

func (c invocation) Result(context.Context, error) guard.Result {
	return guard.Result{Code: status.Code(c.err)}
}

// call makes one call to "dependency" or "dependency/operation", and tells whether it was
// made.
func (i *instance) call(name string, err error) (made bool) {
	dependency, operation, _ := strings.Cut(name, "/")
	t := i.guard.Dependency(dependency).Target(operation, guard.Operation)
	var rejection *guard.Rejection
	return !errors.As(t.Call(context.Background(), t.Now(), invocation{err}), &rejection)
}

// load makes calls to a dependency at a rate, for as long as the context lasts. Broken
// tells what calls end with.
func (i *instance) load(ctx context.Context, dependency string, every time.Duration, broken func() error, made func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if i.call(dependency, broken()) && made != nil {
				made()
			}
		}
	}
}

func (i *instance) state(dependency string) breaker.State {
	return i.guard.Dependency(dependency).Evidence().State
}

func (i *instance) verdict(dependency string) Verdict { return i.member.Explain(dependency).Verdict }
