package consensus

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// innerStore is what a store protects: raft-boltdb in production.
type innerStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// store is the hardened log and stable store. Entries and values carry
// checksums, writes are watched, and the first error of any kind is the last:
// after a failed fsync the kernel may have dropped the pages, and the next one
// "succeeds", so a sick disk is never asked again.
//
// raft ignores some errors of a store and panics on others. Once live, a failed
// call therefore does not return: it ends the goroutine that made it. Deferred
// functions still run, so raft answers what is pending, and nothing that follows
// the failed call happens. What raft does not answer ends with raft, see
// endWith. Only goroutines of raft use a live store.
type store struct {
	inner    innerStore
	path     string // for messages
	dog      *watchdog
	fail     func(error)
	counters *counters

	live   atomic.Bool
	failed atomic.Bool

	vote vote // used by raft's main goroutine alone
}

var _ interface {
	raft.LogStore
	raft.StableStore
} = (*store)(nil)

// down ends the use of the store; see store.
func (s *store) down(err error) error {
	if !s.failed.Swap(true) {
		s.fail(err)
	}
	if s.live.Load() && !inPipeline() {
		runtime.Goexit()
	}
	return err
}

// inPipeline tells whether the caller runs in raft's pipelined replication. That
// one takes an error as it should, and must be given it: its goroutine has a
// helper that waits to be told of the end, which no deferred function does.
func inPipeline() bool {
	var callers [32]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "raft.(*Raft).pipelineReplicate") {
			return true
		}
		if !more {
			return false
		}
	}
}

// describe names the file, what went wrong, and what to do about it.
func (s *store) describe(verb string, err error) error {
	if errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%s in %s: %w; %s", verb, s.path, err, adviceRejoin)
	}
	return fmt.Errorf("%s in %s: %w; the node stops rather than trust this disk", verb, s.path, err)
}

// write runs one write under the watchdog.
func (s *store) write(verb, point string, op func() error) error {
	if s.failed.Load() {
		return s.down(errStoreDown)
	}
	watched := s.dog.watch(verb + " in " + s.path)
	err := guard(func() error {
		if err := seam.Fail(point); err != nil {
			return err
		}
		return op()
	})
	watched.end()
	if err != nil {
		return s.down(s.describe(verb, err))
	}
	if s.failed.Load() { // the watchdog gave up while this write hung
		return s.down(errStoreDown)
	}
	return nil
}

// read runs one read. What is merely absent is not an error of the disk.
func (s *store) read(verb string, op func() error) error {
	if s.failed.Load() {
		return s.down(errStoreDown)
	}
	err := guard(op)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || isNotFound(err) {
		return err
	}
	return s.down(s.describe(verb, err))
}

// guard turns a panic of the database into an error. A file that was truncated
// under its memory map faults on access; the fault becomes a panic here.
func guard(op func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	return op()
}

// FirstIndex returns the index of the oldest entry; 0 if there is none.
func (s *store) FirstIndex() (index uint64, err error) {
	err = s.read("read first index", func() error {
		index, err = s.inner.FirstIndex()
		return err
	})
	return index, err
}

// LastIndex returns the index of the newest entry; 0 if there is none.
func (s *store) LastIndex() (index uint64, err error) {
	err = s.read("read last index", func() error {
		index, err = s.inner.LastIndex()
		return err
	})
	return index, err
}

// GetLog reads an entry and verifies it.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	return s.read("read log", func() error {
		if err := s.inner.GetLog(index, l); err != nil {
			return err
		}
		return checkLog(l, index)
	})
}

// StoreLog writes one entry.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries. A leader's own entries get their checksum here,
// before they are cached or sent; entries from a leader are verified.
func (s *store) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		if len(l.Extensions) == 0 {
			sealLog(l)
			continue
		}
		if err := checkLog(l, l.Index); err != nil {
			return s.down(fmt.Errorf("receive log from the leader: %w in memory or on the way; check this host and the leader's", err))
		}
	}
	start := time.Now()
	err := s.write("write log", "consensus.store_logs", func() error {
		if err := s.inner.StoreLogs(logs); err != nil {
			return err
		}
		return seam.Fail("consensus.store_logs_after")
	})
	if err != nil {
		return err
	}
	s.counters.storeLogs.observe(time.Since(start))
	s.counters.entries.Add(uint64(len(logs)))
	return nil
}

// DeleteRange removes the entries from first to last, both included.
func (s *store) DeleteRange(first, last uint64) error {
	return s.write("delete log", "consensus.delete_range", func() error {
		return s.inner.DeleteRange(first, last)
	})
}

// errStoreDown is what every call after the first failure gets.
var errStoreDown = errors.New("store has failed before")

// adviceRejoin is the way back for a member whose own data cannot be trusted.
const adviceRejoin = "keep a copy of the data directory, then remove this member from the cluster and join it again with an empty directory and a new id " +
	"(the only or last server: restore a backup)"
