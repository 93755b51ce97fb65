package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// rawCodec keeps what comes as it is on the wire.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if raw, ok := v.(*[]byte); ok {
		*raw = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// listener is a session that reads raw bytes.
type listener struct{ grpc.ClientStream }

func (n *node) listen(t *testing.T, hello *holdfastv1.Hello) listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	conn := dial(t, n.addr, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2(protocodec.Name)})))
	stream, err := conn.NewStream(ctx, &holdfastv1.SessionService_ServiceDesc.Streams[0], holdfastv1.SessionService_Connect_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	return listener{stream}
}

func (l listener) next(t *testing.T) []byte {
	t.Helper()
	var raw []byte
	if err := l.RecvMsg(&raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestOlderInstancesHearTheSameBytes: to an instance whose hello says nothing of gossip a
// server with it is one without.
func TestOlderInstancesHearTheSameBytes(t *testing.T) {
	r := newFakeCluster(t, "n1").replicas[0]
	r.set(func(r *fakeReplica) { r.stopped = time.Unix(1_700_000_000, 5) })
	f := newFakeFleet(t, r)
	f.timestamp = trust.SignTimestamp(f.key, trust.Timestamp{Epoch: r.View().Epoch(), Revision: 1})
	without, with := serve(t, r), serve(t, r, func(c *Config) { c.Fleet = f })
	without.put(t, flag("a", `1`))
	hello := helloOf("old")
	hello.ProgressInterval = durationpb.New(MinProgressInterval)
	one, other := without.listen(t, hello), with.listen(t, hello)
	for _, what := range []string{"welcome", "snapshot", "delta", "progress"} {
		if what == "delta" {
			without.put(t, flag("b", `2`), remove("a"))
		}
		is, was := other.next(t), one.next(t)
		for progress := (&holdfastv1.ConnectResponse{}); what == "delta"; { // of before the change
			if err := proto.Unmarshal(was, progress); err != nil || progress.GetDelta() != nil {
				break
			}
			was = one.next(t)
		}
		for progress := (&holdfastv1.ConnectResponse{}); what == "delta"; {
			if err := proto.Unmarshal(is, progress); err != nil || progress.GetDelta() != nil {
				break
			}
			is = other.next(t)
		}
		if len(is) == 0 || !bytes.Equal(is, was) {
			t.Errorf("%s with gossip %q, without %q", what, is, was)
		}
	}
	if n := f.count(&f.signed) + f.count(&f.certified); n != 0 {
		t.Errorf("%d signatures for an instance that does not gossip", n)
	}
}

// TestHeadsGoWithEvents: each event proves what it leaves the namespace as, and the
// signature is made once for all.
func TestHeadsGoWithEvents(t *testing.T) {
	n, f := fleeted(t)
	for i := range 3 { // chunks
		n.put(t, flag(fmt.Sprint("big-", i), `"`+strings.Repeat("x", ChunkBytes*3/4)+`"`))
	}
	const many = 5
	var all []*gossiper
	for i := range many {
		all = append(all, n.gossips(t, fmt.Sprint("i", i)))
	}
	event := func(kind string, is func(*holdfastv1.ConnectResponse) (last bool, revision uint64, root []byte)) {
		t.Helper()
		for _, g := range all {
			g.events = nil
			g.until(t, "a "+kind, func() bool {
				if len(g.events) == 0 {
					return false
				}
				last, _, _ := is(g.events[len(g.events)-1])
				return last
			})
			for i, e := range g.events[:len(g.events)-1] { // a progress among them has one
				if e.GetProgress() == nil && e.GetHead() != nil {
					t.Errorf("message %d of %d of a %s has a head", i, len(g.events), kind)
				}
			}
			last := g.events[len(g.events)-1]
			_, revision, root := is(last)
			head, err := f.signers.Head("default", last.GetHead())
			if err != nil || head.Revision != revision || !bytes.Equal(head.Root[:], root) || head.Epoch.Counter != last.GetEpoch().GetCounter() {
				t.Errorf("the head of a %s is %+v, %v; the event is %d %x", kind, head, err, revision, root)
			}
		}
	}
	event("snapshot", func(r *holdfastv1.ConnectResponse) (bool, uint64, []byte) {
		return r.GetSnapshot().GetLast(), r.GetSnapshot().GetRevision(), r.GetSnapshot().GetRoot()
	})
	if g := all[0]; len(g.events) < 2 || len(g.settings) != 1 {
		t.Errorf("%d chunks, settings %v: a snapshot in several chunks, after the settings, is wanted", len(g.events), g.settings)
	}
	if signed := f.count(&f.signed); signed != 1 {
		t.Errorf("%d signatures for one revision", signed)
	}
	big := `"` + strings.Repeat("y", ChunkBytes*3/4) + `"`
	n.put(t, flag("one", big), flag("other", big))
	event("delta", func(r *holdfastv1.ConnectResponse) (bool, uint64, []byte) {
		return r.GetDelta().GetLast(), r.GetDelta().GetTo(), r.GetDelta().GetRoot()
	})
	if len(all[0].events) < 2 {
		t.Error("a delta in several chunks is wanted")
	}
	if signed := f.count(&f.signed); signed != 2 {
		t.Errorf("%d signatures for two revisions", signed)
	}
}

// TestProgressHasHeadAndTimestamp: a timestamp is passed on once, with the next event.
func TestProgressHasHeadAndTimestamp(t *testing.T) {
	n, f := fleeted(t)
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) { h.ProgressInterval = durationpb.New(MinProgressInterval) })
	progress := func(count int) {
		t.Helper()
		g.events = nil
		g.until(t, "progress", func() bool { return len(g.events) == count })
	}
	progress(3)
	if last := g.events[2]; last.GetProgress() == nil || last.GetHead() == nil || len(g.stamps) != 0 {
		t.Errorf("progress is %v, timestamps %v", last, g.stamps)
	}
	for revision := range uint64(2) {
		f.set(func() {
			f.timestamp = trust.SignTimestamp(f.key, trust.Timestamp{Epoch: n.replica.View().Epoch(), Revision: revision})
		})
		g.stamps = nil
		g.until(t, "the timestamp", func() bool { return len(g.stamps) > 0 })
		progress(3)
		stamp, err := f.signers.Timestamp(g.stamps[0])
		if len(g.stamps) != 1 || err != nil || stamp.Revision != revision {
			t.Errorf("timestamps %v, the first one is %+v, %v", g.stamps, stamp, err)
		}
	}
	// A server that may not sign sends what it has without.
	f.set(func() { f.uncertain, f.timestamp = errors.New("nobody knows my key"), nil })
	n.put(t, flag("a", `1`))
	g.until(t, "an event without a head", func() bool { return g.events[len(g.events)-1].GetDelta() != nil })
	if g.events[len(g.events)-1].GetHead() != nil {
		t.Error("a head without a key")
	}
	f.set(func() { f.uncertain = nil })
	heads := len(g.heads)
	g.until(t, "the head of the same revision, later", func() bool { return len(g.heads) > heads })
	if head, err := f.signers.Head("default", g.heads[heads]); err != nil || head.Revision != 1 {
		t.Errorf("head = %+v, %v", head, err)
	}
}

// TestRelayed: the instance is certified, and told who signs and where its like are,
// but not how to join the pool.
func TestRelayed(t *testing.T) {
	n, f := fleeted(t)
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) { h.Identity.Labels = map[string]string{"zone": "eu-1"} })
	s := g.granted(t, modeRelayed)
	cert, err := f.signers.Certificate("default", s.GetCertificate(), time.Now())
	want := trust.Certificate{Namespace: "default", ID: "i", Service: "checkout", Host: "127.0.0.1", Zone: "eu-1", PublicKey: g.key.Public()}
	cert.NotAfter = 0
	if err != nil || !cert.PublicKey.Equal(want.PublicKey) || fmt.Sprint(cert) != fmt.Sprint(want) {
		t.Errorf("certificate = %+v, %v", cert, err)
	}
	if s.GetWhy() != "" || len(s.GetSeeds())+len(s.GetKeys())+len(s.GetLabel()) > 0 || !bytes.Equal(s.GetSigners(), f.signers.Bytes()) {
		t.Errorf("settings = %v", s)
	}
	g.until(t, "the population", func() bool {
		s = g.settings[len(g.settings)-1]
		return len(s.GetPopulation()) == 1
	})
	if p := s.GetPopulation()[0]; p.GetService() != "checkout" || p.GetHosts() != 1 || p.GetZones() != 1 {
		t.Errorf("population = %v", p)
	}
	if p := f.in("default").population("checkout"); p.Hosts != 1 {
		t.Errorf("the pool knows of %+v", p)
	}
	// Other signers are told without being asked for.
	f.sign(2)
	g.until(t, "the new signers", func() bool {
		return bytes.Equal(g.settings[len(g.settings)-1].GetSigners(), f.Signers())
	})
	// A new key gets a certificate of its own.
	g.key = newKey(t)
	g.wants(t, &holdfastv1.GossipState{Mode: modeRelayed})
	g.until(t, "another certificate", func() bool {
		c, err := f.signers.Certificate("default", g.settings[len(g.settings)-1].GetCertificate(), time.Now())
		return err == nil && c.PublicKey.Equal(g.key.Public())
	})
	g.wants(t, &holdfastv1.GossipState{})
	if s := g.granted(t, modeOff); s.GetCertificate() != nil || s.GetWhy() != "" {
		t.Errorf("off: %v", s)
	}
}

// TestCertificatesAreRenewed: at the next event after they should be.
func TestCertificatesAreRenewed(t *testing.T) {
	n, f := fleeted(t)
	f.life = time.Nanosecond
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) { h.ProgressInterval = durationpb.New(MinProgressInterval) })
	g.until(t, "a renewal", func() bool { return len(g.settings) > 2 })
	// What cannot be renewed is kept.
	f.set(func() { f.uncertain = errors.New("not now") })
	g.events = nil
	g.until(t, "progress", func() bool { return len(g.events) > 3 })
	if last := g.settings[len(g.settings)-1]; last.GetMode() != modeRelayed {
		t.Errorf("without renewal: %v", last)
	}
}

// TestGossipNeverCostsASession: whatever is wrong with it stands in why, and what was
// decided flows on.
func TestGossipNeverCostsASession(t *testing.T) {
	for name, test := range map[string]struct {
		state *holdfastv1.GossipState
		harm  func(*fakeFleet)
		why   string
	}{
		"unknown mode":   {&holdfastv1.GossipState{Mode: "loud\x1b"}, nil, "does not know the mode"},
		"no key":         {&holdfastv1.GossipState{Mode: modeRelayed, PublicKey: []byte{1}}, nil, "public key"},
		"no pool":        {nil, func(f *fakeFleet) { f.refused = errors.New("no port") }, "not in the pool: no port"},
		"no certificate": {nil, func(f *fakeFleet) { f.uncertain = errors.New("no clock") }, "not certified: no clock"},
	} {
		t.Run(name, func(t *testing.T) {
			n, f := fleeted(t)
			if test.harm != nil {
				f.set(func() { test.harm(f) })
			}
			g := n.gossips(t, "i", func(h *holdfastv1.Hello) {
				if test.state != nil {
					h.Gossip = test.state
				}
			})
			if s := g.granted(t, modeOff); !strings.Contains(s.GetWhy(), test.why) || strings.Contains(s.GetWhy(), "\x1b") {
				t.Errorf("why = %q", s.GetWhy())
			}
			g.hands(t, []byte("something"))
			n.put(t, flag("a", `1`))
			g.until(t, "the change", func() bool {
				return len(g.events) > 0 && g.events[len(g.events)-1].GetDelta().GetTo() == 1 || len(g.events) == 1 && g.events[0].GetSnapshot().GetRevision() == 1
			})
			eventually(t, "the record to be dropped", func() bool { return counted(n.metrics.evidence.WithLabelValues("dropped")) == 1 })
		})
	}
}

// TestPoolComesLater: what a server cannot do yet it does when it can.
func TestPoolComesLater(t *testing.T) {
	n, f := fleeted(t)
	f.set(func() { f.refused = errors.New("not yet") })
	g := n.gossips(t, "i")
	g.granted(t, modeOff)
	f.set(func() { f.refused = nil })
	g.granted(t, modeRelayed)
}

// TestLiars: a session hands in its own records only, and a forged one is refused.
func TestLiars(t *testing.T) {
	n, f := fleeted(t)
	honest, liar := n.gossips(t, "honest"), n.gossips(t, "liar")
	cert, own := honest.granted(t, modeRelayed).GetCertificate(), liar.granted(t, modeRelayed).GetCertificate()
	pool, refused, taken := f.in("default"), n.metrics.evidence.WithLabelValues("refused"), n.metrics.evidence.WithLabelValues("taken")

	liar.hands(t, honest.observed(t, cert, "payments")) // repeats another's
	liar.hands(t, liar.observed(t, cert, "payments"))   // under another's certificate
	forged := liar.observed(t, own, "payments")
	forged[len(forged)-1]++
	liar.hands(t, forged)
	eventually(t, "the refusals", func() bool { return counted(refused) == 3 })
	if keys := pool.Keys(); len(keys) != 0 || counted(taken) != 0 {
		t.Errorf("the pool holds %q", keys)
	}
	honest.hands(t, honest.observed(t, cert, "payments"))
	eventually(t, "a record", func() bool { return counted(taken) == 1 })
	if keys := pool.Keys(); !slices.Equal(keys, []string{"honest"}) {
		t.Errorf("the pool holds %q", keys)
	}
}

// TestEvidenceIsBounded: what is too large or too fast is dropped and counted.
func TestEvidenceIsBounded(t *testing.T) {
	n, _ := fleeted(t)
	g := n.gossips(t, "i")
	cert := g.granted(t, modeRelayed).GetCertificate()
	g.hands(t, make([]byte, MaxEvidenceBytes+1))
	const sent = 100
	for range sent {
		g.hands(t, g.observed(t, cert, "payments"))
	}
	dropped, taken := n.metrics.evidence.WithLabelValues("dropped"), n.metrics.evidence.WithLabelValues("taken")
	eventually(t, "all records", func() bool { return counted(dropped)+counted(taken) == sent+1 })
	if took := counted(taken); took < MaxEvidenceBurst || took > 4*MaxEvidenceBurst {
		t.Errorf("%d records in a moment", took)
	}
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		took := 0
		for range 1000 { // 10 s
			if b.take(time.Now()) {
				took++
			}
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // virtual time
		}
		if want := MaxEvidenceBurst + 10*MaxEvidenceRate; took < want-1 || took > want {
			t.Errorf("%d records in 10 s, want %d", took, want)
		}
	})
}

// TestEvidenceReachesTheRelayed: also those who come late, in batches.
func TestEvidenceReachesTheRelayed(t *testing.T) {
	n, f := fleeted(t)
	pool := f.in("default")
	const witnesses = 2*MaxEvidenceRecords + 5
	hand := func(i int) {
		g := &gossiper{key: newKey(t)}
		cert, _, err := pool.Certify(Participant{ID: fmt.Sprint("w", i), Service: "checkout", Host: fmt.Sprint("10.0.0.", i), PublicKey: g.key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		if err := pool.Take(g.observed(t, cert, "payments"), fmt.Sprint("w", i)); err != nil {
			t.Fatal(err)
		}
	}
	early, direct := n.gossips(t, "early"), n.gossips(t, "direct", func(h *holdfastv1.Hello) {
		h.Gossip.Mode, h.Gossip.Address, h.Gossip.Member = modeDirect, "127.0.0.1:1", "m"
	})
	early.granted(t, modeRelayed)
	direct.granted(t, modeDirect)
	for i := range witnesses {
		hand(i)
	}
	late := n.gossips(t, "late")
	for name, g := range map[string]*gossiper{"early": early, "late": late} {
		g.until(t, "all records", func() bool { return len(g.records) >= witnesses })
		if g.batches < 3 || g.batches > 10 {
			t.Errorf("%s: %d records in %d batches", name, len(g.records), g.batches)
		}
		store := fleet.NewStore(fleet.StoreConfig{Namespace: "default", Clock: clock.New()})
		store.SetSigners(f.signers)
		for _, r := range g.records {
			store.Merge(r)
		}
		if len(store.Keys()) != witnesses {
			t.Errorf("%s: knows of %d instances", name, len(store.Keys()))
		}
	}
	// By now all are at one place, and share the bytes.
	hand(witnesses)
	for _, g := range []*gossiper{early, late} {
		g.records = nil
		g.until(t, "one more", func() bool { return len(g.records) > 0 })
	}
	direct.events = nil
	n.put(t, flag("a", `1`))
	direct.until(t, "the change", func() bool { return len(direct.events) > 0 })
	if len(direct.records) > 0 {
		t.Error("a member of the pool is sent records by its session as well")
	}
}

// sent is a stream that takes note of when messages are sent.
type sent struct {
	grpc.ServerStream
	at []time.Time
}

func (s *sent) SendMsg(any) error {
	s.at = append(s.at, time.Now())
	return nil
}

// TestEvidenceIsCoalesced: however often records change, an instance hears of it every
// evidencePause, and of the last change too.
func TestEvidenceIsCoalesced(t *testing.T) {
	r := newFakeCluster(t, "n1").replicas[0]
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFleet(t, r)
		spaces := &fleetSpaces{fleet: f, metrics: newMetrics(nil), spaces: make(map[string]*fleetSpace)}
		space := &fleetSpace{of: spaces, namespace: "default", pool: f.in("default"), sessions: make(map[*participant]struct{})}
		space.terms.Store(&fleetTerms{settings: space.pool.Settings(), signers: f.Signers()})
		space.batch.Store(&evidenceBatch{})
		ctx, cancel := context.WithCancel(t.Context())
		space.running.Go(func() { space.follow(ctx) })
		p := &participant{
			of: spaces, encoder: newEncoder(newMetrics(nil)), replica: r, space: space, woken: make(chan struct{}, 1),
			wants: &holdfastv1.GossipState{Mode: modeRelayed, PublicKey: newKey(t).Public()}, who: Participant{ID: "i"},
		}
		p.timer = time.AfterFunc(0, p.wake)
		space.enlist(p)
		stream := &sent{}
		var handler sync.WaitGroup
		handler.Go(func() {
			for p.step(ctx, stream) == nil {
				select {
				case <-p.woken:
				case <-ctx.Done():
				}
			}
		})
		for i := range 100 {
			g := &gossiper{key: newKey(t)}
			cert, _, err := space.pool.Certify(Participant{ID: fmt.Sprint("w", i), Host: "10.0.0.1", PublicKey: g.key.Public()})
			if err != nil {
				t.Fatal(err)
			}
			if err := space.pool.Take(g.observed(t, cert, "payments"), fmt.Sprint("w", i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // virtual time
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		synctest.Wait()
		if n, pool := len(stream.at), f.in("default"); n < 15 || n > 22 || pool.asked > 2*n {
			t.Errorf("%d messages in 2 s, of %d looks", n, pool.asked)
		}
		paced := func(s *sent) {
			t.Helper()
			for i := 2; i < len(s.at); i++ { // the first one is the settings
				if gap := s.at[i].Sub(s.at[i-1]); gap < evidencePause {
					t.Errorf("batch %d after %s", i, gap)
				}
			}
		}
		paced(stream)
		if _, to := space.pool.Changes(p.cursor, 1); to != p.cursor {
			t.Errorf("was told up to %d of %d", p.cursor, to)
		}
		cancel()
		handler.Wait()
		space.running.Wait()
		p.timer.Stop()

		// Who comes late catches up in several batches, however often it is woken.
		p.cursor, p.relayedAt, p.told = 0, time.Time{}, terms{}
		late := &sent{}
		for i := range 1000 {
			if i < 5 || len(p.woken) > 0 { // later only when it asked to be
				select {
				case <-p.woken:
				default:
				}
				if err := p.step(t.Context(), late); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // virtual time
		}
		if paced(late); len(late.at) != 4 || p.cursor != space.batch.Load().to {
			t.Errorf("%d messages, up to %d", len(late.at), p.cursor)
		}
		p.timer.Stop()
	})
}

// TestDirect: the address is verified before the instance may join.
func TestDirect(t *testing.T) {
	n, f := fleeted(t)
	pool := f.in("default")
	asked := make(chan string, 10)
	answer := make(chan error)
	pool.verify = func(ctx context.Context, address, member string) error {
		asked <- address + " " + member
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) { h.Gossip.Mode = modeDirect })
	if s := g.granted(t, modeRelayed); s.GetWhy() != noAddress || len(s.GetKeys()) != 1 || len(s.GetSeeds()) != 1 || s.GetLabel() == "" {
		t.Errorf("without an address: %v", s)
	}
	g.wants(t, &holdfastv1.GossipState{Mode: modeDirect, Address: "127.0.0.1:7000", Member: "m"})
	g.until(t, "verification", func() bool { return g.settings[len(g.settings)-1].GetWhy() == notYetProven })
	if got := <-asked; got != "127.0.0.1:7000 m" {
		t.Errorf("verifies %s", got)
	}
	answer <- errOutOfReach
	g.until(t, "the failure", func() bool { return strings.Contains(g.settings[len(g.settings)-1].GetWhy(), "no answer by UDP") })
	g.wants(t, &holdfastv1.GossipState{Mode: modeDirect, Address: "127.0.0.1:7001", Member: "m"}) // after verifyPause
	g.until(t, "verification", func() bool { return g.settings[len(g.settings)-1].GetWhy() == notYetProven })
	if got := <-asked; got != "127.0.0.1:7001 m" {
		t.Errorf("verifies %s", got)
	}
	answer <- nil
	if s := g.granted(t, modeDirect); s.GetWhy() != "" || len(s.GetKeys()) != 1 {
		t.Errorf("verified: %v", s)
	}
	if got := counted(n.metrics.participants.WithLabelValues(modeDirect)); got != 1 {
		t.Errorf("%d direct sessions", got)
	}
	// Other keys are told at once.
	pool.set(func() { pool.settings = &holdfastv1.GossipSettings{Keys: [][]byte{{1}, {2}}} })
	g.until(t, "the new keys", func() bool { return len(g.settings[len(g.settings)-1].GetKeys()) == 2 })
	// A verification that runs ends with its session.
	g.wants(t, &holdfastv1.GossipState{Mode: modeDirect, Address: "127.0.0.1:7002", Member: "m"})
	<-asked
	g.cancel()
	eventually(t, "the end", func() bool { return counted(n.metrics.participants.WithLabelValues(modeDirect)) == 0 })
}

// TestPoolIsBounded: beyond its limit instances are relayed, and told why; members
// stay.
func TestPoolIsBounded(t *testing.T) {
	n, f := fleeted(t)
	pool := f.in("default")
	pool.members, pool.direct = MaxDirectMembers, []string{"member"}
	direct := func(h *holdfastv1.Hello) {
		h.Gossip.Mode, h.Gossip.Address, h.Gossip.Member = modeDirect, "127.0.0.1:7000", "m"
	}
	if s := n.gossips(t, "stranger", direct).granted(t, modeRelayed); s.GetWhy() != poolFull || len(s.GetKeys()) > 0 {
		t.Errorf("beyond the limit: %v", s)
	}
	member := n.gossips(t, "member", direct)
	member.granted(t, modeDirect)
	spaces := n.sessions.spaces
	spaces.mu.Lock()
	space := spaces.spaces["default"]
	spaces.mu.Unlock()
	members := func() int {
		space.mu.Lock()
		defer space.mu.Unlock()
		return space.direct
	}
	if got := members(); got != 1 {
		t.Errorf("%d may join", got)
	}
	// Those who were let in count before they have joined.
	pool.set(func() { pool.members = 1 })
	space.joins(MaxDirectMembers - 1)
	n.gossips(t, "next", direct).granted(t, modeRelayed)
	space.joins(1 - MaxDirectMembers)
	member.cancel()
	eventually(t, "its place", func() bool { return members() == 0 })
}

// TestVerificationsAreBounded: those beyond the limit wait for their turn.
func TestVerificationsAreBounded(t *testing.T) {
	n, f := fleeted(t)
	running, release := make(chan struct{}, 2*MaxVerifications), make(chan struct{})
	f.in("default").verify = func(ctx context.Context, _, _ string) error {
		running <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	var all []*gossiper
	for i := range MaxVerifications + 1 {
		all = append(all, n.gossips(t, fmt.Sprint("i", i), func(h *holdfastv1.Hello) {
			h.Gossip.Mode, h.Gossip.Address, h.Gossip.Member = modeDirect, "127.0.0.1:7000", "m"
		}))
		all[i].granted(t, modeRelayed)
	}
	for range MaxVerifications {
		<-running
	}
	if len(running) > 0 {
		t.Error("more run than may")
	}
	close(release)
	for _, g := range all {
		g.granted(t, modeDirect)
	}
}

func TestVerificationIsRepeatedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		pool := &fakePool{verify: func(context.Context, string, string) error {
			at = append(at, time.Since(began))
			return errOutOfReach
		}}
		p := &participant{
			of: &fleetSpaces{metrics: newMetrics(nil), checks: make(slots, 1)}, space: &fleetSpace{pool: pool},
			who: Participant{Host: "10.0.0.1"}, woken: make(chan struct{}, 1), ctx: t.Context(),
		}
		wants := &holdfastv1.GossipState{Mode: modeDirect, Address: "10.0.0.1:7000", Member: "m"}
		for time.Since(began) < 20*time.Minute {
			p.next = 0
			if why := p.verify(time.Now(), wants); why == "" {
				t.Fatal("verified")
			}
			p.checking.Wait()
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
		}
		var gaps []time.Duration
		for i := range at[1:] {
			gaps = append(gaps, (at[i+1] - at[i]).Round(5*time.Second))
		}
		want := []time.Duration{5 * time.Second}
		for range 5 {
			want = append(want, 2*want[len(want)-1])
		}
		for range 2 {
			want = append(want, verifyLate)
		}
		if !slices.Equal(gaps, want) {
			t.Errorf("tried after %v, want %v", gaps, want)
		}
		// Asked anew it tries at once, but never twice within verifyPause.
		tried := len(at)
		for range 10 {
			p.says(wants)
			p.verify(time.Now(), wants)
			p.checking.Wait()
		}
		if len(at) != tried+1 {
			t.Errorf("tried %d times in a moment", len(at)-tried)
		}
	})
}

func TestGossipAddresses(t *testing.T) {
	for _, test := range []struct{ address, member, observed, want string }{
		{"10.0.0.1:7000", "checkout/a/1", "10.0.0.2", ""},
		{"[2001:db8::1]:7000", "m", "10.0.0.2", ""},
		{"127.0.0.1:7000", "m", "127.0.0.3", ""},
		{"127.0.0.1:7000", "m", "10.0.0.2", "own host's only"},
		{"[::ffff:127.0.0.1]:7000", "m", "10.0.0.2", "own host's only"},
		{"127.0.0.1:7000", "m", "", "own host's only"},
		{"localhost:7000", "m", "127.0.0.1", "no IP address"},
		{"10.0.0.1", "m", "10.0.0.2", "no IP address"},
		{"10.0.0.1:0", "m", "10.0.0.2", "none that others can reach"},
		{"0.0.0.0:7000", "m", "10.0.0.2", "none that others can reach"},
		{"224.0.0.1:7000", "m", "10.0.0.2", "none that others can reach"},
		{"255.255.255.255:7000", "m", "10.0.0.2", "none that others can reach"},
		{"169.254.169.254:80", "m", "10.0.0.2", "none that others can reach"},
		{"10.0.0.1:7000", "a\x1b", "10.0.0.2", "cannot be one"},
		{"10.0.0.1:7000", strings.Repeat("m", document.MaxName+1), "10.0.0.2", "cannot be one"},
	} {
		got := checkGossipAddress(test.address, test.member, test.observed)
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%q as %q from %q: %q, want %q", test.address, test.member, test.observed, got, test.want)
		}
	}
}

// TestSettingsComeWhileAhead: an instance that is ahead of its server takes part in
// gossip nevertheless.
func TestSettingsComeWhileAhead(t *testing.T) {
	n, f := fleeted(t)
	g := n.gossips(t, "i", func(h *holdfastv1.Hello) {
		h.Cursor = &holdfastv1.Cursor{Epoch: n.replica.View().Epoch().Proto(), Revision: 7}
	})
	g.granted(t, modeRelayed)
	f.sign(2)
	g.until(t, "the new signers", func() bool { return bytes.Equal(g.settings[len(g.settings)-1].GetSigners(), f.Signers()) })
	if len(g.events) > 0 {
		t.Errorf("was told %v", g.events)
	}
}

// TestCachedHeadsAreBounded: the oldest are signed anew when they are asked for.
func TestCachedHeadsAreBounded(t *testing.T) {
	_, f := fleeted(t)
	heads := newSignedHeads(f, nil)
	heads.limit = 2
	for _, revision := range []uint64{1, 2, 1, 3, 1} {
		if len(heads.of(headKey{namespace: "default", revision: revision})) == 0 {
			t.Error("no head")
		}
	}
	if signed := f.count(&f.signed); signed != 4 || len(heads.known) != 2 || len(heads.order) != 2 {
		t.Errorf("%d signatures, %d heads kept", signed, len(heads.known))
	}
	if MaxCachedHeads < MaxFleetWatches {
		t.Error("next to nothing is kept")
	}
}
