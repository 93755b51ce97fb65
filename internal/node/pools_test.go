package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/internal/api"
	monotonic "github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/relay"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// inst is an instance without the rest of the SDK: a key, a certificate, and, where it
// is a member of the pool, what it hears.
type inst struct {
	id          string
	key         *trust.Key
	certificate []byte
	sequence    uint64

	store    *fleet.Store
	relay    *relay.Relay
	pool     *gossip.Pool
	evidence *gossip.Channel
}

// openPool has a server join the pool of the default namespace until the test ends.
func openPool(t *testing.T, s *site) api.FleetPool {
	t.Helper()
	pool, release, err := s.pools.Pool("default")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return pool
}

func newInst(t *testing.T, pool api.FleetPool, id string) *inst {
	t.Helper()
	key, err := trust.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &inst{id: id, key: key}
	until(t, 10*time.Second, "a certificate", func() bool {
		i.certificate, _, err = pool.Certify(api.Participant{ID: id, Service: "checkout", Host: "10.0.0." + id[1:], Zone: "z", PublicKey: key.Public()})
		return err == nil
	})
	return i
}

// join makes the instance a member of the pool, by what a server told it.
func (i *inst) join(t *testing.T, pool api.FleetPool, signers []byte) {
	t.Helper()
	settings := pool.Settings()
	i.store = fleet.NewStore(fleet.StoreConfig{Namespace: "default", Clock: monotonic.New()})
	i.relay = relay.New(relay.Config{Namespace: "default"})
	i.relay.Start(nil)
	t.Cleanup(i.relay.Close)
	set, err := trust.DecodeSigners(signers)
	if err != nil {
		t.Fatal(err)
	}
	i.store.SetSigners(set)
	if err := i.relay.TrustServer(signers); err != nil {
		t.Fatal(err)
	}
	i.pool, err = gossip.New(gossip.Config{
		Name: i.id, BindAddr: "127.0.0.1:0", Label: settings.GetLabel(), Keys: settings.GetKeys(), Join: settings.GetSeeds(), Profile: gossip.Instances,
	})
	if err != nil {
		t.Fatal(err)
	}
	i.evidence = i.pool.AddRecords(evidenceChannel, i.store)
	i.relay.Attach(i.pool)
	if err := i.pool.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.pool.Close(context.Background()) })
}

// says returns the next record of the instance: that a dependency is broken.
func (i *inst) says(t *testing.T, dependency string) []byte {
	t.Helper()
	i.sequence++
	b, err := fleet.Seal(i.key, i.certificate, &health.Record{
		Incarnation: 1, Sequence: i.sequence,
		Reports: []health.Report{{Dependency: dependency, Opinion: health.Open, Calls: 10, Failures: 10}},
	}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spread says it in the pool.
func (i *inst) spread(t *testing.T, dependency string) {
	t.Helper()
	key, news := i.store.Merge(i.says(t, dependency))
	if !news {
		t.Fatalf("%s does not believe itself: %+v", i.id, i.store.Metrics())
	}
	i.evidence.Spread(key)
}

// heard tells whether a store has a record of an instance about a dependency.
func heard(s *fleet.Store, id, dependency string) bool {
	b := s.Encode(id)
	return b != nil && bytes.Contains(b, []byte(dependency))
}

// Servers are members of the pool, speak for who is relayed, verify who wants to be
// direct, tell heads, and change the keys under traffic.
func TestPoolOfInstances(t *testing.T) {
	t.Parallel()
	sites := encryptedSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	until(t, 20*time.Second, "three sign", agreed(sites, 3))
	var at []api.FleetPool
	for _, s := range sites {
		at = append(at, openPool(t, s))
	}
	stores := func(s *site) *fleet.Store { return s.pools.open["default"].Store }
	direct := newInst(t, at[0], "i1")
	direct.join(t, at[0], sites[0].pools.Signers())
	until(t, 20*time.Second, "four members", func() bool {
		return !slices.ContainsFunc(at, func(p api.FleetPool) bool { return p.Members() != 4 || !p.Directs()["i1"] })
	})
	until(t, 10*time.Second, "three seeds", func() bool { return len(at[2].Settings().GetSeeds()) == 3 })

	relayed := newInst(t, at[1], "i2")
	if err := at[1].Take(relayed.says(t, "payments"), "i2"); err != nil {
		t.Fatal(err)
	}
	direct.spread(t, "stock")
	for _, s := range sites {
		until(t, 10*time.Second, "servers hear both", func() bool { return heard(stores(s), "i1", "stock") && heard(stores(s), "i2", "payments") })
	}
	until(t, 10*time.Second, "members hear who is relayed", func() bool { return heard(direct.store, "i2", "payments") })
	if err := at[0].Take(relayed.says(t, "lie"), "i1"); err == nil {
		t.Error("an instance speaks for another one")
	}
	if at[0].Directs()["i2"] {
		t.Error("a relayed instance is direct")
	}

	// Heads are told even where no instance has a session.
	revision := put(t, sites[0].APIAddr(), "first", 0)
	until(t, 10*time.Second, "the head of the write", func() bool { return direct.relay.Status().Head.Revision >= revision })

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i, pool := range at {
		if err := pool.Verify(ctx, direct.pool.Addr(), direct.pool.Name()); err != nil {
			t.Errorf("server %d cannot verify: %v", i, err)
		}
	}
	dead, cancelDead := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancelDead()
	if err := at[0].Verify(dead, fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0]), direct.pool.Name()); err == nil || !strings.Contains(err.Error(), "this server") {
		t.Errorf("a silent address is verified: %v", err)
	}
	rotateUnderTraffic(t, sites, at, direct)
	_, metrics := get(t, sites[0].HTTPAddr(), "/metrics")
	for _, want := range []string{
		"holdfast_fleet_pools 1", "holdfast_fleet_members 4", "holdfast_fleet_signs 1", "holdfast_fleet_signing_servers 3",
		`holdfast_fleet_records_refused_total{reason="foreign"} 1`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("metrics have no %s", want)
		}
	}
}

// rotateUnderTraffic takes all steps of a rotation while an instance goes on talking.
func rotateUnderTraffic(t *testing.T, sites []*site, at []api.FleetPool, direct *inst) {
	t.Helper()
	settle := func(want int, primary string) {
		t.Helper()
		for i, pool := range at {
			until(t, 20*time.Second, "the keys are told", func() bool {
				return len(pool.Settings().GetKeys()) == want && keyIDs(sites[i])[0] == primary
			})
		}
		if err := direct.pool.SetKeys(at[0].Settings().GetKeys()); err != nil {
			t.Fatal(err)
		}
	}
	round := 0
	talk := func() {
		t.Helper()
		round++
		what := fmt.Sprintf("dependency-%d", round)
		direct.spread(t, what)
		for _, s := range sites {
			until(t, 10*time.Second, "heard after "+what, func() bool { return heard(s.pools.open["default"].Store, "i1", what) })
		}
	}
	first := keyIDs(sites[0])[0]
	second := rotate(t, sites, stepAdd, "")[1].GetId()
	talk() // the instance does not know the new key yet
	settle(2, first)
	talk()
	rotate(t, sites, stepUse, second)
	talk() // the instance still encrypts with the old one
	settle(2, second)
	talk()
	rotate(t, sites, stepRemove, first)
	settle(1, second)
	talk()
	for _, pool := range at {
		if pool.Members() != 4 {
			t.Errorf("%d members after the rotation", pool.Members())
		}
	}
}

// A pool that nobody uses is left after a while, and there are so many at most.
func TestPoolsOfInstancesAreBounded(t *testing.T) {
	t.Parallel()
	s := newSites(t, 1, 1)[0]
	s.args = slices.DeleteFunc(s.args, func(arg string) bool { return strings.HasPrefix(arg, "--join") })
	s.start(t)
	until(t, 20*time.Second, "serving", func() bool { return s.Serving() == nil })
	var releases []func()
	for i := range maxPools {
		_, release, err := s.pools.Pool(fmt.Sprintf("ns-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	if _, _, err := s.pools.Pool("one-more"); !hasReason(err, api.ReasonNoGossip) {
		t.Fatalf("one more: %v", err)
	}
	if _, release, err := s.pools.Pool("ns-0"); err != nil {
		t.Errorf("one that is open already: %v", err)
	} else {
		release()
		release() // has no effect
	}
	releases[1]()
	s.pools.leaveIdle(t.Context(), time.Now().Add(poolIdle-time.Second))
	if len(s.pools.all()) != maxPools {
		t.Fatal("left too early")
	}
	s.pools.leaveIdle(t.Context(), time.Now().Add(poolIdle+time.Second))
	if len(s.pools.all()) != maxPools-1 {
		t.Fatal("not left, or too many")
	}
	if _, _, err := s.pools.Pool("one-more"); err != nil {
		t.Errorf("one more after another has gone: %v", err)
	}
}

// A cluster that goes on with the backup of another one has another label, which keeps
// its pools apart from that one's, the same keys, and a set of signers of its own.
func TestPoolsAfterARestore(t *testing.T) {
	t.Parallel()
	sites := encryptedSites(t, 2, 1)
	for _, s := range sites {
		s.args = slices.DeleteFunc(s.args, func(arg string) bool { return strings.HasPrefix(arg, "--join") })
	}
	startAll(t, sites)
	other := sites[1]
	until(t, 20*time.Second, "the other one serves", func() bool { return other.Serving() == nil })
	put(t, other.APIAddr(), "first", 0)
	backup := backupOf(t, other)
	other.stop(t)

	s := sites[0]
	pool := openPoolOnce(t, s)
	until(t, 20*time.Second, "it signs", agreed([]*site{s}, 1))
	before := pool.Settings()
	id := rotate(t, sites[:1], stepAdd, "")[1].GetId()
	rotate(t, sites[:1], stepUse, id)
	restoreTo(t, s, backup)
	if signed := s.pools.Timestamp(); signed != nil {
		if stamp, err := s.charter.Signers().Timestamp(signed); err != nil || stamp.Epoch != s.View().Epoch() {
			t.Errorf("a timestamp of the history before: %v, %v", stamp, err)
		}
	}
	until(t, 20*time.Second, "another label and the rotated keys", func() bool {
		now := pool.Settings()
		return now.GetLabel() != before.GetLabel() && len(now.GetKeys()) == 2 && pool.Members() == 1
	})
	until(t, 20*time.Second, "a set of this history", func() bool { return s.charter.Signers().Epoch() == s.View().Epoch() })
	if keyIDs(s)[0] != id {
		t.Error("the rotation is lost")
	}
	i := newInst(t, pool, "i1")
	if err := pool.Take(i.says(t, "payments"), "i1"); err != nil {
		t.Error(err)
	}
}

func clusterClient(t *testing.T, s *site) holdfastv1.ClusterServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return holdfastv1.NewClusterServiceClient(conn)
}

// backupOf returns the pieces of a backup.
func backupOf(t *testing.T, s *site) (pieces [][]byte) {
	t.Helper()
	stream, err := clusterClient(t, s).Backup(t.Context(), &holdfastv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return pieces
		}
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, piece.GetData())
	}
}

func restoreTo(t *testing.T, s *site, pieces [][]byte) {
	t.Helper()
	stream, err := clusterClient(t, s).Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range pieces {
		if err := stream.Send(&holdfastv1.RestoreRequest{Data: piece, Reason: "test", ClaimedActor: "tester"}); err != nil {
			break // the answer tells why
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
}

// A server vouches for nothing while nobody would believe it, or it should not.
func TestWhoMayDeclare(t *testing.T) {
	t.Parallel()
	s := newSites(t, 1, 1)[0]
	s.args = slices.DeleteFunc(s.args, func(arg string) bool { return strings.HasPrefix(arg, "--join") })
	s.start(t)
	pool := openPoolOnce(t, s)
	until(t, 20*time.Second, "it signs", agreed([]*site{s}, 1))
	i := newInst(t, pool, "i1")
	c, err := s.charter.Signers().Certificate("default", i.certificate, s.StateTime())
	if err != nil || c.Host != "10.0.0.1" || c.NotAfter < s.StateTime().Add(trust.CertificateLife-time.Minute).UnixMilli() {
		t.Fatalf("got %+v, %v", c, err)
	}
	if _, _, err := pool.Certify(api.Participant{ID: strings.Repeat("x", 250), Service: strings.Repeat("y", 250), PublicKey: i.key.Public()}); err == nil {
		t.Error("certified what is too long")
	}
	reason := "test"
	s.fenced.Store(&reason)
	defer s.fenced.Store(nil)
	_, headErr := s.pools.SignHead("default", s.View().Epoch(), 1, [32]byte{})
	_, _, certErr := pool.Certify(api.Participant{ID: "i1", PublicKey: i.key.Public()})
	_, _, poolErr := s.pools.Pool("another")
	if headErr == nil || certErr == nil || poolErr == nil || s.pools.Timestamp() != nil {
		t.Errorf("a fenced server vouches: %v, %v, %v", headErr, certErr, poolErr)
	}
}

// openPoolOnce waits until the server serves.
func openPoolOnce(t *testing.T, s *site) api.FleetPool {
	t.Helper()
	until(t, 20*time.Second, "serving", func() bool { return s.Serving() == nil })
	return openPool(t, s)
}
