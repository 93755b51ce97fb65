package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

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
