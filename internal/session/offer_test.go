package session

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// offered is what a peer has that is at a revision.
func offered(w *truth, revision uint64) mirror.Update {
	d := document.Delta{Namespace: "default", To: revision, Root: rootOf(w.content(revision))}
	for _, r := range w.content(revision) {
		d.Puts = append(d.Puts, r)
	}
	at, _ := w.now()
	return mirror.Update{Epoch: at.Epoch, Replace: true, Delta: d}
}

// TestOffer takes what peers have while no server is there, and only then; it is on
// the disk, and a server has nothing to add.
func TestOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := stored(t, n, w)
		w.put("a", "2")
		s, a := n.open(withDir(dir, l), "a:1")
		now := time.Now().UnixMilli()
		if err := s.Offer(offered(w, 2), now); err != nil {
			t.Fatal(err)
		}
		a.has(w)
		if c := a.change(); c.Source != FromPeer || c.StateTime < now || s.Status().Source != FromPeer {
			t.Errorf("installed as %s at %d", c.Source, c.StateTime)
		}
		end(t, s, a)
		s, a = n.open(withDir(dir, l), "a:1")
		defer end(t, s, a)
		a.has(w)
		older := offered(w, 1)
		foreign, fork := offered(w, 2), offered(w, 2)
		foreign.Epoch.Lineage[0]++
		fork.Epoch.Nonce++
		poisoned := offered(w, 2)
		poisoned.Delta.Puts = nil
		for want, u := range map[error]mirror.Update{mirror.ErrBehind: older, mirror.ErrForeign: foreign, mirror.ErrForked: fork, mirror.ErrRoot: poisoned} {
			if err := s.Offer(u, now); !errors.Is(err, want) {
				t.Errorf("%v instead of %v", err, want)
			}
		}
		a.has(w)
		snapshot := false
		srv := n.serve("a:1", &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) { snapshot = snapshot || m.GetSnapshot() != nil }})
		wait(10 * time.Second)
		if err := s.Offer(offered(w, 2), now); !errors.Is(err, ErrConnected) {
			t.Errorf("beside a server: %v", err)
		}
		if hello := srv.hellos[0]; hello.Source != holdfastv1.Source_SOURCE_DISK || hello.GetCursor().GetRevision() != 2 || snapshot || s.Status().Source != FromServer {
			t.Errorf("hello %v, a snapshot: %v", hello, snapshot)
		}
	})
}

// TestOfferOfARestoredCluster: a later epoch of the lineage is followed, with the time
// of its own.
func TestOfferOfARestoredCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		w.put("a", "2")
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		if err := s.Offer(offered(w, 2), time.Now().Add(time.Hour).UnixMilli()); err != nil {
			t.Fatal(err)
		}
		w.become(epochOf(2), 1)
		if err := s.Offer(offered(w, 1), 0); err != nil {
			t.Fatal(err)
		}
		a.has(w)
		if got := s.StateTime(); got != 0 {
			t.Errorf("the state time of another epoch holds still: %d", got)
		}
		at, _ := w.now()
		s.NotBefore(at.Epoch, time.Now().UnixMilli())
		s.NotBefore(epochOf(1), time.Now().Add(time.Hour).UnixMilli())
		if got := s.StateTime(); got != time.Now().UnixMilli() || len(a.times) != 1 {
			t.Errorf("state time %d, told %v", got, a.times)
		}
	})
}

// TestOfferToAPanic leaves what is held as it was.
func TestOfferToAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		a.tamper = func(Change) { panic("a bug") }
		if err := s.Offer(offered(w, 1), 0); !errors.Is(err, errPanic) || s.Mirror().Position().Set() {
			t.Errorf("%v at %s", err, s.Mirror().Position())
		}
		a.tamper = nil
		if err := s.Offer(offered(w, 1), 0); err != nil {
			t.Error(err)
		}
	})
}

// TestHeadsAfterTheInstall: what a server vouches for is handed on once it holds.
func TestHeadsAfterTheInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		n.serve("a:1", &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
			if m.GetSnapshot() == nil || m.GetSnapshot().GetLast() {
				m.Head = &holdfastv1.SignedHead{KeyId: "h"}
			}
		}})
		var at []mirror.Position
		s, a := n.open(func(c *Config) {
			handler := c.Handler.(*app)
			c.Gossip = &Gossip{
				State: func() *holdfastv1.GossipState { return nil }, Settings: func(*holdfastv1.GossipSettings) {},
				Evidence: func([][]byte) {}, Own: func() []byte { return nil },
				Head: func(head, _ *holdfastv1.SignedHead) {
					if head.GetKeyId() == "h" {
						c := handler.change()
						at = append(at, c.Position())
					}
				},
			}
		}, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		w.put("a", "2")
		synctest.Wait()
		if len(at) != 2 || at[0].Revision != 1 || at[1].Revision != 2 {
			t.Errorf("handed on at %v", at)
		}
	})
}

// TestTrustIsKept: what is known of the pool outlives the process, and nobody else can
// read it.
func TestTrustIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		dir := filepath.Join(t.TempDir(), "cache")
		s, a := n.open(withDir(dir, l), "a:1")
		if s.Trust().Settings != nil {
			t.Error("an empty directory knows somebody")
		}
		s.KeepTrust(mirror.Trust{Key: []byte("older"), Settings: &holdfastv1.GossipSettings{Label: "older"}})
		s.KeepTrust(mirror.Trust{Key: []byte("key"), Settings: &holdfastv1.GossipSettings{Label: "pool"}})
		wait(3 * time.Second)
		path := filepath.Join(dir, "holdfast-default.trust")
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v: %v", info, err)
		}
		second, other := n.open(withDir(dir, l), "a:1") // reads, and does not write
		if second.Trust().Settings.GetLabel() != "pool" {
			t.Error("a second process knows nobody")
		}
		second.KeepTrust(mirror.Trust{Key: []byte("stranger")})
		end(t, second, other)
		end(t, s, a)
		s, a = n.open(withDir(dir, l), "a:1")
		if known := s.Trust(); string(known.Key) != "key" || known.Settings.GetLabel() != "pool" {
			t.Errorf("kept %v", known)
		}
		end(t, s, a)
		data := read1(t, path)
		data[len(data)/2]++
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, a = n.open(withDir(dir, l), "a:1")
		if s.Trust().Settings != nil {
			t.Error("a damaged file is believed")
		}
		l.has(t, "refused", ".trust.corrupt")
		end(t, s, a)
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
