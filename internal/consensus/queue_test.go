package consensus

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// testQueue returns a queue that hands proposals to apply and is not started.
func testQueue(apply func(data []byte) raft.ApplyFuture) (q *queue, left *atomic.Int32) {
	left = new(atomic.Int32)
	return &queue{
		apply:   func(data []byte, _ time.Duration) raft.ApplyFuture { return apply(data) },
		futures: &futures{ended: make(chan struct{})},
		leave:   func(*proposal) { left.Add(1) },
		wake:    make(chan struct{}, 1),
	}, left
}

// settled is a future that is there at once.
type settled struct{ err error }

func (s settled) Error() error  { return s.err }
func (s settled) Index() uint64 { return 1 }
func (s settled) Response() any { return nil }

// A burst must become one write: raft itself would write its first proposal alone.
//
//nolint:paralleltest // changes GOMAXPROCS
func TestBurstIsOneGroup(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // makes the order of goroutines predictable
	q, _ := testQueue(nil)
	const burst = 20
	q.add(newProposal(nil))
	for range burst - 1 {
		go q.add(newProposal(nil)) // as if woken by the same write
	}
	if got := len(q.group()); got != burst {
		t.Errorf("a burst of %d became a group of %d", burst, got)
	}
	q.add(newProposal(nil))
	if got := len(q.group()); got != 1 {
		t.Errorf("a single proposal became a group of %d", got)
	}
}

func TestGroupReachesTheDiskInOneWrite(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	hold := &trap{op: "StoreLogs", hold: make(chan struct{})}
	c := newCluster(t, 1, func(cfg *Config) {
		disks(of)(cfg)
		of[cfg.ID].before = hold.spring
	})
	s := c.leader()
	s.propose("before")
	writes := s.node.Metrics().StoreLogs.Count
	hold.on.Store(true)
	const burst = 40
	var wg sync.WaitGroup
	for i := range burst + 1 {
		wg.Go(func() { s.propose(fmt.Sprint(i)) })
		if i == 0 { // the disk is busy with the first one
			eventually(t, "the first write", func() bool { return s.node.raft.LastIndex() > 0 && hold.held.Load() })
		}
	}
	eventually(t, "all to be handed over", func() bool { return len(s.node.queue.handed) == burst })
	hold.on.Store(false)
	close(hold.hold)
	wg.Wait()
	if got := s.node.Metrics().StoreLogs.Count - writes; got != 2 {
		t.Errorf("%d writes for one proposal and the %d that came meanwhile", got, burst)
	}
}

func TestWithdrawnProposalsAreNotHanded(t *testing.T) {
	t.Parallel()
	var handed []string
	q, left := testQueue(func(data []byte) raft.ApplyFuture {
		handed = append(handed, string(data))
		return settled{}
	})
	a, b := newProposal([]byte("a")), newProposal([]byte("b"))
	q.add(a)
	q.add(b)
	if first, again := a.withdraw(), a.withdraw(); !first || !again {
		t.Error("a queued proposal cannot be withdrawn")
	}
	stop := make(chan struct{})
	q.start(stop, 10)
	<-b.done
	if b.withdraw() || !slices.Equal(handed, []string{"b"}) {
		t.Errorf("handed %v", handed)
	}
	close(stop)
	q.wg.Wait()
	if q.add(newProposal(nil)) {
		t.Error("a closed queue takes a proposal")
	}
	if got := left.Load(); got != 2 {
		t.Errorf("%d of 2 have left", got)
	}
}

func TestClosedQueueRefusesWhatWaits(t *testing.T) {
	t.Parallel()
	q, left := testQueue(func([]byte) raft.ApplyFuture { return settled{} })
	p := newProposal(nil)
	q.add(p)
	<-q.wake // nobody hands it over
	stop := make(chan struct{})
	close(stop)
	q.start(stop, 1)
	<-p.done
	q.wg.Wait()
	if !p.withdraw() || left.Load() != 1 {
		t.Errorf("handed over; %d have left", left.Load())
	}
}

// While raft's main goroutine is busy, a proposal whose context ends has
// certainly not been written; one that is being handed over may be.
func TestContextEndsWhileQueued(t *testing.T) {
	t.Parallel()
	var handed []string
	busy, taken := make(chan struct{}), make(chan struct{})
	q, left := testQueue(func(data []byte) raft.ApplyFuture {
		handed = append(handed, string(data))
		if len(handed) == 1 {
			close(taken)
			<-busy
		}
		return settled{raft.ErrLeadershipLost}
	})
	stop := make(chan struct{})
	q.start(stop, 10)
	n := &Node{failure: newFailure()}
	first, second := newProposal([]byte("first")), newProposal([]byte("second"))
	q.add(first)
	<-taken
	q.add(second)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.outcome(ended, first); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("on its way: %v", err)
	}
	if err := n.outcome(ended, second); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("queued: %v", err)
	}
	close(busy)
	<-first.done
	if err := n.outcome(ended, first); !errors.Is(err, raft.ErrLeadershipLost) {
		t.Errorf("settled before the context was looked at: %v", err)
	}
	eventually(t, "both to leave", func() bool { return left.Load() == 2 })
	close(stop)
	q.wg.Wait()
	if !slices.Equal(handed, []string{"first"}) {
		t.Errorf("handed %v", handed)
	}
}

// Whatever raft still owes when it ends is settled: nobody waits for ever.
func TestFuturesEndWithRaft(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	sick := &trap{op: "StoreLogs", err: syscall.EIO}
	c := newCluster(t, 1, func(cfg *Config) {
		disks(of)(cfg)
		of[cfg.ID].before = sick.spring
	})
	s := c.leader()
	n := s.node
	sick.on.Store(true)
	// raft's main goroutine ends at this write, and takes nothing any more.
	if _, _, err := n.Propose(testCtx(t), []byte("x")); err == nil {
		t.Error("a write on a sick disk")
	}
	s.expectFatal(syscall.EIO)
	owed := []func() raft.Future{
		func() raft.Future { return n.raft.Apply([]byte("y"), 0) },
		func() raft.Future { return n.raft.Barrier(0) },
		func() raft.Future { return n.raft.LeadershipTransferToServer("b", "b:1") },
		func() raft.Future { return n.raft.RemoveServer("b", 0, 0) },
		func() raft.Future { return n.raft.BootstrapCluster(raft.Configuration{}) },
	}
	ended := make(chan error, len(owed))
	for _, start := range owed {
		go func() { ended <- n.futures.wait(start()) }()
	}
	must(t, n.Close(testCtx(t)))
	for range owed {
		select {
		case err := <-ended:
			if !errors.Is(err, raft.ErrRaftShutdown) {
				t.Errorf("future: %v", err)
			}
		case <-testCtx(t).Done():
			t.Fatal("a future never ends")
		}
	}
}

// What raft did not take has a definite outcome.
func TestClassify(t *testing.T) {
	t.Parallel()
	s := newCluster(t, 1, nil).leader()
	n := s.node
	tests := []struct {
		err  error
		want error
	}{
		{nil, nil},
		{n.futures.wait(settled{raft.ErrEnqueueTimeout}), ErrUnavailable},
		{n.futures.wait(settled{raft.ErrRaftShutdown}), ErrUnavailable},
		{raft.ErrLeadershipTransferInProgress, ErrUnavailable},
		{raft.ErrLeadershipLost, ErrUnknownOutcome},
		{raft.ErrRaftShutdown, ErrUnknownOutcome},
		{raft.ErrAbortedByRestore, ErrUnknownOutcome},
		{syscall.EIO, ErrUnknownOutcome},
	}
	n.transfers.settled = time.Now() // else the refusal would be taken for a stuck transfer
	for _, test := range tests {
		got := n.classify(test.err)
		if !errors.Is(got, test.want) || !errors.Is(got, test.err) {
			t.Errorf("%v is %v, want %v", test.err, got, test.want)
		}
		if errors.Is(got, ErrUnknownOutcome) && errors.Is(got, ErrUnavailable) {
			t.Errorf("%v is both definite and unknown: %v", test.err, got)
		}
	}
	if got := n.classify(raft.ErrNotLeader); !isNotLeader(got, s) {
		t.Errorf("not leader is %v", got)
	}
}

func TestCloseWhileTheDiskHangs(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	hold := &trap{op: "StoreLogs", hold: make(chan struct{})}
	c := newCluster(t, 1, func(cfg *Config) {
		disks(of)(cfg)
		of[cfg.ID].before = hold.spring
	})
	s := c.leader()
	hold.on.Store(true)
	stuck := make(chan error, 1)
	go func() {
		_, _, err := s.node.Propose(context.Background(), []byte("stuck"))
		stuck <- err
	}()
	eventually(t, "the write", hold.held.Load)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := s.node.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		cancel()
	}
	hold.on.Store(false)
	close(hold.hold)
	must(t, s.node.Close(testCtx(t))) // waits for the same end
	if err := <-stuck; err != nil && !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("propose: %v", err)
	}
}
