package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// errSilent is what raft gets for every message while the node is silent.
var errSilent = errors.New("this node is silent: its disk hangs or failed")

// errStranger is what raft gets when another server answers than it asked.
var errStranger = errors.New("another server answers at this address")

// transport is raft's network transport, hardened:
//
//   - Heartbeats go through raft's main goroutine like any other message. Raft
//     would handle them on the connection's goroutine, which can change the term
//     under a leader that is writing, so that it writes an entry in a term that
//     it does not lead.
//   - While silent nothing leaves, so that a leader with a hanging disk loses
//     its followers.
//   - It remembers what raft sent to each peer, which the commit nudge needs.
//   - It holds back an answer about entries that this disk does not have yet,
//     see ahead.
//   - It takes no answer of another server than the one that was asked. Raft knows
//     servers by their addresses: at the address of one that lost its disk an empty
//     one answers, and its votes and acknowledgements would count as those of the
//     old one, which had entries that the empty one has not.
type transport struct {
	*raft.NetworkTransport
	stream     *stream
	nudging    bool
	transferIn time.Duration // bounds TimeoutNow
	linger     time.Duration // for which a removed member is still told that it is one
	// written waits until this disk has an entry; false if it will not.
	written func(index uint64, quit <-chan struct{}) bool

	hanging atomic.Int32 // writes that hang
	mute    atomic.Bool  // for good

	wg sync.WaitGroup // goroutines of peers and calls; added to under mu while not closed

	mu     sync.Mutex // guards the fields below
	peers  map[raft.ServerID]*peer
	gone   map[raft.ServerID]time.Time // no members any more, and when to forget them
	closed bool
}

// The embedded type brings pre-vote and close; losing them would be silent.
var _ interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
} = (*transport)(nil)

func newTransport(cfg Config, s *stream) *transport {
	inner := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  s,
		MaxPool: 3, // appends, heartbeats, nudges
		Timeout: rpcTimeout,
		Logger:  newLogger(cfg.Logger),
	})
	return &transport{
		NetworkTransport: inner,
		stream:           s,
		nudging:          !cfg.DisableNudge,
		transferIn:       cfg.Timing.Election,
		linger:           cfg.Timing.Heartbeat,
		written:          func(uint64, <-chan struct{}) bool { return true },
		peers:            make(map[raft.ServerID]*peer),
		gone:             make(map[raft.ServerID]time.Time),
	}
}

// SetHeartbeatHandler ignores the handler: there is no fast path.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// silence counts the writes that hang; the node is silent while there are any.
func (t *transport) silence(on bool) {
	if on {
		t.hanging.Add(1)
	} else {
		t.hanging.Add(-1)
	}
}

// poison silences the node for good.
func (t *transport) poison() { t.mute.Store(true) }

func (t *transport) silent() bool { return t.mute.Load() || t.hanging.Load() > 0 }

// AppendEntries sends raft's heartbeats and appends.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	p := t.peer(id)
	if t.silent() {
		return errSilent
	}
	trim(req)
	err := t.NetworkTransport.AppendEntries(id, target, req, resp)
	if err = p.answered(target, &resp.RPCHeader, err); err != nil {
		p.appendFailures.Add(1)
		return err
	}
	if n := len(req.Entries); n > 0 && !t.written(req.Entries[n-1].Index, nil) {
		return errSilent
	}
	p.sent(target, req, !resp.Success)
	p.heard(resp)
	return nil
}

// AppendEntriesPipeline opens a pipeline whose messages are remembered too.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	if t.silent() {
		return nil, errSilent
	}
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{
		AppendPipeline: inner, transport: t, id: id, target: target,
		answers: make(chan raft.AppendFuture), quit: make(chan struct{}),
	}
	if !t.spawn(p.forward) {
		return nil, errors.Join(errSilent, inner.Close())
	}
	return p, nil
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.silent() {
		return errSilent
	}
	err := t.NetworkTransport.RequestVote(id, target, req, resp)
	return t.peer(id).answered(target, &resp.RPCHeader, err)
}

// RequestPreVote asks whether a vote would be given.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.silent() {
		return errSilent
	}
	err := t.NetworkTransport.RequestPreVote(id, target, req, resp)
	return t.peer(id).answered(target, &resp.RPCHeader, err)
}

// InstallSnapshot sends a snapshot.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if t.silent() {
		return errSilent
	}
	err := t.NetworkTransport.InstallSnapshot(id, target, req, resp, data)
	return t.peer(id).answered(target, &resp.RPCHeader, err)
}

// TimeoutNow hands the leadership over. It returns within an election timeout:
// raft refuses all writes until it returns, even when the transfer has failed.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if t.silent() {
		return errSilent
	}
	var answer raft.TimeoutNowResponse
	done := make(chan error, 1)
	if !t.spawn(func() { done <- t.NetworkTransport.TimeoutNow(id, target, req, &answer) }) {
		return errSilent
	}
	timer := time.NewTimer(t.transferIn)
	defer timer.Stop()
	select {
	case err := <-done:
		*resp = answer
		return err
	case <-timer.C:
		return fmt.Errorf("hand leadership to %s: no answer within %v", id, t.transferIn)
	}
}

// spawn runs f on a goroutine that wait waits for; false once closed.
func (t *transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// peer returns what is known of a member, and begins to know it. After close it
// returns a stranger, so that nothing new is started, and for a member that was
// removed some time ago: raft goes on trying to reach it for a while.
func (t *transport) peer(id raft.ServerID) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	forgotten := t.forget(id)
	p := t.peers[id]
	if p == nil {
		p = newPeer(id, t)
		if !t.closed && !forgotten {
			t.peers[id] = p
			if t.nudging {
				t.wg.Go(p.run)
			}
		}
	}
	return p
}

// retain takes note of the members. A peer that is none any more is forgotten,
// but not at once: it has yet to learn that its removal is committed.
func (t *transport) retain(members raft.Configuration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.peers {
		if _, leaving := t.gone[id]; !leaving && !hasServer(members, id) {
			t.gone[id] = time.Now().Add(t.linger)
		}
	}
	for _, s := range members.Servers {
		delete(t.gone, s.ID)
	}
}

// forget tells whether a peer is none any more, and lets go of it then. The caller
// holds t.mu.
func (t *transport) forget(id raft.ServerID) bool {
	at, leaving := t.gone[id]
	if !leaving || time.Now().Before(at) {
		return false
	}
	if p := t.peers[id]; p != nil {
		delete(t.peers, id)
		p.stop()
	}
	return true
}

// nudge tells the peers that the entry of that index and term is committed.
func (t *transport) nudge(at mark) {
	if !t.nudging {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.peers {
		if !t.forget(id) {
			p.nudge(at)
		}
	}
}

// lastLog returns the last index that a member reported, and when.
func (t *transport) lastLog(id raft.ServerID) (index uint64, at time.Time) {
	t.mu.Lock()
	p := t.peers[id]
	t.mu.Unlock()
	if p == nil {
		return 0, time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastLog, p.heardAt
}

func (t *transport) peerMetrics() map[string]PeerMetrics {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[string]PeerMetrics, len(t.peers))
	for id, p := range t.peers {
		if _, leaving := t.gone[id]; !leaving {
			m[string(id)] = p.metrics()
		}
	}
	return m
}

// cut closes every connection and lets nothing new begin. raft's goroutines come
// back from their calls; wait waits for everything else.
func (t *transport) cut() error {
	t.mu.Lock()
	t.closed = true
	for _, p := range t.peers {
		p.stop()
	}
	t.mu.Unlock()
	return t.Close()
}

// wait returns when every goroutine of the transport has ended, after cut.
func (t *transport) wait() {
	t.wg.Wait()
	t.stream.handlers.Wait()
}

// pipeline is raft's fast path for appends.
type pipeline struct {
	raft.AppendPipeline
	transport *transport
	id        raft.ServerID
	target    raft.ServerAddress

	answers chan raft.AppendFuture
	quit    chan struct{} // closed by Close
	once    sync.Once
}

// forward hands over the follower's answers, each once this disk has the entries
// that it is about.
func (p *pipeline) forward() {
	arrived := p.AppendPipeline.Consumer()
	for {
		select {
		case answer := <-arrived:
			if p.transport.peer(p.id).answered(p.target, &answer.Response().RPCHeader, answer.Error()) != nil {
				_ = p.AppendPipeline.Close() // raft goes on with single messages, and learns why
				return
			}
			entries := answer.Request().Entries
			if n := len(entries); n > 0 && !p.transport.written(entries[n-1].Index, p.quit) {
				_ = p.AppendPipeline.Close() // raft may be waiting for room in it
				return
			}
			select {
			case p.answers <- answer:
			case <-p.quit:
				return
			}
		case <-p.quit:
			return
		}
	}
}

// Consumer returns the answers.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close ends the pipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.quit) })
	return p.AppendPipeline.Close()
}

// AppendEntries sends without waiting for the answer.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.transport.silent() {
		return nil, errSilent
	}
	trim(req)
	to := p.transport.peer(p.id) // which may become a member only while the pipeline is open
	future, err := p.AppendPipeline.AppendEntries(req, resp)
	if err != nil {
		to.appendFailures.Add(1)
		return nil, err
	}
	to.sent(p.target, req, false)
	return future, nil
}

// trim bounds the size of a message that carries several entries. raft goes on
// after the last entry that it finds in the message when it has been sent.
func trim(req *raft.AppendEntriesRequest) {
	size := 0
	for i, l := range req.Entries {
		if size += len(l.Data); size > maxAppendBytes && i > 0 {
			req.Entries = req.Entries[:i]
			return
		}
	}
}

func hasServer(members raft.Configuration, id raft.ServerID) bool {
	for _, s := range members.Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}
