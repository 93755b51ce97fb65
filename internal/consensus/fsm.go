package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// Entry is one committed command.
type Entry struct {
	Index, Term uint64
	Data        []byte // must not be changed
}

// StateMachine is what the log drives. Apply, Snapshot and Restore are called by
// one goroutine at a time, in the order of the log.
type StateMachine interface {
	// Apply applies entries in order and returns one result for each. An error
	// ends the node: the entries cannot be skipped, and nothing after them is
	// applied. It must not block on anything but computation.
	Apply(entries []Entry) ([]any, error)
	// Snapshot captures the state in constant time; WriteTo runs concurrently
	// with later Apply calls.
	Snapshot() (io.WriterTo, error)
	// Restore replaces the state by one that WriteTo wrote, and verifies it. On
	// an error the state is what it was.
	Restore(r io.Reader) error
}

// Traced is a state machine that tells what it holds, for the trace of a build with
// the tag "faults".
type Traced interface {
	// Trace returns the counter of the state's epoch, its revision and its hash.
	Trace() (epoch, revision uint64, hash [32]byte)
}

// maxInstalls is how many snapshots a leader may send in a row without one entry
// in between. raft keeps a conflicting log when it installs a snapshot, and then
// asks for the next one, for ever.
const maxInstalls = 3

var errApplyFailed = errors.New("an earlier entry could not be applied")

// machine is the state machine as raft drives it. All methods but Persist run
// on raft's goroutine of the state machine, or before raft has started.
type machine struct {
	sm       StateMachine
	applied  *applied
	term     uint64 // of the last applied entry
	counters *counters
	fail     func(error)
	halted   <-chan struct{} // closed once raft is shutting down
	ready    <-chan struct{} // closed once the node may be called
	onApply  func(mark)
	onConfig func(raft.Configuration)

	failed    bool
	installs  int    // snapshots in a row
	installAt uint64 // entries written at the last one
}

var _ raft.BatchingFSM = (*machine)(nil)

// Apply applies one entry; raft calls it only from RecoverCluster.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies the commands among logs.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	<-m.ready
	results := make([]any, len(logs))
	if m.failed {
		return m.refuse(results)
	}
	entries := make([]Entry, 0, len(logs))
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			entries = append(entries, Entry{Index: l.Index, Term: l.Term, Data: l.Data})
		}
	}
	if seam.Bug(seam.AppliedOutOfOrder) {
		slices.Reverse(entries)
	}
	if len(entries) > 0 {
		outcomes, err := m.apply(entries)
		if err != nil {
			return m.stop(err, results)
		}
		i := 0
		for j, l := range logs {
			if l.Type == raft.LogCommand {
				results[j] = outcomes[i]
				i++
			}
		}
	}
	last := logs[len(logs)-1]
	m.term = last.Term
	m.applied.advance(last.Index)
	m.onApply(mark{index: last.Index, term: last.Term})
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			m.onConfig(raft.DecodeConfiguration(l.Data))
		}
	}
	return results
}

func (m *machine) apply(entries []Entry) ([]any, error) {
	start := time.Now()
	outcomes, err := m.sm.Apply(entries)
	if err == nil && len(outcomes) != len(entries) {
		err = fmt.Errorf("%d results for %d entries", len(outcomes), len(entries))
	}
	if err != nil {
		first, last := entries[0].Index, entries[len(entries)-1].Index
		return nil, fmt.Errorf("apply entries %d to %d: %w", first, last, err)
	}
	m.counters.apply.observe(time.Since(start))
	return outcomes, nil
}

// stop ends the node. The goroutine stays here until raft shuts down, so that
// raft neither hands over a later entry nor counts this one as applied.
func (m *machine) stop(err error, results []any) []any {
	m.failed = true
	m.fail(err)
	<-m.halted
	return m.refuse(results)
}

func (m *machine) refuse(results []any) []any {
	for i := range results {
		results[i] = errApplyFailed
	}
	return results
}

// Snapshot captures the state together with its index: raft does not tell it to
// Restore.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.failed {
		return nil, errApplyFailed
	}
	state, err := m.sm.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("capture state: %w", err)
	}
	return &capture{state: state, at: mark{index: m.applied.index.Load(), term: m.term}}, nil
}

// Restore replaces the state by a snapshot that the leader sent.
func (m *machine) Restore(rc io.ReadCloser) error {
	<-m.ready
	if m.failed {
		return errApplyFailed
	}
	if err := m.restore(rc); err != nil {
		return err
	}
	m.counters.snapshotsInstalled.Add(1)
	if written := m.counters.entries.Load(); written != m.installAt {
		m.installs, m.installAt = 0, written
	}
	if m.installs++; m.installs >= maxInstalls {
		m.fail(fmt.Errorf("install snapshot: %d in a row without one entry in between; the log conflicts with the leader's: %s", m.installs, adviceRejoin))
	}
	return nil
}

// restore reads a snapshot. One that is older than the state is refused: it is
// a message that was long under way, and the state must not go back.
func (m *machine) restore(r io.Reader) error {
	at, err := readSnapshotHeader(r)
	if err != nil {
		return err
	}
	if have := m.applied.index.Load(); at.index < have {
		return fmt.Errorf("restore snapshot: it ends at index %d, the state is at %d", at.index, have)
	}
	if err := m.sm.Restore(r); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if t, ok := m.sm.(Traced); ok && seam.Tracing() {
		epoch, revision, hash := t.Trace()
		seam.Record(&seam.Applied{Index: at.index, Term: at.term, State: hash, Epoch: epoch, Revision: revision, Restored: true})
	}
	m.term = at.term
	m.applied.advance(at.index)
	return nil
}

// capture is a state to be written.
type capture struct {
	state io.WriterTo
	at    mark
}

// Persist writes the state. It leaves the sink open: closing is what makes it
// durable, and a second Close would hide the error of the first.
func (c *capture) Persist(out raft.SnapshotSink) error {
	if err := seam.Fail("consensus.snapshot_persist"); err != nil {
		return err
	}
	if own, ok := out.(*sink); ok {
		own.taken = true
	}
	if _, err := out.Write(snapshotHeader(c.at)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if _, err := c.state.WriteTo(out); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Release has nothing to release: the state is immutable.
func (c *capture) Release() {}

// snapshotMagic begins every snapshot; its last byte is the version.
const snapshotMagic = "HFRAFT\x00\x01"

const snapshotHeaderSize = len(snapshotMagic) + 8 + 8 + 4

func snapshotHeader(at mark) []byte {
	b := append(make([]byte, 0, snapshotHeaderSize), snapshotMagic...)
	b = binary.BigEndian.AppendUint64(b, at.index)
	b = binary.BigEndian.AppendUint64(b, at.term)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32c()))
}

func readSnapshotHeader(r io.Reader) (mark, error) {
	var b [snapshotHeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return mark{}, fmt.Errorf("read snapshot header: %w", err)
	}
	n := snapshotHeaderSize - 4
	if string(b[:len(snapshotMagic)]) != snapshotMagic || binary.BigEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], crc32c()) {
		return mark{}, fmt.Errorf("read snapshot header: %w or written by another version", ErrCorrupt)
	}
	fields := b[len(snapshotMagic):]
	return mark{index: binary.BigEndian.Uint64(fields), term: binary.BigEndian.Uint64(fields[8:])}, nil
}
