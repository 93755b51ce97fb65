package consensus

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// slowCommit leaves it to the nudge alone to tell followers of a commit.
func slowCommit(cfg *Config) { cfg.Timing.Commit = 10 * time.Minute }

func TestFollowersApplyThanksToTheNudge(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, slowCommit)
	leader := c.leader()
	for range 5 {
		index := leader.propose("x")
		for _, s := range c.sites {
			s.waitApplied(index) // 10 minutes without the nudge
		}
	}
	var sent uint64
	for _, p := range leader.node.Metrics().Peers {
		sent += p.NudgesSent
	}
	if sent < 10 {
		t.Errorf("%d nudges sent for 5 entries and 2 followers", sent)
	}
}

func TestWithoutNudgeFollowersWait(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) {
		slowCommit(cfg)
		cfg.DisableNudge = true
	})
	leader := c.leader()
	index := leader.propose("x")
	follower := c.follower(leader)
	id := raft.ServerID(follower.cfg.ID)
	// Two heartbeats after the commit, the follower has heard from the leader and
	// still does not know.
	_, before := leader.node.trans.lastLog(id)
	for range 2 {
		eventually(t, "a heartbeat", func() bool {
			_, at := leader.node.trans.lastLog(id)
			defer func() { before = at }()
			return at.After(before)
		})
	}
	if applied := follower.node.AppliedIndex(); applied >= index {
		t.Errorf("follower applied %d without being told", applied)
	}
	if p := leader.node.Metrics().Peers[follower.cfg.ID]; p.NudgesSent != 0 {
		t.Errorf("%d nudges sent though switched off", p.NudgesSent)
	}
}

func TestNudgeSaysNoMoreThanRaftMay(t *testing.T) {
	t.Parallel()
	p := newPeer("b", &transport{})
	if _, _, ok := p.request(mark{index: 5, term: 2}); ok {
		t.Error("nudges a peer that raft never spoke to")
	}
	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a"), Addr: []byte("a:1")}
	p.sent("b:1", &raft.AppendEntriesRequest{RPCHeader: header, Term: 3, LeaderCommitIndex: 6})
	tests := []struct {
		at   mark
		want bool
	}{
		{mark{index: 7, term: 3}, true},
		{mark{index: 7, term: 2}, true},  // an older entry, committed in term 3
		{mark{index: 7, term: 4}, false}, // raft has not spoken as leader of term 4
		{mark{index: 6, term: 3}, false}, // raft has said so itself
	}
	for _, test := range tests {
		req, target, ok := p.request(test.at)
		if ok != test.want {
			t.Errorf("%+v: nudge %v, want %v", test.at, ok, test.want)
		}
		if !ok {
			continue
		}
		if req.Term != 3 || req.PrevLogEntry != test.at.index || req.PrevLogTerm != test.at.term ||
			req.LeaderCommitIndex != test.at.index || len(req.Entries) != 0 || string(req.ID) != "a" || target != "b:1" {
			t.Errorf("%+v: request %+v to %s", test.at, req, target)
		}
	}
	p.sent("b:1", &raft.AppendEntriesRequest{RPCHeader: header, Term: 4})
	if req, _, ok := p.request(mark{index: 7, term: 3}); !ok || req.Term != 4 {
		t.Errorf("after a new term: %+v %v", req, ok)
	}
}

func TestNudgeSlotKeepsTheLatest(t *testing.T) {
	t.Parallel()
	p := newPeer("b", &transport{})
	for i := range uint64(100) {
		p.offer(mark{index: i}) // never blocks
	}
	if at := <-p.slot; at.index != 99 || len(p.slot) != 0 {
		t.Errorf("slot held %+v", at)
	}
}
