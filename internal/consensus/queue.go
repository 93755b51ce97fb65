package consensus

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// queue hands proposals to raft in groups. raft's main goroutine writes whatever
// it finds when it looks: of a burst it would find the first proposal, write that
// one alone, and keep all others waiting for a whole write to disk. So proposals
// are collected here for one turn of the scheduler and handed over together.
//
// One goroutine hands over, another one waits for the futures, in the order of
// the log. raft may settle a later future first only when it refuses it, and an
// earlier one is then about to be settled too.
type queue struct {
	apply   func(data []byte, enqueue time.Duration) raft.ApplyFuture
	futures *futures
	leave   func(*proposal) // called once for each, when raft is done with it
	wake    chan struct{}   // there is something in waiting
	handed  chan *proposal
	wg      sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	waiting []*proposal
	closed  bool
}

// proposal is one command on its way. Its outcome is there when done is closed.
type proposal struct {
	data   []byte
	done   chan struct{}
	future raft.ApplyFuture
	err    error

	fate atomic.Int32 // one of the fates below
}

// A proposal is queued until it is either handed to raft or withdrawn.
const (
	fateQueued = iota
	fateHanded
	fateWithdrawn
)

func newProposal(data []byte) *proposal { return &proposal{data: data, done: make(chan struct{})} }

// withdraw tells whether the proposal will never reach raft.
func (p *proposal) withdraw() bool {
	p.fate.CompareAndSwap(fateQueued, fateWithdrawn)
	return p.fate.Load() == fateWithdrawn
}

// start runs until stop is closed. More than capacity proposals must not be
// under way.
func (q *queue) start(stop <-chan struct{}, capacity int) {
	q.handed = make(chan *proposal, capacity)
	q.wg.Go(func() { q.hand(stop) })
	q.wg.Go(q.settle)
}

// add queues a proposal; false once the queue is closed.
func (q *queue) add(p *proposal) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.waiting = append(q.waiting, p)
	if len(q.waiting) == 1 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// hand hands groups to raft. It blocks while raft's main goroutine is busy, at
// most until raft shuts down.
func (q *queue) hand(stop <-chan struct{}) {
	defer close(q.handed)
	for {
		select {
		case <-q.wake:
			q.handGroup(q.group())
		case <-stop:
			q.close()
			return
		}
	}
}

func (q *queue) handGroup(group []*proposal) {
	deadline := time.Now().Add(enqueueTimeout)
	for _, p := range group {
		if !p.fate.CompareAndSwap(fateQueued, fateHanded) {
			q.leave(p)
			continue
		}
		// raft takes zero for no limit.
		p.future = q.apply(p.data, max(time.Until(deadline), time.Millisecond))
		q.handed <- p
	}
}

// group takes everything that waits, as soon as a turn of the scheduler has
// brought nothing new: while there is work for the processors it runs first, and
// on an idle machine the turn takes no time.
func (q *queue) group() []*proposal {
	for before := 0; ; {
		runtime.Gosched()
		q.mu.Lock()
		if now := len(q.waiting); now > before && now < maxAppendEntries {
			before = now
			q.mu.Unlock()
			continue
		}
		group := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		return group
	}
}

// close refuses what waits and what comes.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	waiting := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	for _, p := range waiting {
		p.withdraw()
		q.leave(p)
		close(p.done)
	}
}

// settle waits for the futures.
func (q *queue) settle() {
	for p := range q.handed {
		p.err = q.futures.wait(p.future)
		q.leave(p)
		close(p.done)
	}
}
