package consensus

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// nudgeRetry is when a refused nudge is repeated: the entry may still be under
// way to that follower.
const nudgeRetry = 2 * time.Millisecond

// mark names a committed entry.
type mark struct{ index, term uint64 }

// peer is another member as this node's messages see it. It carries the commit
// nudge: raft tells followers of a commit only with its next append, 50 to 100 ms
// later on an idle cluster. As soon as the leader applied an entry, the nudge
// sends an ordinary append without entries that says so.
//
// Why this is safe: the term is one in which raft itself sent appends to this
// peer, so this node led it. The previous entry is the committed one, so whoever
// accepts holds exactly the leader's log up to there, and learns no other commit
// index than that. A follower of a newer term, or without that entry, refuses. To
// raft it is a message that was sent by the leader of that term, maybe late.
type peer struct {
	id        raft.ServerID
	transport *transport
	slot      chan mark // the newest commit to tell; filled under mu
	quit      chan struct{}
	quitOnce  sync.Once

	appendFailures, strangers       atomic.Uint64
	nudges, retries, losses, spared atomic.Uint64

	mu      sync.Mutex // guards the fields below
	target  raft.ServerAddress
	last    raft.AppendEntriesRequest // header and term that raft sent last, without entries
	commit  uint64                    // highest commit index that raft sent in that term
	reached uint64                    // highest entry that raft sent in that term
	early   mark                      // a commit that came before its entry was sent; zero if none
	lastLog uint64
	heardAt time.Time
}

func newPeer(id raft.ServerID, t *transport) *peer {
	return &peer{id: id, transport: t, slot: make(chan mark, 1), quit: make(chan struct{})}
}

func (p *peer) stop() { p.quitOnce.Do(func() { close(p.quit) }) }

// sent remembers a message that raft sent as leader; refused tells that the peer
// has not taken what was in it.
func (p *peer) sent(target raft.ServerAddress, req *raft.AppendEntriesRequest, refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	if req.Term != p.last.Term {
		p.last = raft.AppendEntriesRequest{RPCHeader: req.RPCHeader, Term: req.Term}
		p.commit, p.reached = 0, 0
	}
	if refused {
		return
	}
	p.commit = max(p.commit, req.LeaderCommitIndex)
	p.reached = max(p.reached, req.PrevLogEntry)
	if n := len(req.Entries); n > 0 {
		p.reached = max(p.reached, req.Entries[n-1].Index)
	}
	if p.early.index > 0 && p.early.index <= p.reached {
		p.offer(p.early)
		p.early = mark{}
	}
}

// answered returns err, or an error if there is an answer and it is of another server
// than the peer.
func (p *peer) answered(target raft.ServerAddress, header *raft.RPCHeader, err error) error {
	if err != nil || len(header.ID) == 0 || raft.ServerID(header.ID) == p.id || seam.Bug(seam.StrangersAnswer) {
		return err
	}
	p.strangers.Add(1)
	return fmt.Errorf("ask %s at %s: %w: %s", p.id, target, errStranger, header.ID)
}

// heard remembers an answer.
func (p *peer) heard(resp *raft.AppendEntriesResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastLog, p.heardAt = resp.LastLog, time.Now()
}

// nudge has the peer told of a commit, soon. It never waits for the network.
func (p *peer) nudge(at mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offer(at)
}

// offer puts a commit in the slot, in place of an older one. It never blocks. The
// caller holds p.mu.
func (p *peer) offer(at mark) {
	select {
	case old := <-p.slot:
		if old.index > at.index {
			at = old
		}
	default:
	}
	p.slot <- at // nobody else fills it
}

func (p *peer) run() {
	for {
		select {
		case at := <-p.slot:
			p.tell(at)
		case <-p.quit:
			return
		}
	}
}

// tell nudges, and once more if the follower refused and nothing newer came.
func (p *peer) tell(at mark) {
	if p.try(at) {
		return
	}
	timer := time.NewTimer(nudgeRetry)
	defer timer.Stop()
	select {
	case <-p.quit:
		return
	case <-timer.C:
	}
	if len(p.slot) > 0 {
		return // run tells the newer one, which says more
	}
	p.retries.Add(1)
	if !p.try(at) {
		p.losses.Add(1)
	}
}

// try sends one nudge; false asks for another.
func (p *peer) try(at mark) bool {
	req, target, ok := p.request(at)
	if !ok || p.transport.silent() {
		p.spared.Add(1)
		return true
	}
	p.nudges.Add(1)
	var resp raft.AppendEntriesResponse
	if err := p.transport.NetworkTransport.AppendEntries(p.id, target, &req, &resp); err != nil {
		p.losses.Add(1)
		return true // raft's own messages find out what is wrong
	}
	p.heard(&resp)
	return resp.Success || resp.Term > req.Term
}

// request builds the nudge, unless raft has said as much already, or has never
// spoken to this peer in the term of the entry or a later one. A peer that has
// not been sent the entry would refuse; it is nudged once it has, unless the
// message with the entry tells of its commit too.
func (p *peer) request(at mark) (raft.AppendEntriesRequest, raft.ServerAddress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	req := p.last
	if req.Term < at.term || p.commit >= at.index {
		return req, "", false
	}
	if p.reached < at.index {
		if p.early.index < at.index {
			p.early = at
		}
		return req, "", false
	}
	req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex = at.index, at.term, at.index
	return req, p.target, true
}

func (p *peer) metrics() PeerMetrics {
	p.mu.Lock()
	lastLog := p.lastLog
	p.mu.Unlock()
	return PeerMetrics{
		AppendFailures: p.appendFailures.Load(),
		Strangers:      p.strangers.Load(),
		NudgesSent:     p.nudges.Load(),
		NudgesRetried:  p.retries.Load(),
		NudgesFailed:   p.losses.Load(),
		NudgesSpared:   p.spared.Load(),
		LastLog:        lastLog,
	}
}
