package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/health"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func (n *node) fleet() holdfastv1.FleetServiceClient { return holdfastv1.NewFleetServiceClient(n.conn) }

// follows a fleet until a condition holds, and returns the picture.
func follows(t *testing.T, stream grpc.ServerStreamingClient[holdfastv1.WatchFleetResponse], what string, condition func(*holdfastv1.Fleet) bool) *holdfastv1.Fleet {
	t.Helper()
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("before %s: %v", what, err)
		}
		if condition(resp.GetFleet()) {
			return resp.GetFleet()
		}
	}
}

// TestFleetAsksOnceWhoIsDirect: for a picture, not for each report in it.
func TestFleetAsksOnceWhoIsDirect(t *testing.T) {
	n, f := fleeted(t)
	for _, id := range []string{"one", "other"} {
		g := n.gossips(t, id)
		g.hands(t, g.observed(t, g.granted(t, modeRelayed).GetCertificate(), "payments"))
	}
	pool := f.in("default")
	for reports := 0; reports < 2; {
		pool.set(func() { pool.counted = 0 })
		resp, err := n.fleet().GetFleet(t.Context(), &holdfastv1.GetFleetRequest{Namespace: "default", Dependency: "payments"})
		if err != nil {
			t.Fatal(err)
		}
		reports = len(resp.GetFleet().GetDependencies()[0].GetReports())
		asked := 0
		if pool.set(func() { asked = pool.counted }); asked != 1 {
			t.Fatalf("asked %d times for %d reports", asked, reports)
		}
	}
}

// TestFleet: what instances hand in is shown at once, and how they take part.
func TestFleet(t *testing.T) {
	n, f := fleeted(t)
	f.in("default").set(func() { f.in("default").members, f.in("default").direct = 3, []string{"direct"} })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := n.fleet().WatchFleet(ctx, &holdfastv1.WatchFleetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	empty := follows(t, stream, "the first picture", func(*holdfastv1.Fleet) bool { return true })
	if empty.GetServerId() != "n1" || empty.GetMembers() != 3 || empty.GetTime() == nil || empty.GetInstances() != 0 || len(empty.GetDependencies()) != 0 {
		t.Errorf("the first picture is %v", empty)
	}
	for _, id := range []string{"direct", "relayed"} {
		g := n.gossips(t, id)
		g.hands(t, g.observed(t, g.granted(t, modeRelayed).GetCertificate(), "payments"))
	}
	picture := follows(t, stream, "two reports", func(p *holdfastv1.Fleet) bool {
		return len(p.GetDependencies()) == 1 && len(p.GetDependencies()[0].GetReports()) == 2
	})
	d := picture.GetDependencies()[0]
	if d.GetName() != "payments" || picture.GetInstances() != 2 || picture.GetHosts() != 1 {
		t.Errorf("picture = %v", picture)
	}
	for _, r := range d.GetReports() {
		if r.GetMode() != r.GetInstanceId() || r.GetHost() != "127.0.0.1" || r.GetOpinion() != "open" || r.GetFailures() != 20 {
			t.Errorf("report = %v", r)
		}
	}
	if d.GetVerdict().GetMode() != "advise" || d.GetVerdictWithoutTraffic().GetMode() != "advise" { // one host is not enough for more
		t.Errorf("verdict = %v, without traffic %v", d.GetVerdict(), d.GetVerdictWithoutTraffic())
	}
	// The policy says what instances do with it; a change of it is told though no record
	// changes.
	n.put(t, &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_POLICY, Name: "payments"},
		Spec: []byte(`{"fleet":{"mode":"off"}}`),
	}}})
	follows(t, stream, "the policy", func(p *holdfastv1.Fleet) bool {
		return p.GetDependencies()[0].GetVerdict().GetMode() == "off" && p.GetRevision() == 1
	})
	one, err := n.fleet().GetFleet(ctx, &holdfastv1.GetFleetRequest{Dependency: "search"})
	if err != nil || len(one.GetFleet().GetDependencies()) > 1 || len(one.GetFleet().GetDependencies()) == 1 && len(one.GetFleet().GetDependencies()[0].GetReports()) > 0 {
		t.Errorf("of another dependency: %v, %v", one, err)
	}
	other, err := n.fleet().GetFleet(ctx, &holdfastv1.GetFleetRequest{Namespace: "other"})
	if err != nil || other.GetFleet().GetInstances() != 0 {
		t.Errorf("of another namespace: %v, %v", other, err)
	}
	eventually(t, "the end of what nobody looks at", func() bool { return f.count(&f.open) == 1 })
}

func TestFleetRefusals(t *testing.T) {
	n, f := fleeted(t)
	_, err := n.fleet().GetFleet(t.Context(), &holdfastv1.GetFleetRequest{Namespace: "\x00", Dependency: "\x07"})
	expect(t, err, ReasonInvalidRequest)
	if err == nil || !strings.Contains(err.Error(), "and 1 more") {
		t.Errorf("refused with %v", err)
	}
	_, err = n.fleet().ListGossipKeys(t.Context(), &holdfastv1.ListGossipKeysRequest{Namespace: "\x00"})
	expect(t, err, ReasonInvalidRequest)
	f.set(func() { f.refused = Errorf(ReasonNoGossip, "no port") })
	_, err = n.fleet().GetFleet(t.Context(), &holdfastv1.GetFleetRequest{})
	expect(t, err, ReasonNoGossip)

	n.replica.set(func(r *fakeReplica) { r.fenced = "it differs" })
	_, err = n.fleet().GetFleet(t.Context(), &holdfastv1.GetFleetRequest{})
	expect(t, err, ReasonFenced)
}

// TestWithoutGossip: a server without it says so, and its sessions do not change.
func TestWithoutGossip(t *testing.T) {
	n := single(t)
	_, err := n.fleet().GetFleet(t.Context(), &holdfastv1.GetFleetRequest{})
	expect(t, err, ReasonNoGossip)
	_, err = n.fleet().ListGossipKeys(t.Context(), &holdfastv1.ListGossipKeysRequest{})
	expect(t, err, ReasonNoGossip)
	add := &holdfastv1.RotateGossipKeyRequest{Namespace: "default", Step: holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD}
	_, err = n.fleet().RotateGossipKey(t.Context(), add)
	expect(t, err, ReasonNoGossip)
	_, err = n.peer.RotateGossipKey(t.Context(), &peerv1.RotateGossipKeyRequest{Step: add})
	expect(t, err, ReasonNoGossip)
	g := n.gossips(t, "i")
	g.wants(t, &holdfastv1.GossipState{Mode: modeDirect})
	g.hands(t, []byte("something"))
	n.put(t, flag("a", `1`))
	g.until(t, "the change", func() bool {
		return len(g.events) > 0 && g.events[len(g.events)-1].GetDelta().GetTo()+g.events[len(g.events)-1].GetSnapshot().GetRevision() == 1
	})
	if len(g.settings)+len(g.heads) > 0 {
		t.Errorf("was told %v, %v", g.settings, g.heads)
	}
}

// TestRotateGossipKey: any server has the leader take the step.
func TestRotateGossipKey(t *testing.T) {
	c := newFakeCluster(t, "n1", "n2")
	fleets := []*fakeFleet{newFakeFleet(t, c.replicas[0]), newFakeFleet(t, c.replicas[1])}
	serve(t, c.replicas[0], func(config *Config) { config.Fleet = fleets[0] })
	follower := serve(t, c.replicas[1], func(config *Config) { config.Fleet = fleets[1] })
	rotate := func(step holdfastv1.GossipKeyStep, id string) (*holdfastv1.RotateGossipKeyResponse, error) {
		return follower.fleet().RotateGossipKey(t.Context(), &holdfastv1.RotateGossipKeyRequest{Step: step, Id: id})
	}
	const add, use = holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD, holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE
	resp, err := rotate(add, "")
	if err != nil || len(resp.GetKeys()) != 1 || len(fleets[0].steps) != 1 || len(fleets[1].steps) != 0 || fleets[0].steps[0].GetNamespace() != "default" {
		t.Fatalf("added %v, %v; steps of the leader %v, of the follower %v", resp, err, fleets[0].steps, fleets[1].steps)
	}
	c.setLeader("n2")
	if resp, err = rotate(use, "k1"); err != nil || len(fleets[1].steps) != 1 || fleets[1].steps[0].GetId() != "k1" {
		t.Errorf("used %v, %v; steps %v", resp, err, fleets[1].steps)
	}
	if listed, err := follower.fleet().ListGossipKeys(t.Context(), &holdfastv1.ListGossipKeysRequest{}); err != nil || len(listed.GetKeys()) != 1 {
		t.Errorf("listed %v, %v", listed, err)
	}
	for id, step := range map[string]holdfastv1.GossipKeyStep{"k1": add, "": use, "k": 0, "kk": 77, strings.Repeat("k", MaxKeyIDBytes+1): use} {
		_, err := rotate(step, id)
		expect(t, err, ReasonInvalidRequest)
		_, err = follower.peer.RotateGossipKey(t.Context(), &peerv1.RotateGossipKeyRequest{Step: &holdfastv1.RotateGossipKeyRequest{Step: step, Id: id}})
		expect(t, err, ReasonInvalidRequest)
	}
	for _, reason := range []string{ReasonGossipKeyNotFound, ReasonGossipKeyRefused} {
		fleets[1].set(func() { fleets[1].rotateErr = Errorf(reason, "no") })
		_, err := rotate(use, "k9")
		expect(t, err, reason)
	}
	// Whoever does not know whether a key was made must not make another one unasked.
	fleets[1].set(func() { fleets[1].rotateErr, fleets[1].attempts = context.DeadlineExceeded, 0 })
	_, err = rotate(add, "")
	expect(t, err, ReasonUnknownOutcome)
	if n := fleets[1].count(&fleets[1].attempts); n != 1 {
		t.Errorf("tried %d times", n)
	}
	// A step that was forwarded is not forwarded again.
	c.setLeader("n1")
	_, err = follower.peer.RotateGossipKey(t.Context(), &peerv1.RotateGossipKeyRequest{Step: &holdfastv1.RotateGossipKeyRequest{Step: add}})
	expect(t, err, ReasonNotLeader)
}

// TestFleetWatchesAreBounded: one more than the limit is refused.
func TestFleetWatchesAreBounded(t *testing.T) {
	n, _ := fleeted(t)
	quota := n.streams.quotas[holdfastv1.FleetService_WatchFleet_FullMethodName]
	if quota.limit != MaxFleetWatches {
		t.Errorf("the limit is %d", quota.limit)
	}
	n.streams.mu.Lock()
	quota.limit = 1
	n.streams.mu.Unlock()
	first, err := n.fleet().WatchFleet(t.Context(), &holdfastv1.WatchFleetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	second, err := n.fleet().WatchFleet(t.Context(), &holdfastv1.WatchFleetRequest{})
	if err == nil {
		_, err = second.Recv()
	}
	expect(t, err, ReasonTooManyWatches)
	n.Close()
	if _, err := first.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a watch of a closed server ends with %v", err)
	}
}

// pictured is a stream that takes note of when pictures are sent.
type pictured struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // the interface asks for it
	at  []time.Time
}

func (s *pictured) Context() context.Context { return s.ctx }

func (s *pictured) Send(*holdfastv1.WatchFleetResponse) error {
	s.at = append(s.at, time.Now())
	return nil
}

// TestFleetWatchPace: at most every fleetPause, at least every fleetRefresh.
func TestFleetWatchPace(t *testing.T) {
	n, _ := fleeted(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFleet(t, n.replica)
		pool := f.in("default")
		space := &fleetSpace{namespace: "default", pool: pool, counted: make(chan struct{}), users: 2}
		close(space.counted)
		space.of = &fleetSpaces{fleet: f, spaces: map[string]*fleetSpace{"default": space}}
		s := &fleetService{replica: n.replica, self: "n1", spaces: space.of, policies: &policyViews{views: make(map[string]policyView)}}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		stream := &pictured{ctx: ctx}
		done := make(chan error, 1)
		go func() { done <- s.WatchFleet(&holdfastv1.WatchFleetRequest{}, stream) }()
		for i := range 100 { // 5 s of changes, then silence in which records expire
			g := &gossiper{key: newKey(t)}
			cert, _, err := pool.Certify(Participant{ID: fmt.Sprint("w", i), PublicKey: g.key.Public()})
			if err != nil {
				t.Fatal(err)
			}
			if err := pool.Take(g.observed(t, cert, "payments"), fmt.Sprint("w", i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // virtual time
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		if len(stream.at) < 25 || len(stream.at) > 60 {
			t.Errorf("%d pictures in 30 s", len(stream.at))
		}
		for i := range stream.at[1:] {
			if gap := stream.at[i+1].Sub(stream.at[i]); gap < fleetPause || gap > fleetRefresh+fleetLook+fleetPause {
				t.Errorf("picture %d after %s", i+1, gap)
			}
		}
	})
}

// TestPolicyViewsAreBounded: all are dropped when there is one more.
func TestPolicyViewsAreBounded(t *testing.T) {
	n := single(t)
	p := &policyViews{views: make(map[string]policyView)}
	for i := range MaxPolicyViews + 1 {
		p.of(n.replica.View(), fmt.Sprint("ns-", i))("payments")
	}
	if len(p.views) != 1 {
		t.Errorf("%d views", len(p.views))
	}
}

// TestPopulation: instances of all servers are counted, hosts once.
func TestPopulation(t *testing.T) {
	c := newFakeCluster(t, "n1", "n2")
	f := newFakeFleet(t, c.replicas[0])
	one, two := serve(t, c.replicas[0], func(config *Config) { config.Fleet = f }), serve(t, c.replicas[1])
	for i, zone := range []string{"eu-1", "eu-2", "eu-2"} {
		hello := helloOf(fmt.Sprint("i", i))
		hello.Identity.Labels = map[string]string{"zone": zone}
		[]*node{one, two}[i%2].joined(t, hello)
	}
	hello := helloOf("other")
	hello.Identity.Service = "search"
	two.joined(t, hello)
	counts, whole := one.sessions.spaces.instances.population(t.Context(), "default")
	if want := map[string]health.Population{"checkout": {Hosts: 1, Zones: 2}, "search": {Hosts: 1}}; !whole || fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("counted %v, %v", counts, whole)
	}
	two.Close()
	if counts, whole = one.sessions.spaces.instances.population(t.Context(), "default"); whole || len(counts) != 1 {
		t.Errorf("without a server counted %v, %v", counts, whole)
	}
}

// TestPopulationIsNotMissed: a host that is away for one count, or cannot be counted,
// is still there; a small difference is not told.
func TestPopulationIsNotMissed(t *testing.T) {
	pool := newFakeFleet(t, newFakeCluster(t, "n1").replicas[0]).in("default")
	space := &fleetSpace{pool: pool}
	space.terms.Store(&fleetTerms{})
	hosts := func(n int) map[string]health.Population {
		return map[string]health.Population{"checkout": {Hosts: n, Zones: 1}}
	}
	var before map[string]health.Population
	for i, test := range []struct {
		now   int
		whole bool
		pool  int // knows
		told  int
	}{
		{3, true, 3, 3},
		{2, true, 3, 3}, // one starts anew
		{3, true, 3, 3},
		{1, false, 3, 3}, // a server is silent
		{1, false, 3, 3},
		{2, true, 3, 3},
		{2, true, 2, 2}, // it is gone
		{40, true, 40, 40},
		{43, true, 43, 40}, // nearly the same
		{45, true, 45, 45},
	} {
		before = space.publish(before, hosts(test.now), test.whole)
		if got := pool.population("checkout").Hosts; got != test.pool {
			t.Errorf("%d: the pool knows %d hosts, want %d", i, got, test.pool)
		}
		if got := space.terms.Load().byService()["checkout"].Hosts; got != test.told {
			t.Errorf("%d: instances are told %d hosts, want %d", i, got, test.told)
		}
	}
}

// TestToldServicesAreBounded: an instance's own is always among them.
func TestToldServicesAreBounded(t *testing.T) {
	terms := &fleetTerms{}
	for i := range MaxToldServices + 10 {
		terms.population = append(terms.population, &holdfastv1.ServicePopulation{Service: fmt.Sprintf("s-%04d", i)})
	}
	for _, own := range []string{"s-0000", fmt.Sprintf("s-%04d", MaxToldServices+9), "unknown"} {
		told, found := terms.told(own), own == "unknown"
		for _, s := range told {
			found = found || s.GetService() == own
		}
		if len(told) != MaxToldServices || !found {
			t.Errorf("%s is told %d services, its own: %v", own, len(told), found)
		}
	}
}
