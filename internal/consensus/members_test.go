package consensus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
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
	for range caughtUp + 1 {
		leader.propose("x")
	}
	leader.node.trans.peer("new").heard(&raft.AppendEntriesResponse{LastLog: 1}) // it answers, and has next to nothing
	if err := leader.node.Promote(ctx, "new"); !errors.Is(err, ErrNotCaughtUp) {
		t.Fatalf("promote a member that is far behind: %v", err)
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
	follower.waitApplied(c.leader().propose("y"))
	follower.waitApplied(c.leader().propose("z")) // by now it has seen its removal
	eventually(t, "the removal to turn out to be an old one", func() bool {
		r := &follower.node.removal
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.confirming
	})
	select {
	case err := <-follower.fatal:
		t.Error("fatal:", err)
	default:
	}
}

// A node that is no member as far as it knows is not gone while a leader speaks
// to it: it may be about to learn that it was added again.
func TestRemovalIsConfirmedInSilenceOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, "a", &links{}, func(cfg *Config) {
		cfg.Timing.Heartbeat, cfg.Timing.Lease = 150*time.Millisecond, 150*time.Millisecond
	})
	s.mustOpen()
	quiet := 2 * s.cfg.Timing.Heartbeat
	from := openTransport(t)
	speak := func() error {
		heartbeat := raft.AppendEntriesRequest{RPCHeader: header("leader"), Term: 1}
		return from.AppendEntries("a", raft.ServerAddress(s.node.Addr()), &heartbeat, &raft.AppendEntriesResponse{})
	}
	must(t, speak())
	s.node.removal.wg.Go(s.node.confirmRemoval)
	var longest time.Duration // silence
	start := time.Now()
	for last, err := start, error(nil); err == nil && time.Since(start) < 3*quiet; last = time.Now() {
		<-time.After(10 * time.Millisecond)
		err = speak() // fails once the node has ended
		longest = max(longest, time.Since(last))
	}
	select {
	case err := <-s.fatal:
		if longest < quiet { // the machine has kept up
			t.Error("while a leader speaks:", err)
		}
	default:
		s.expectFatal(ErrRemoved)
	}
}

func TestPromotedMemberMustAnswer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	leader := c.leader()
	s := newSite(t, "new", c.net, nil)
	s.mustOpen()
	c.sites = append(c.sites, s)
	must(t, leader.node.AddNonvoter(testCtx(t), "new", s.node.Addr()))
	index := leader.propose("x")
	eventually(t, "the member to report the entry", func() bool {
		has, _ := leader.node.trans.lastLog("new")
		return has >= index
	})
	c.isolate(s)
	// It has the whole log, and would leave the two of them without a majority.
	eventually(t, "the refusal", func() bool {
		_, heard := leader.node.trans.lastLog("new")
		return time.Since(heard) > leader.cfg.Timing.Heartbeat
	})
	if err := leader.node.Promote(testCtx(t), "new"); !errors.Is(err, ErrNotCaughtUp) {
		t.Errorf("promote a member that is gone: %v", err)
	}
	leader.propose("still alone")
}

func TestImpossibleChangesAreRefused(t *testing.T) {
	t.Parallel()
	leader := newCluster(t, 1, nil).leader()
	ctx := testCtx(t)
	last := leader.node.Status().LastIndex
	for name, err := range map[string]error{
		"last voter":      leader.node.Remove(ctx, leader.cfg.ID),
		"address in use":  leader.node.AddNonvoter(ctx, "other", leader.node.Addr()),
		"without address": leader.node.AddNonvoter(ctx, "other", ""),
	} {
		if err == nil || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := leader.node.Status().LastIndex; got != last {
		t.Errorf("the log went from %d to %d", last, got)
	}
	must(t, leader.node.Remove(ctx, "stranger"))
	must(t, leader.node.Promote(ctx, leader.cfg.ID))
}

// What a change was decided on must still hold when it is made.
func TestOneChangeAtATime(t *testing.T) {
	t.Parallel()
	leader := newCluster(t, 1, nil).leader()
	leader.node.changing <- struct{}{} // somebody else's
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := leader.node.Remove(ctx, "x"); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second change: %v", err)
	}
	<-leader.node.changing
	must(t, leader.node.Remove(testCtx(t), "x"))
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
	p := leader.node.trans.peer(raft.ServerID(dead.cfg.ID))
	eventually(t, "the choice of the one that is alive", func() bool {
		p.mu.Lock()
		p.lastLog, p.heardAt = 1<<40, time.Now().Add(-time.Minute) // it would be the best choice
		p.mu.Unlock()
		best, err := leader.node.successor("")
		return err == nil && string(best.ID) != dead.cfg.ID
	})
}

func TestStuckTransferIsFatal(t *testing.T) {
	t.Parallel()
	var failed error
	tr := transfers{limit: time.Minute, fail: func(err error) { failed = err }}
	tr.begin()
	if tr.refused(); failed != nil {
		t.Error("a transfer under way is fatal:", failed) // however long raft's main goroutine may be busy
	}
	tr.end()
	if tr.refused(); failed != nil {
		t.Error("a transfer that has just ended is fatal:", failed)
	}
	tr.settled = time.Now().Add(-2 * time.Minute)
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

// Of three servers two had an entry. One of them loses its disk, the other is down: an
// empty server at the old address must not help the third, which lacks the entry, to
// lead.
func TestEmptyServerAtAnOldAddressDoesNotVote(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	wiped := c.follower(leader)
	var behind *site
	for _, s := range c.sites {
		if s != leader && s != wiped {
			behind = s
		}
	}
	behind.waitApplied(leader.propose("everybody has it"))
	c.isolate(behind)
	wiped.waitApplied(leader.propose("two have it"))
	leader.kill()
	addr := wiped.cfg.BindAddr
	wiped.kill()

	empty := newSite(t, "empty", c.net, func(cfg *Config) { cfg.BindAddr = addr })
	empty.mustOpen()
	c.heal()
	eventually(t, "elections of the server that is behind", func() bool {
		return behind.node.Metrics().Peers[wiped.cfg.ID].Strangers >= 3
	})
	if behind.node.Status().Role == Leader || len(behind.terms) > 0 {
		t.Fatal("it leads by the vote of an empty server, without an acknowledged entry")
	}
	leader.mustOpen()
	behind.waitApplied(c.leader().propose("all is well"))
	if !behind.sm.has("two have it") {
		t.Error("an acknowledged entry is lost")
	}
}
