package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// gossiper is an instance that gossips over its session.
type gossiper struct {
	inst
	conn   *grpc.ClientConn
	stream grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]

	mu       sync.Mutex
	settings *holdfastv1.GossipSettings
	head     *holdfastv1.SignedHead
	stamp    *holdfastv1.SignedHead
	records  [][]byte
}

// gossips opens a session that asks for a mode, and takes in what it is told.
func gossips(t *testing.T, s *site, id, mode string) *gossiper {
	t.Helper()
	key, err := trust.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g := &gossiper{inst: inst{id: id, key: key}}
	if g.conn, err = grpc.NewClient("passthrough:///"+s.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	if g.stream, err = holdfastv1.NewSessionServiceClient(g.conn).Connect(ctx); err != nil {
		t.Fatal(err)
	}
	g.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{Hello: &holdfastv1.Hello{
		Identity: &holdfastv1.Identity{Id: id, Service: "checkout", Labels: map[string]string{"zone": "eu-1"}},
		Gossip:   &holdfastv1.GossipState{Mode: mode, PublicKey: key.Public()},
	}}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.listen()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return g
}

func (g *gossiper) say(t *testing.T, req *holdfastv1.ConnectRequest) {
	t.Helper()
	if err := g.stream.Send(req); err != nil {
		t.Fatal(err)
	}
}

func (g *gossiper) listen() {
	for {
		resp, err := g.stream.Recv()
		if err != nil {
			return
		}
		g.mu.Lock()
		if s := resp.GetGossip(); s != nil {
			g.settings = s
		}
		if h := resp.GetHead(); h != nil {
			g.head = h
		}
		if s := resp.GetTimestamp(); s != nil {
			g.stamp = s
		}
		for _, e := range resp.GetEvidence() {
			g.records = append(g.records, e.GetRecord())
		}
		g.mu.Unlock()
	}
}

// told returns the settings that it was told last.
func (g *gossiper) told() *holdfastv1.GossipSettings {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.settings
}

// has waits until what the instance was told fulfils a condition.
func (g *gossiper) has(t *testing.T, what string, condition func() bool) {
	t.Helper()
	until(t, 30*time.Second, g.id+": "+what, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return condition()
	})
}

// granted waits for a mode and keeps the certificate.
func (g *gossiper) granted(t *testing.T, mode string) {
	t.Helper()
	g.has(t, mode, func() bool {
		g.certificate = g.settings.GetCertificate()
		return g.settings.GetMode() == mode
	})
}

func (g *gossiper) hands(t *testing.T, record []byte) {
	t.Helper()
	g.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Evidence{Evidence: &holdfastv1.Evidence{Record: record}}})
}

// signersOf reads the signers that the instance was told.
func (g *gossiper) signers(t *testing.T) *trust.Signers {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	s, err := trust.DecodeSigners(g.settings.GetSigners())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGossipOverSessions has relayed instances at three servers hear each other, a liar
// refused, and an operator see all of it anywhere.
func TestGossipOverSessions(t *testing.T) {
	t.Parallel()
	sites := encryptedSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	until(t, 20*time.Second, "three sign", agreed(sites, 3))
	all := make([]*gossiper, len(sites))
	for i, s := range sites {
		all[i] = gossips(t, s, fmt.Sprint("i", i), "relayed")
		all[i].granted(t, "relayed")
		if s := all[i].told(); len(s.GetKeys())+len(s.GetSeeds()) > 0 || s.GetWhy() != "" {
			t.Errorf("a relayed instance is told %v", s)
		}
	}
	for i, g := range all {
		g.hands(t, g.says(t, fmt.Sprint("dependency-", i)))
	}
	for _, g := range all {
		for i := range all {
			what := []byte(fmt.Sprint("dependency-", i))
			g.has(t, "the record of "+all[i].id, func() bool {
				return slices.ContainsFunc(g.records, func(r []byte) bool { return bytes.Contains(r, what) })
			})
		}
		picture, err := holdfastv1.NewFleetServiceClient(g.conn).GetFleet(t.Context(), &holdfastv1.GetFleetRequest{})
		if f := picture.GetFleet(); err != nil || f.GetInstances() != 3 || f.GetMembers() != 3 || len(f.GetDependencies()) != 3 {
			t.Errorf("%s is shown %v, %v", g.id, picture, err)
		}
		g.has(t, "the population", func() bool {
			p := g.settings.GetPopulation()
			return len(p) == 1 && p[0].GetService() == "checkout" && p[0].GetHosts() == 1 && p[0].GetZones() == 1
		})
	}

	// A record of another one, with a valid signature, is refused wherever it is handed in.
	honest, liar := all[0], all[1]
	liar.hands(t, honest.says(t, "lie"))
	refused := func() bool {
		_, metrics := get(t, sites[1].HTTPAddr(), "/metrics")
		return strings.Contains(metrics, `holdfast_api_evidence_total{result="refused"} 1`+"\n")
	}
	until(t, 10*time.Second, "the refusal", refused)
	honest.hands(t, honest.says(t, "truth"))
	liar.has(t, "the truth", func() bool {
		return slices.ContainsFunc(liar.records, func(r []byte) bool { return bytes.Contains(r, []byte("truth")) })
	})
	if slices.ContainsFunc(liar.records, func(r []byte) bool { return bytes.Contains(r, []byte("lie")) }) {
		t.Error("a lie travels")
	}

	// Whoever holds the signers believes the head of any server, and the timestamp.
	revision := put(t, sites[2].APIAddr(), "first", 0)
	for _, g := range all {
		signers := honest.signers(t)
		g.has(t, "the head", func() bool {
			head, err := signers.Head("default", g.head)
			return err == nil && head.Revision >= revision
		})
		g.has(t, "a timestamp", func() bool {
			_, err := signers.Timestamp(g.stamp)
			return err == nil
		})
	}
}

// TestJoiningOverASession has an instance learn over its session how to join the pool,
// prove its address, and learn of other keys while it is a member.
func TestJoiningOverASession(t *testing.T) {
	t.Parallel()
	sites := encryptedSites(t, 3, 3)
	startAll(t, sites)
	until(t, 30*time.Second, "cluster", formed(sites, 3))
	until(t, 20*time.Second, "three sign", agreed(sites, 3))
	g := gossips(t, sites[0], "i1", "direct")
	g.has(t, "keys", func() bool {
		return g.settings.GetMode() == "relayed" && len(g.settings.GetKeys()) > 0 && g.settings.GetWhy() != ""
	})
	pool, err := gossip.New(gossip.Config{
		Name: "checkout-i1-1", BindAddr: "127.0.0.1:0", Label: g.told().GetLabel(), Keys: g.told().GetKeys(),
		Join: g.told().GetSeeds(), Profile: gossip.Instances,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close(context.Background()) })
	state := &holdfastv1.GossipState{Mode: "direct", PublicKey: g.key.Public(), Address: fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0]), Member: pool.Name()}
	g.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Gossip{Gossip: state}})
	g.has(t, "the failure", func() bool { return strings.Contains(g.settings.GetWhy(), "cannot be reached at "+state.GetAddress()) })
	state.Address = pool.Addr()
	g.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Gossip{Gossip: state}})
	g.granted(t, "direct")
	if why := g.told().GetWhy(); why != "" {
		t.Errorf("direct, and %q", why)
	}

	keys := func(s *site) holdfastv1.FleetServiceClient { // any server will do
		conn, err := grpc.NewClient("passthrough:///"+s.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return holdfastv1.NewFleetServiceClient(conn)
	}
	for _, s := range sites {
		was := len(g.told().GetKeys())
		resp, err := keys(s).RotateGossipKey(t.Context(), &holdfastv1.RotateGossipKeyRequest{Step: holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD})
		if err != nil || len(resp.GetKeys()) != was+1 {
			t.Fatalf("with %d keys, added %v, %v", was, resp, err)
		}
		g.has(t, "the new key", func() bool { return len(g.settings.GetKeys()) == was+1 })
	}
}
