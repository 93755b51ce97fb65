package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

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
