package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// twoSnapshots runs a single server through 30 commands with a snapshot after 10
// and after 20, and returns it stopped, with the directories of the snapshots.
func twoSnapshots(t *testing.T, trailing uint64) (s *site, older, newer string, want []string) {
	t.Helper()
	c := newCluster(t, 1, func(cfg *Config) { cfg.Timing.TrailingLogs = trailing })
	s = c.leader()
	for i := range 30 {
		want = append(want, fmt.Sprint("c", i))
		s.propose(want[i])
		if i == 10 || i == 20 {
			s.snapshot()
		}
	}
	s.close()
	dirs := s.snapshotDirs()
	if len(dirs) != 2 {
		t.Fatalf("snapshots %v", dirs)
	}
	slices.Sort(dirs) // the indexes have as many digits
	return s, dirs[0], dirs[1], want
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[(len(b)+at)%len(b)] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
}

// reseal makes raft's own checksum of a snapshot match again.
func reseal(t *testing.T, dir string) {
	t.Helper()
	state, err := os.ReadFile(filepath.Join(dir, "state.bin"))
	must(t, err)
	path := filepath.Join(dir, "meta.json")
	b, err := os.ReadFile(path)
	must(t, err)
	var meta map[string]any
	must(t, json.Unmarshal(b, &meta))
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	sum.Write(state)
	meta["CRC"] = sum.Sum(nil)
	b, err = json.Marshal(meta)
	must(t, err)
	must(t, os.WriteFile(path, b, 0o600))
}

var snapshotDamages = []struct {
	name string
	do   func(t *testing.T, dir string)
}{
	{"state", func(t *testing.T, dir string) { t.Helper(); flip(t, filepath.Join(dir, "state.bin"), -40) }},
	{"state, raft's checksum intact", func(t *testing.T, dir string) {
		t.Helper()
		flip(t, filepath.Join(dir, "state.bin"), -40)
		reseal(t, dir)
	}},
	{"header, raft's checksum intact", func(t *testing.T, dir string) {
		t.Helper()
		flip(t, filepath.Join(dir, "state.bin"), 15)
		reseal(t, dir)
	}},
	{"truncated state", func(t *testing.T, dir string) { t.Helper(); must(t, os.Truncate(filepath.Join(dir, "state.bin"), 10)) }},
	{"description", func(t *testing.T, dir string) { t.Helper(); flip(t, filepath.Join(dir, "meta.json"), 0) }},
	{"state missing", func(t *testing.T, dir string) { t.Helper(); must(t, os.Remove(filepath.Join(dir, "state.bin"))) }},
}

func TestDamagedSnapshotFallsBack(t *testing.T) {
	t.Parallel()
	for _, damage := range snapshotDamages {
		t.Run(damage.name, func(t *testing.T) {
			t.Parallel()
			s, _, newer, want := twoSnapshots(t, 10_000)
			damage.do(t, newer)
			var out syncBuffer
			s.cfg.Logger = textLogger(&out)
			s.mustOpen()
			if !strings.Contains(out.String(), "fell back to an older snapshot") {
				t.Errorf("the log does not say so:\n%s", out.String())
			}
			eventually(t, "everything applied again", func() bool { return slices.Equal(s.sm.commands(), want) })
			s.propose("more")
			s.close()
			if _, err := os.Stat(newer); !errors.Is(err, os.ErrNotExist) {
				t.Error("the damaged snapshot is still in the way:", err)
			}
			s.cfg.Logger = testLogger(t, s.cfg.ID)
			s.mustOpen()
			eventually(t, "everything applied once more", func() bool { return slices.Equal(s.sm.commands(), append(want, "more")) })
		})
	}
}

func TestDamagedSnapshotWithoutLogIsRefused(t *testing.T) {
	t.Parallel()
	for _, damage := range snapshotDamages {
		t.Run(damage.name, func(t *testing.T) {
			t.Parallel()
			s, _, newer, _ := twoSnapshots(t, 1) // the log begins at the newer snapshot
			damage.do(t, newer)
			err := s.open()
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "join it again") {
				t.Fatalf("open: %v", err)
			}
			if err := s.open(); !errors.Is(err, ErrCorrupt) {
				t.Errorf("the second start forgot: %v", err)
			}
		})
	}
}

func TestAllSnapshotsDamaged(t *testing.T) {
	t.Parallel()
	s, older, newer, want := twoSnapshots(t, 10_000)
	flip(t, filepath.Join(older, "state.bin"), -40)
	flip(t, filepath.Join(newer, "state.bin"), -40)
	s.mustOpen() // the log reaches back to the beginning
	eventually(t, "everything applied again", func() bool { return slices.Equal(s.sm.commands(), want) })
}

func TestContinuous(t *testing.T) {
	t.Parallel()
	tests := []struct {
		restored, reached, first, last uint64
		ok                             bool
	}{
		{0, 0, 0, 0, true},         // new
		{0, 0, 1, 9, true},         // no snapshot yet
		{0, 0, 2, 9, false},        // beginning lost
		{100, 100, 0, 0, true},     // installed, nothing after
		{100, 100, 1, 50, true},    // installed over an old log
		{100, 100, 50, 120, true},  //
		{100, 100, 101, 120, true}, //
		{100, 100, 102, 120, false},
		{50, 100, 51, 100, true},
		{50, 100, 51, 99, false}, // was at 100 once
		{50, 100, 1, 60, false},
		{50, 100, 60, 120, false},
		{0, 100, 1, 120, true},
		{0, 100, 0, 0, false},
	}
	for _, test := range tests {
		if err := continuous(test.restored, test.reached, test.first, test.last); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// brokenSnapshots fails to finish what is written to it.
type brokenSnapshots struct {
	raft.SnapshotStore
	broken *bool
}

func (b brokenSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := b.SnapshotStore.Create(v, index, term, c, ci, t)
	return brokenSink{sink, b.broken}, err
}

type brokenSink struct {
	raft.SnapshotSink
	broken *bool
}

func (b brokenSink) Close() error {
	if *b.broken {
		return errors.Join(b.Cancel(), syscall.EIO)
	}
	return b.SnapshotSink.Close()
}

func TestFailedSnapshotIsReported(t *testing.T) {
	t.Parallel()
	broken := true
	c := newCluster(t, 1, func(cfg *Config) {
		cfg.seams.snapshots = func(inner raft.SnapshotStore) raft.SnapshotStore { return brokenSnapshots{inner, &broken} }
	})
	s := c.leader()
	s.propose("a")
	if err := s.node.raft.Snapshot().Error(); !errors.Is(err, syscall.EIO) && !strings.Contains(fmt.Sprint(err), "input/output") {
		t.Errorf("snapshot: %v", err)
	}
	if m := s.node.Metrics(); m.SnapshotFailures != 1 || m.SnapshotsTaken != 0 {
		t.Errorf("metrics: %d failures, %d taken", m.SnapshotFailures, m.SnapshotsTaken)
	}
	broken = false
	s.propose("b")
	s.snapshot()
	if m := s.node.Metrics(); m.SnapshotsTaken != 1 || m.SnapshotBytes == 0 {
		t.Errorf("metrics: %+v", m)
	}
}

func TestFollowerInstallsSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) { cfg.Timing.TrailingLogs = 2 })
	leader := c.leader()
	follower := c.follower(leader)
	leader.waitApplied(leader.propose("first"))
	c.isolate(follower)
	for i := range 50 {
		leader.propose(fmt.Sprint("c", i))
	}
	leader.snapshot()
	c.heal()
	index := leader.propose("last")
	follower.waitApplied(index)
	if !slices.Equal(follower.sm.commands(), leader.sm.commands()) {
		t.Error("the follower differs after the snapshot")
	}
	if m := follower.node.Metrics(); m.SnapshotsInstalled != 1 {
		t.Errorf("%d snapshots installed", m.SnapshotsInstalled)
	}
}

func testMachine(sm StateMachine) (*machine, *error) {
	open := make(chan struct{})
	close(open)
	failed := new(error)
	return &machine{
		sm: sm, applied: &applied{}, counters: &counters{}, ready: open, halted: open,
		fail:    func(err error) { *failed = errors.Join(*failed, err) },
		onApply: func(mark) {}, onConfig: func(raft.Configuration) {},
	}, failed
}

func snapshotOf(t *testing.T, at mark, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	b.Write(snapshotHeader(at))
	_, err := image(entries).WriteTo(&b)
	must(t, err)
	return b.Bytes()
}

func TestStateNeverGoesBack(t *testing.T) {
	t.Parallel()
	sm := &journal{}
	m, _ := testMachine(sm)
	m.ApplyBatch([]*raft.Log{{Index: 9, Term: 2, Data: []byte("nine")}})
	if err := m.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, mark{5, 1})))); err == nil {
		t.Error("an old snapshot replaced a newer state")
	}
	if !sm.has("nine") || m.applied.index.Load() != 9 {
		t.Errorf("state %v at %d", sm.commands(), m.applied.index.Load())
	}
	must(t, m.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, mark{12, 3})))))
	if m.applied.index.Load() != 12 || m.term != 3 {
		t.Errorf("after restore at %d, term %d", m.applied.index.Load(), m.term)
	}
}

func TestEndlessSnapshotsAreNoticed(t *testing.T) {
	t.Parallel()
	m, failed := testMachine(&journal{})
	install := func(index uint64) {
		must(t, m.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, mark{index, 1})))))
	}
	install(1)
	install(2)
	m.counters.entries.Add(1) // an append in between
	install(3)
	install(4)
	if *failed != nil {
		t.Fatal("too early:", *failed)
	}
	install(5)
	if *failed == nil || !strings.Contains((*failed).Error(), "join it again") {
		t.Errorf("three in a row: %v", *failed)
	}
}

func TestUnfinishedSnapshotsAreCleared(t *testing.T) {
	t.Parallel()
	s, _, newer, _ := twoSnapshots(t, 10_000)
	left := newer + tmpSuffix
	must(t, os.MkdirAll(left, 0o755))
	s.mustOpen()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error("left over:", err)
	}
}

// Without its log file a node has forgotten its vote.
func TestSnapshotsWithoutTheirLogAreRefused(t *testing.T) {
	t.Parallel()
	s, _, _, _ := twoSnapshots(t, 1)
	must(t, os.Remove(s.cfg.logPath()))
	for range 2 {
		if err := s.open(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("opens: %v", err)
		}
	}
}
