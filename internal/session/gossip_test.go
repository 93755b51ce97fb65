package session

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestGossip: an instance says how it takes part, takes what is granted and what others
// saw, and hands in its own record once it may, and only then.
func TestGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		server := &server{id: "s", truth: w}
		var granted atomic.Pointer[holdfastv1.GossipSettings]
		server.mangle = func(m *holdfastv1.ConnectResponse) {
			m.Gossip = granted.Swap(nil)
			m.Evidence = []*holdfastv1.Evidence{{Record: []byte("another one's")}}
		}
		n.serve("a:1", server)
		var modes, heard []string
		address := ""
		s, a := n.open(func(c *Config) {
			c.Gossip = &Gossip{
				State:    func() *holdfastv1.GossipState { return &holdfastv1.GossipState{Mode: "direct", Address: address} },
				Settings: func(s *holdfastv1.GossipSettings) { modes = append(modes, s.GetMode()) },
				Evidence: func(records [][]byte) { heard = append(heard, string(records[0])) },
				Own:      func() []byte { return []byte("own") },
			}
		}, "a:1")
		defer end(t, s, a)
		synctest.Wait()
		s.SendEvidence()
		synctest.Wait()
		if g := server.hellos[0].GetGossip(); g.GetMode() != "direct" || len(server.others) != 0 {
			t.Fatalf("hello with %v, then %v", g, server.others)
		}
		granted.Store(&holdfastv1.GossipSettings{Mode: "relayed"})
		w.put("a", "2")
		synctest.Wait()
		if len(server.others) != 1 || string(server.others[0].GetEvidence().GetRecord()) != "own" || len(modes) != 1 || modes[0] != "relayed" {
			t.Fatalf("granted %v, handed in %v", modes, server.others)
		}
		address = "10.0.0.1:7946"
		s.SendGossip()
		synctest.Wait()
		if len(server.others) != 2 || server.others[1].GetGossip().GetAddress() != address {
			t.Fatalf("told %v", server.others)
		}
		granted.Store(&holdfastv1.GossipSettings{Mode: "direct"})
		w.put("a", "3")
		synctest.Wait()
		s.SendEvidence()
		synctest.Wait()
		if len(server.others) != 2 {
			t.Errorf("a member of the pool hands in %v", server.others[2:])
		}
		if len(heard) < 3 || heard[0] != "another one's" {
			t.Errorf("heard %q", heard)
		}
	})
}

// TestFarewell: a session that ends hands in the last record, which takes as long as the
// server needs to end the stream, and no longer than the server may take or the caller waits.
func TestFarewell(t *testing.T) {
	const soon = 50 * time.Millisecond
	for name, c := range map[string]struct {
		grant  string
		ends   bool // the server, when it has heard all
		waits  time.Duration
		takes  time.Duration
		handed int
	}{
		"it is heard":                      {grant: relayed, ends: true, handed: 1},
		"the server never answers":         {grant: relayed, takes: farewell, handed: 1},
		"the caller does not wait so long": {grant: relayed, waits: soon, takes: soon, handed: 1},
		"there is nobody to hear it":       {grant: "direct"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := newNetwork(t), newTruth()
				w.put("a", "1")
				server := &server{id: "s", truth: w, ends: c.ends}
				server.mangle = func(m *holdfastv1.ConnectResponse) { m.Gossip = &holdfastv1.GossipSettings{Mode: c.grant} }
				n.serve("a:1", server)
				own := []byte("own")
				s, a := n.open(func(config *Config) {
					config.Gossip = &Gossip{
						State:    func() *holdfastv1.GossipState { return &holdfastv1.GossipState{Mode: relayed} },
						Settings: func(*holdfastv1.GossipSettings) {}, Evidence: func([][]byte) {},
						Own: func() []byte { return own },
					}
				}, "a:1")
				defer end(t, s, a)
				synctest.Wait()
				server.others = nil
				own = []byte("farewell")
				s.SendEvidence()
				ctx := context.Background()
				if c.waits > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.waits)
					defer cancel()
				}
				begin := time.Now()
				if err := s.Close(ctx); (err != nil) != (c.waits > 0) {
					t.Error(err)
				}
				if took := time.Since(begin); took != c.takes {
					t.Errorf("took %v, want %v", took, c.takes)
				}
				synctest.Wait()
				if len(server.others) != c.handed || c.handed > 0 && string(server.others[0].GetEvidence().GetRecord()) != "farewell" {
					t.Errorf("handed in %v", server.others)
				}
			})
		})
	}
}

// TestWithoutGossip: the hello is that of before, and whatever a server says of gossip
// is left alone.
func TestWithoutGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		server := &server{id: "s", truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
			m.Gossip, m.Evidence = &holdfastv1.GossipSettings{Mode: "relayed"}, []*holdfastv1.Evidence{{}}
		}}
		n.serve("a:1", server)
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		s.SendEvidence()
		s.SendGossip()
		synctest.Wait()
		a.has(w)
		if server.hellos[0].GetGossip() != nil || len(server.others) != 0 {
			t.Errorf("hello with %v, then %v", server.hellos[0].GetGossip(), server.others)
		}
	})
}
