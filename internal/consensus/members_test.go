package consensus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestMemberJoinsAsNonvoterThenIsPromoted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	leader := c.leader()
	ctx := testCtx(t)
	leader.propose("before")
	s := newSite(t, "new", c.net, nil)
	must(t, leader.node.AddNonvoter(ctx, "new", "127.0.0.1:1")) // nobody there yet
	if err := leader.node.Promote(ctx, "new"); !errors.Is(err, ErrNotCaughtUp) {
		t.Fatalf("promote an empty member: %v", err)
	}
	if err := leader.node.Promote(ctx, "stranger"); !errors.Is(err, ErrNotMember) {
		t.Errorf("promote a stranger: %v", err)
	}
	if s.mustOpen(); s.node.HasState() {
		t.Error("a new node has state")
	}
	must(t, leader.node.AddNonvoter(ctx, "new", s.node.Addr())) // its address changed
	s.waitApplied(leader.propose("after"))
	if got := s.sm.commands(); got[0] != "before" {
		t.Errorf("applied %v", got)
	}
	eventually(t, "promotion", func() bool { return leader.node.Promote(ctx, "new") == nil })
	if m := leader.node.Members(); len(m) != 2 || !m[1].Voter || m[1].LastLog == 0 {
		t.Errorf("members %+v", m)
	}
	if err := s.node.Promote(ctx, "new"); !isNotLeader(err, leader) {
		t.Errorf("promote on a follower: %v", err)
	}
	if err := s.node.Bootstrap([]Member{{ID: "new", Addr: s.node.Addr(), Voter: true}}); !errors.Is(err, ErrHasState) {
		t.Errorf("bootstrap of a member: %v", err)
	}
}

func isNotLeader(err error, leader *site) bool {
	var e *NotLeaderError
	return errors.As(err, &e) && e.ID == leader.cfg.ID && e.Addr == leader.node.Addr()
}

func TestRemovedFollowerSaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	follower := c.follower(leader)
	follower.waitApplied(leader.propose("x"))
	must(t, leader.node.Remove(testCtx(t), follower.cfg.ID))
	follower.expectFatal(ErrRemoved)
	if _, known := leader.node.Metrics().Peers[follower.cfg.ID]; known {
		t.Error("the leader still nudges it")
	}
	leader.propose("without it")
}

func TestRemovedLeaderSaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	must(t, leader.node.Remove(testCtx(t), leader.cfg.ID))
	leader.expectFatal(ErrRemoved)
	c.leader(leader).propose("without it")
}

// A node that replays its own removal, and has been added again since, stays.
func TestReaddedMemberStays(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	follower := c.follower(leader)
	follower.waitApplied(leader.propose("x"))
	follower.close()
	must(t, leader.node.Remove(testCtx(t), follower.cfg.ID))
	must(t, leader.node.AddNonvoter(testCtx(t), follower.cfg.ID, follower.cfg.BindAddr))
	follower.mustOpen()
	follower.waitApplied(leader.propose("y"))
	select {
	case err := <-follower.fatal:
		t.Error("fatal:", err)
	case <-time.After(4 * follower.cfg.Timing.Heartbeat): // longer than a removal takes to confirm
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	target := c.follower(leader)
	must(t, leader.node.Transfer(testCtx(t), leader.cfg.ID)) // nothing to do
	must(t, leader.node.Transfer(testCtx(t), target.cfg.ID))
	if next := c.leader(); next != target {
		t.Fatalf("%s leads, not %s", next.cfg.ID, target.cfg.ID)
	}
	if err := target.node.Transfer(testCtx(t), "stranger"); !errors.Is(err, ErrNotMember) {
		t.Errorf("transfer to a stranger: %v", err)
	}
	must(t, target.node.Transfer(testCtx(t), ""))
	c.leader(target)
}

func TestTransferAvoidsTheDead(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	dead := c.follower(leader)
	c.isolate(dead)
	eventually(t, "silence of the dead", func() bool {
		_, err := leader.node.successor("")
		best, _ := leader.node.successor("")
		return err == nil && string(best.ID) != dead.cfg.ID
	})
}

func TestStuckTransferIsFatal(t *testing.T) {
	t.Parallel()
	var failed error
	tr := transfers{limit: time.Minute, fail: func(err error) { failed = err }}
	tr.begin()
	if tr.refused(); failed != nil {
		t.Error("a transfer under way is fatal:", failed)
	}
	tr.begun = time.Now().Add(-2 * time.Minute)
	if tr.refused(); failed == nil || !strings.Contains(failed.Error(), "restart") {
		t.Errorf("a stuck transfer: %v", failed)
	}
}

func TestCloseHandsTheLeadershipOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) {
		// Without a handover an election would take this long.
		cfg.Timing.Heartbeat, cfg.Timing.Election = 15*time.Second, 15*time.Second
	})
	var leader *site
	eventually(t, "a leader", func() bool { // who was bootstrapped stands first, 15 s later
		for _, s := range c.sites {
			if s.node.Status().Role == Leader {
				leader = s
			}
		}
		return leader != nil || hurry(c)
	})
	leader.propose("x")
	start := time.Now()
	must(t, leader.node.Close(testCtx(t)))
	next := c.leader(leader)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%s leads after %v", next.cfg.ID, took)
	}
}

// hurry makes the first site stand for election at once, as TimeoutNow does.
func hurry(c *cluster) bool {
	var resp timeoutNowResponse
	_ = c.sites[1].node.trans.TimeoutNow("n1", c.sites[0].node.trans.LocalAddr(), &timeoutNowRequest{RPCHeader: header("n2")}, &resp)
	return false
}

func TestCloseIsIdempotentAndFinal(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	s := c.leader()
	s.propose("x")
	for range 2 {
		must(t, s.node.Close(testCtx(t)))
	}
	ctx := context.Background()
	if _, _, err := s.node.Propose(ctx, []byte("y")); err == nil {
		t.Error("proposed on a closed node")
	}
	if _, err := s.node.ReadIndex(ctx); err == nil {
		t.Error("read on a closed node")
	}
	if err := s.node.WaitApplied(ctx, 1000); !errors.Is(err, ErrUnavailable) {
		t.Errorf("wait on a closed node: %v", err)
	}
	if got := s.node.Status().Role; got != Stopped {
		t.Errorf("role %v", got)
	}
}
