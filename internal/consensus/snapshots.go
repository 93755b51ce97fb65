package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
)

const (
	snapshotDir = "snapshots" // raft's file store fixes this name
	damagedDir  = "damaged-snapshots"
	tmpSuffix   = ".tmp"
)

// snapshots is raft's file store, hardened: failures are counted and logged, and
// the restore at start knows what a fallback costs. raft would take the newest
// snapshot that can be read, whether or not the log reaches from there to where
// this node has been before, and so forget entries that it has acknowledged.
type snapshots struct {
	raft.SnapshotStore
	base     string
	log      *slog.Logger
	counters *counters
}

func openSnapshots(cfg Config, c *counters) (*snapshots, error) {
	if err := removeUnfinished(filepath.Join(cfg.DataDir, snapshotDir)); err != nil {
		return nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(cfg.DataDir, retainSnapshots, newLogger(cfg.Logger))
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	var inner raft.SnapshotStore = files
	if cfg.seams.snapshots != nil {
		inner = cfg.seams.snapshots(inner)
	}
	return &snapshots{SnapshotStore: inner, base: cfg.DataDir, log: cfg.Logger, counters: c}, nil
}

// removeUnfinished clears away what a crash or a full disk left of a snapshot.
func removeUnfinished(dir string) error {
	unfinished, err := filepath.Glob(filepath.Join(dir, "*"+tmpSuffix))
	if err != nil {
		return fmt.Errorf("list unfinished snapshots: %w", err)
	}
	for _, path := range unfinished {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	return nil
}

// restore brings the state machine to the newest snapshot that is whole, and
// returns that snapshot's end; zero if there is none. It refuses if the log does
// not continue it up to where this node had been. first and last are the log's.
func (s *snapshots) restore(m *machine, first, last uint64) (mark, error) {
	listed, err := s.List()
	if err != nil {
		return mark{}, fmt.Errorf("list snapshots: %w", err)
	}
	var restored raft.SnapshotMeta
	bad := make(map[string]error)
	for _, meta := range listed {
		if err := s.load(meta.ID, m); err != nil {
			bad[meta.ID] = err
			continue
		}
		restored = *meta
		break
	}
	reached, err := s.survey(restored, listed, bad)
	if err != nil {
		return mark{}, err
	}
	for id, cause := range bad {
		s.log.Error("a snapshot is damaged", "path", filepath.Join(s.base, snapshotDir, id), "error", cause)
	}
	if err := continuous(restored.Index, reached, first, last); err != nil {
		return mark{}, fmt.Errorf("restore snapshot from %s: %w; %s", filepath.Join(s.base, snapshotDir), err, adviceRejoin)
	}
	return mark{index: restored.Index, term: restored.Term}, s.setAside(bad, restored.Index)
}

// load restores one snapshot.
func (s *snapshots) load(id string, m *machine) error {
	_, source, err := s.Open(id)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	return guard(func() error { return m.restore(source) })
}

// survey returns the highest index of any snapshot on disk, and adds to bad those
// that raft does not even list because their description cannot be read.
func (s *snapshots) survey(restored raft.SnapshotMeta, listed []*raft.SnapshotMeta, bad map[string]error) (uint64, error) {
	known := make(map[string]bool, len(listed))
	reached := restored.Index
	for _, meta := range listed {
		known[meta.ID] = true
		reached = max(reached, meta.Index)
	}
	dirs, err := os.ReadDir(filepath.Join(s.base, snapshotDir))
	if err != nil {
		return 0, fmt.Errorf("list snapshots: %w", err)
	}
	for _, dir := range dirs {
		index, ok := snapshotIndex(dir)
		if !ok || known[dir.Name()] || index < restored.Index {
			continue
		}
		bad[dir.Name()] = errors.New("its description cannot be read")
		reached = max(reached, index)
	}
	return reached, nil
}

// snapshotIndex reads the index from a directory named term-index-milliseconds.
func snapshotIndex(dir fs.DirEntry) (uint64, bool) {
	parts := strings.Split(dir.Name(), "-")
	if !dir.IsDir() || len(parts) != 3 {
		return 0, false
	}
	index, err := strconv.ParseUint(parts[1], 10, 64)
	return index, err == nil
}

// continuous checks that a log from first to last takes a state at index restored
// at least to index reached. Entries between are verified when they are read.
func continuous(restored, reached, first, last uint64) error {
	switch {
	case reached > restored && last < reached:
		return fmt.Errorf("%w: the newest whole snapshot ends at index %d, the log at %d, but this node had reached %d",
			ErrCorrupt, restored, last, reached)
	case last > restored && first > restored+1:
		return fmt.Errorf("%w: the newest whole snapshot ends at index %d, but the log begins at %d",
			ErrCorrupt, restored, first)
	}
	return nil
}

// setAside moves damaged snapshots out of raft's sight: a leader would go on
// trying to send the newest one. The log has been found to make up for them.
func (s *snapshots) setAside(bad map[string]error, restored uint64) error {
	for id := range bad {
		aside := filepath.Join(s.base, damagedDir)
		if err := os.MkdirAll(aside, 0o700); err != nil {
			return fmt.Errorf("set damaged snapshot aside: %w", err)
		}
		if err := os.Rename(filepath.Join(s.base, snapshotDir, id), filepath.Join(aside, id)); err != nil {
			return fmt.Errorf("set damaged snapshot aside: %w", err)
		}
		s.log.Warn("fell back to an older snapshot; the log makes up for the damaged one",
			"snapshot", id, "moved_to", aside, "restored_index", restored)
	}
	return nil
}

// Create begins a snapshot, taken here or received from the leader.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	inner, err := s.SnapshotStore.Create(version, index, term, members, membersIndex, t)
	if err != nil {
		return nil, s.failed("begin", err)
	}
	return &sink{SnapshotSink: inner, store: s}, nil
}

func (s *snapshots) failed(verb string, err error) error {
	s.counters.snapshotFailures.Add(1)
	s.log.Error("a snapshot could not be written; the log grows until one can", "step", verb, "path", s.base, "error", err)
	return fmt.Errorf("%s snapshot: %w", verb, err)
}

// sink is a snapshot being written.
type sink struct {
	raft.SnapshotSink
	store *snapshots
	taken bool // here, not received
	size  uint64
}

func (k *sink) Write(p []byte) (int, error) {
	n, err := k.SnapshotSink.Write(p)
	k.size += uint64(n)
	return n, err
}

// Close makes the snapshot durable and visible, or reports that it is neither.
func (k *sink) Close() error {
	if err := k.SnapshotSink.Close(); err != nil {
		return k.store.failed("finish", err)
	}
	k.store.counters.snapshotBytes.Store(k.size)
	if k.taken {
		k.store.counters.snapshotsTaken.Add(1)
	}
	return nil
}

// Cancel gives the snapshot up. What cannot be removed now is removed at the
// next start.
func (k *sink) Cancel() error {
	k.store.counters.snapshotFailures.Add(1)
	return k.SnapshotSink.Cancel()
}
