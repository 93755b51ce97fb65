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

// hasTold tells whether raft itself has told a follower of a commit: it does when
// another entry follows, as a barrier may, or a replicator is woken twice for one.
func (s *site) hasTold(follower *site, index uint64) bool {
	p := s.node.trans.peer(raft.ServerID(follower.cfg.ID))
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commit >= index
}

func TestWithoutNudgeFollowersWait(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) {
		slowCommit(cfg)
		cfg.DisableNudge = true
	})
	leader := c.leader()
	follower := c.follower(leader)
	id := raft.ServerID(follower.cfg.ID)
	// When raft has told by itself, this says nothing.
	for try := 1; ; try++ {
		index := leader.propose("x")
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
		applied := follower.node.AppliedIndex()
		if leader.hasTold(follower, index) && try < 20 {
			continue
		}
		if applied >= index {
			t.Errorf("follower applied %d without being told", applied)
		}
		break
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
	message := func(term, last, commit uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{
			RPCHeader: header, Term: term, PrevLogEntry: last - 1, LeaderCommitIndex: commit,
			Entries: []*raft.Log{{Index: last}},
		}
	}
	p.sent("b:1", message(3, 9, 9), true) // the peer did not take it
	p.sent("b:1", message(3, 7, 6), false)
	tests := []struct {
		at   mark
		want bool
	}{
		{mark{index: 7, term: 3}, true},
		{mark{index: 7, term: 2}, true},  // an older entry, committed in term 3
		{mark{index: 7, term: 4}, false}, // raft has not spoken as leader of term 4
		{mark{index: 6, term: 3}, false}, // raft has said so itself
		{mark{index: 8, term: 3}, false}, // the peer cannot have it
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
	p.sent("b:1", message(4, 7, 0), false)
	if req, _, ok := p.request(mark{index: 7, term: 3}); !ok || req.Term != 4 {
		t.Errorf("after a new term: %+v %v", req, ok)
	}
}

// A commit that comes before its entry was sent to a slow peer is told after it.
func TestEarlyNudgeWaitsForItsEntry(t *testing.T) {
	t.Parallel()
	message := func(last, commit uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{Term: 3, LeaderCommitIndex: commit, Entries: []*raft.Log{{Index: last}}}
	}
	p := newPeer("b", &transport{})
	p.sent("b:1", message(5, 4), false)
	early := mark{index: 7, term: 3}
	for _, at := range []mark{{index: 6, term: 3}, early, {index: 6, term: 3}} {
		if _, _, ok := p.request(at); ok {
			t.Errorf("nudges for %d, which was not sent", at.index)
		}
	}
	p.sent("b:1", message(6, 5), false)
	if len(p.slot) != 0 {
		t.Error("nudges before the entry was sent")
	}
	p.sent("b:1", message(7, 5), false)
	if len(p.slot) != 1 {
		t.Fatal("forgot an early nudge")
	}
	at := <-p.slot
	if _, _, ok := p.request(at); at != early || !ok {
		t.Errorf("nudges %+v: %v", at, ok)
	}
	p.sent("b:1", message(8, 7), false) // raft has said it now
	if _, _, ok := p.request(at); ok || len(p.slot) != 0 {
		t.Error("nudges twice")
	}
}

// The nudge is safe because a follower takes it only with exactly that entry, from
// a leader that is not out of date.
func TestFollowerRefusesANudgeThatDoesNotFit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) {
		slowCommit(cfg)
		cfg.DisableNudge = true // only the ones of this test
	})
	leader := c.leader()
	follower := c.follower(leader)
	index := leader.propose("x") // the followers do not know that it is committed
	eventually(t, "the entry on the follower", func() bool { return follower.node.raft.LastIndex() >= index })
	term := leader.node.Status().Term
	before := follower.node.Status().Commit
	sender := header(leader.cfg.ID)
	sender.Addr = []byte(leader.node.Addr())
	send := func(nudgeTerm uint64, at mark) raft.AppendEntriesResponse {
		req := raft.AppendEntriesRequest{
			RPCHeader: sender, Term: nudgeTerm,
			PrevLogEntry: at.index, PrevLogTerm: at.term, LeaderCommitIndex: at.index,
		}
		var resp raft.AppendEntriesResponse
		must(t, leader.node.trans.NetworkTransport.AppendEntries(raft.ServerID(follower.cfg.ID), raft.ServerAddress(follower.node.Addr()), &req, &resp))
		return resp
	}
	for name, n := range map[string]struct {
		term uint64
		at   mark
	}{
		"entry of another term":       {term, mark{index: index, term: term - 1}},
		"entry that is not there yet": {term, mark{index: index + 1000, term: term}},
		"leader of an older term":     {term - 1, mark{index: index, term: term}},
	} {
		if resp := send(n.term, n.at); resp.Success {
			t.Errorf("%s: taken", name)
		}
		if got := follower.node.Status().Commit; got != before && !leader.hasTold(follower, index) {
			t.Errorf("%s: commit index %d became %d", name, before, got)
		}
	}
	if resp := send(term, mark{index: index, term: term}); !resp.Success {
		t.Error("the right one is refused")
	}
	follower.waitApplied(index)
}

func TestNudgeSlotKeepsTheLatest(t *testing.T) {
	t.Parallel()
	p := newPeer("b", &transport{})
	for i := range uint64(100) {
		p.nudge(mark{index: i}) // never blocks
	}
	p.nudge(mark{index: 50})
	if at := <-p.slot; at.index != 99 || len(p.slot) != 0 {
		t.Errorf("slot held %+v", at)
	}
}
