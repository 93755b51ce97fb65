package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// logFile is the log and the stable store, in the data directory.
const logFile = "raft.db"

// Role is what a node currently does.
type Role uint8

// The roles.
const (
	Follower Role = iota
	Candidate
	Leader
	Stopped
)

// String returns the role in lower case.
func (r Role) String() string {
	return [...]string{"follower", "candidate", "leader", "stopped"}[min(r, Stopped)]
}

// Status is a node's view of itself and of the cluster.
type Status struct {
	Role                       Role
	Term                       uint64
	LeaderID, LeaderAddr       string // empty when unknown
	Commit, Applied, LastIndex uint64
	// LastContact is how long ago a leader was heard: 0 on the leader, since
	// Open if never.
	LastContact time.Duration
	Members     []Member
}

// Node is one member of a cluster. Its methods may be called concurrently, and
// after Close too: they fail then.
type Node struct {
	cfg      Config
	log      *slog.Logger
	opened   time.Time
	counters counters

	failure   *failure
	applied   applied
	gate      *gate
	futures   futures
	queue     queue
	reads     reads
	transfers transfers
	changing  chan struct{} // held by the one change of the members under way
	removal   removal
	lead      leadership

	store   *store
	ahead   *ahead
	trans   *transport
	machine *machine
	raft    *raft.Raft

	ready   chan struct{} // closed when the fields above are set
	halted  chan struct{} // closed when raft is shutting down
	halting sync.Once
	ending  raft.Future     // of the shutdown; set by halting
	stopped <-chan struct{} // closed when the node stops working
	stop    context.CancelFunc

	closing  sync.Once
	closed   chan struct{} // closed when Close has done all it can
	closeErr error
}

// Open starts a node on its data directory. It returns ErrLocked if another
// process has the directory, and ErrCorrupt with advice if what is there cannot
// be trusted.
func Open(cfg Config, sm StateMachine) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	working, stop := context.WithCancel(context.Background())
	n := newNode(working, stop, cfg)
	if err := n.open(sm); err != nil {
		return nil, errors.Join(err, n.abandon())
	}
	n.queue.start(n.stopped, maxProposals)
	n.lead.start(working)
	return n, nil
}

// newNode returns a node without parts; working ends when stop is called.
func newNode(working context.Context, stop context.CancelFunc, cfg Config) *Node {
	n := &Node{
		cfg:      cfg,
		log:      cfg.Logger,
		opened:   time.Now(),
		failure:  newFailure(),
		gate:     newGate(maxProposals, maxProposalBytes),
		changing: make(chan struct{}, 1),
		ready:    make(chan struct{}),
		halted:   make(chan struct{}),
		closed:   make(chan struct{}),
		stopped:  working.Done(),
		stop:     stop,
	}
	n.futures.ended = make(chan struct{})
	n.queue = queue{
		apply:   func(data []byte, enqueue time.Duration) raft.ApplyFuture { return n.raft.Apply(data, enqueue) },
		futures: &n.futures,
		leave:   func(p *proposal) { n.gate.leave(len(p.data)) },
		wake:    make(chan struct{}, 1),
	}
	n.reads.barrier = func() (uint64, error) { return n.barrier(working) }
	n.transfers = transfers{limit: 3 * cfg.Timing.Election, fail: n.failure.fail}
	n.removal.id = raft.ServerID(cfg.ID)
	n.lead = leadership{
		id:       cfg.ID,
		log:      cfg.Logger,
		changes:  make(chan bool),
		terms:    make(chan context.Context, 1),
		lead:     cfg.Lead,
		barrier:  func(ctx context.Context) error { _, err := n.barrier(ctx); return err },
		term:     func() uint64 { return n.raft.CurrentTerm() },
		counters: &n.counters,
		retry:    cfg.Timing.Election / 4,
	}
	return n
}

// open builds the parts from the disk up. On an error the caller abandons n.
func (n *Node) open(sm StateMachine) error {
	if err := os.MkdirAll(n.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	listener, err := listen(n.cfg)
	if err != nil {
		return err
	}
	n.trans = newTransport(n.cfg, listener)
	n.store, err = openStore(n.cfg, &n.counters, n.trans.silence, n.failure.fail)
	if err != nil {
		return err
	}
	n.ahead = newAhead(n.store, n.shared, n.failure.done)
	n.trans.written = n.ahead.written
	snaps, err := openSnapshots(n.cfg, &n.counters)
	if err != nil {
		return err
	}
	n.machine = &machine{
		sm:       sm,
		applied:  &n.applied,
		counters: &n.counters,
		fail:     n.failure.fail,
		halted:   n.halted,
		ready:    n.ready,
		onApply:  n.onApply,
		onConfig: n.onConfig,
	}
	if err := restoreState(n.store, snaps, n.machine); err != nil {
		return err
	}
	err = n.startRaft(snaps)
	if n.raft != nil {
		n.watchLeaders()
		n.removal.seen(n.configuration())
	}
	close(n.ready)
	return errors.Join(err, n.failure.arm(n.fall))
}

// shared tells whether a commit takes another voter beside this node. The
// configuration is the one in use when raft's main goroutine asks.
func (n *Node) shared() bool {
	select {
	case <-n.ready:
	default:
		return false
	}
	voters := 0
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters > 1
}

// restoreState restores the newest snapshot that can be trusted.
func restoreState(s *store, snaps *snapshots, m *machine) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	restored, err := snaps.restore(m, first, last)
	if err != nil {
		return err
	}
	return s.covers(restored)
}

// startRaft starts raft on a goroutine of its own, which a failing store may end,
// and turns into an error what raft takes for a reason to panic.
func (n *Node) startRaft(snaps *snapshots) error {
	cached, err := raft.NewLogCache(logCache, n.ahead)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.store.live.Store(true)
	done := make(chan error, 1)
	go func() {
		defer close(done)
		err := guardPanic(func() (err error) {
			n.raft, err = raft.NewRaft(n.cfg.raftConfig(n.lead.changes), n.machine, cached, n.store, snaps, n.trans)
			return err
		})
		if err != nil {
			done <- fmt.Errorf("start raft: %w", err)
		}
	}()
	return <-done
}

// guardPanic turns a panic into an error.
func guardPanic(op func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v; %s", ErrCorrupt, p, adviceRejoin)
		}
	}()
	return op()
}

// watchLeaders counts the leaders seen. The observer's filter is called by raft
// itself, so nothing can be dropped.
func (n *Node) watchLeaders() {
	n.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if leader, ok := o.Data.(raft.LeaderObservation); ok && leader.LeaderID != "" {
			n.counters.leaderChanges.Add(1)
		}
		return false
	}))
}

// onApply runs after each batch, on the state machine's goroutine.
func (n *Node) onApply(at mark) {
	if n.raft.State() == raft.Leader {
		n.trans.nudge(at)
	}
}

// fall is what follows a failure: silence, and the end of everything that runs.
func (n *Node) fall(cause error) {
	n.trans.poison()
	n.log.Error("consensus has failed; the process must exit", "error", cause)
	n.halt()
	n.cfg.OnFatal(cause)
}

// halt stops raft without waiting for it, and returns what to wait for. Only
// the first call of raft's Shutdown returns a future that waits.
func (n *Node) halt() raft.Future {
	n.stop()
	n.halting.Do(func() {
		n.ending = n.raft.Shutdown()
		close(n.halted)
	})
	return n.ending
}

// Status returns what this node knows of itself and of the cluster.
func (n *Node) Status() Status {
	addr, id := n.raft.LeaderWithID()
	s := Status{
		Term:       n.raft.CurrentTerm(),
		LeaderID:   string(id),
		LeaderAddr: string(addr),
		Commit:     n.raft.CommitIndex(),
		Applied:    n.applied.index.Load(),
		LastIndex:  n.raft.LastIndex(),
		Members:    n.Members(),
	}
	contact := n.opened
	if at := n.raft.LastContact(); !at.IsZero() {
		contact = at
	}
	switch n.raft.State() {
	case raft.Leader:
		s.Role = Leader
		return s
	case raft.Candidate:
		s.Role = Candidate
	case raft.Shutdown:
		s.Role = Stopped
	default:
		s.Role = Follower
	}
	s.LastContact = time.Since(contact)
	return s
}

// LeaderID returns the leader's id, as Status does; empty when unknown.
func (n *Node) LeaderID() string {
	_, id := n.raft.LeaderWithID()
	return string(id)
}

// Addr returns the address under which other members reach this node.
func (n *Node) Addr() string { return string(n.trans.LocalAddr()) }

// Close lets nothing new in, waits for what is under way, hands the leadership
// over if this node has it, and stops. ctx bounds the waiting, not the stopping:
// when it ends, or while the disk hangs, Close returns an error and the stopping
// goes on. A later call waits for the same end. It must not be called from Lead,
// OnFatal or the state machine, which it waits for.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() { go n.close(ctx) })
	select {
	case <-n.closed:
		return n.closeErr
	case <-ctx.Done():
		return fmt.Errorf("close consensus: %w", ctx.Err())
	}
}

// close ends everything, in the order in which one waits for the other.
func (n *Node) close(ctx context.Context) {
	defer close(n.closed)
	n.gate.close()
	n.handOver(ctx)
	future := n.halt()
	cutErr := n.trans.cut()
	_ = future.Error()
	n.futures.end()
	n.lead.wg.Wait()
	n.reads.close()
	n.queue.wg.Wait()
	<-n.gate.drained
	n.removal.wg.Wait()
	n.trans.wait()
	n.failure.wait()
	n.ahead.stop()
	n.closeErr = errors.Join(cutErr, n.store.close())
}

// handOver waits for what is under way, which a transfer would leave with an
// unknown outcome, and transfers the leadership, so that the others need not
// find out first that it is gone.
func (n *Node) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 4*n.cfg.Timing.Election)
	defer cancel()
	select {
	case <-n.gate.drained:
	case <-n.failure.done:
	case <-ctx.Done():
	}
	if n.admit(ctx) != nil {
		return
	}
	if err := n.transfer(ctx, "", func() {}); err != nil {
		n.log.Info("closing without a successor", "reason", err)
	}
}

// abandon undoes an open that failed half way.
func (n *Node) abandon() error {
	n.stop()
	var err error
	if n.raft != nil {
		n.halt()
	}
	if n.trans != nil {
		err = n.trans.cut()
	}
	if n.raft != nil {
		_ = n.ending.Error()
		n.removal.wg.Wait()
	}
	if n.trans != nil {
		n.trans.wait()
	}
	if n.ahead != nil {
		n.ahead.stop()
	}
	if n.store != nil {
		err = errors.Join(err, n.store.close())
	}
	return err
}

// logPath returns where the log is.
func (c Config) logPath() string { return filepath.Join(c.DataDir, logFile) }
