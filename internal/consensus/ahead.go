package consensus

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// maxPending and maxPendingBytes bound what a leader has sent and not yet
	// written; more waits for the disk.
	maxPending      = 1024
	maxPendingBytes = 8 << 20
)

// ahead is a log whose leader writes to its own disk while its followers write to
// theirs, instead of before (Ongaro's dissertation, 10.2.1). raft itself writes
// first and sends afterwards, so that every commit takes two disks in a row.
//
// Why this is safe: raft counts a leader's own entry as written as soon as StoreLogs
// returns. With two voters or more that alone commits nothing; it takes the answer of a
// follower, and the transport holds back each answer about entries that this disk does
// not have yet (see written). So whatever is committed is on the disks of a quorum, this
// one included. With one voter, for changes of the membership, and on a follower,
// StoreLogs writes before it returns. A crash loses no more than a crash just before
// the write would have.
//
// What follows depends on the order: entries are written as they were appended, and
// before anything is removed or appended by another leader.
type ahead struct {
	*store

	shared func() bool     // whether a commit takes another voter; called by raft's main goroutine
	failed <-chan struct{} // closed when the store has failed
	wake   chan struct{}   // capacity 1: there is something to write
	quit   chan struct{}
	done   chan struct{}

	mu      sync.Mutex // guards the fields below
	pending []*raft.Log
	bytes   int           // of the data that is pending
	changed chan struct{} // closed and replaced whenever pending shrinks
	held    int           // answers that are held back
}

// newAhead returns a log over s and starts its writer.
func newAhead(s *store, shared func() bool, failed <-chan struct{}) *ahead {
	a := &ahead{
		store: s, shared: shared, failed: failed, wake: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
	}
	go a.run()
	return a
}

// stop ends the writer, after raft has stopped. What is pending then has not been
// acknowledged to anybody.
func (a *ahead) stop() {
	close(a.quit)
	<-a.done
}

// run writes what is pending, everything there is at a time.
func (a *ahead) run() {
	defer close(a.done) // also when a failing store ends this goroutine
	for {
		select {
		case <-a.wake:
		case <-a.quit:
			return
		}
		for {
			batch := a.batch()
			if len(batch) == 0 {
				break
			}
			if a.store.StoreLogs(batch) != nil {
				return
			}
			a.drop(len(batch))
		}
	}
}

func (a *ahead) batch() []*raft.Log {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pending)
}

// drop removes what has been written.
func (a *ahead) drop(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.pending[:n] {
		a.bytes -= len(l.Data)
	}
	a.pending = append(a.pending[:0], a.pending[n:]...)
	close(a.changed)
	a.changed = make(chan struct{})
}

// StoreLog appends one entry.
func (a *ahead) StoreLog(l *raft.Log) error { return a.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries: a leader's own to what is pending, others to the disk.
func (a *ahead) StoreLogs(logs []*raft.Log) error {
	if !a.mayWait(logs) {
		if err := a.flush(); err != nil {
			return err
		}
		return a.store.StoreLogs(logs)
	}
	for _, l := range logs {
		sealLog(l)
	}
	if err := a.await(func() bool { return len(a.pending)+len(logs) <= maxPending && a.bytes < maxPendingBytes }); err != nil {
		return err
	}
	a.mu.Lock()
	a.pending = append(a.pending, logs...)
	for _, l := range logs {
		a.bytes += len(l.Data)
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

// mayWait tells whether entries may be sent before they are on this disk.
func (a *ahead) mayWait(logs []*raft.Log) bool {
	for _, l := range logs {
		if len(l.Extensions) > 0 || l.Type == raft.LogConfiguration {
			return false // another leader's, or the quorum changes with it
		}
	}
	return a.shared()
}

// await waits until a condition on what is pending holds. A failed disk is the
// end, as it is for the store.
func (a *ahead) await(ok func() bool) error {
	for {
		if a.store.failed.Load() {
			return a.down(errStoreDown)
		}
		a.mu.Lock()
		met, changed := ok(), a.changed
		a.mu.Unlock()
		if met {
			return nil
		}
		select {
		case <-changed:
		case <-a.failed:
			return a.down(errStoreDown)
		}
	}
}

// flush waits until nothing is pending.
func (a *ahead) flush() error { return a.await(func() bool { return len(a.pending) == 0 }) }

// written returns true once this disk has the entry of that index, and false if quit
// is closed or the disk fails first.
func (a *ahead) written(index uint64, quit <-chan struct{}) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held++
	defer func() { a.held-- }()
	for len(a.pending) > 0 && index >= a.pending[0].Index {
		changed := a.changed
		a.mu.Unlock()
		ok := true
		select {
		case <-changed:
		case <-quit:
			ok = false
		case <-a.failed:
			ok = false
		}
		a.mu.Lock()
		if !ok {
			return false
		}
	}
	return true
}

// FirstIndex returns the index of the oldest entry.
func (a *ahead) FirstIndex() (uint64, error) {
	first, err := a.store.FirstIndex()
	if err != nil || first > 0 {
		return first, err
	}
	if err := a.flush(); err != nil {
		return 0, err
	}
	return a.store.FirstIndex()
}

// LastIndex returns the index of the newest entry, pending or written.
func (a *ahead) LastIndex() (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.pending); n > 0 {
		return a.pending[n-1].Index, nil
	}
	return a.store.LastIndex()
}

// GetLog reads an entry, pending or written.
func (a *ahead) GetLog(index uint64, l *raft.Log) error {
	a.mu.Lock()
	if n := len(a.pending); n > 0 && index >= a.pending[0].Index && index <= a.pending[n-1].Index {
		*l = *a.pending[index-a.pending[0].Index]
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	return a.store.GetLog(index, l)
}

// DeleteRange removes entries; whatever is pending is written before.
func (a *ahead) DeleteRange(first, last uint64) error {
	if err := a.flush(); err != nil {
		return err
	}
	return a.store.DeleteRange(first, last)
}
