package consensus

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// usedSite is a stopped server that has voted and written.
func usedSite(t *testing.T, snapshot bool) *site {
	t.Helper()
	s := newCluster(t, 1, nil).leader()
	s.propose("x")
	if snapshot {
		s.snapshot()
	}
	s.close()
	return s
}

// A log that begins anew has forgotten its votes.
func TestLostLogIsRefused(t *testing.T) {
	t.Parallel()
	losses := map[string]func(path string) error{
		"missing": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"replaced by a new one": func(path string) error {
			fresh, err := openBolt(path+".new", true)
			return errors.Join(err, fresh.Close(), os.Rename(path+".new", path))
		},
	}
	evidence := map[string]struct{ marked, snapshot bool }{
		"marker":              {marked: true},
		"snapshot":            {snapshot: true},
		"marker and snapshot": {marked: true, snapshot: true},
	}
	for name, lose := range losses {
		for by, e := range evidence {
			t.Run(name+", known by "+by, func(t *testing.T) {
				t.Parallel()
				s := usedSite(t, e.snapshot)
				must(t, lose(s.cfg.logPath()))
				if !e.marked {
					must(t, os.Remove(filepath.Join(s.cfg.DataDir, usedFile)))
				}
				before, _ := os.ReadFile(s.cfg.logPath())
				for range 2 { // a refusal changes nothing
					err := s.open()
					if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "join it again") || !strings.Contains(err.Error(), s.cfg.logPath()) {
						t.Fatalf("open: %v", err)
					}
					after, statErr := os.ReadFile(s.cfg.logPath())
					if lost := len(before) == 0; !bytes.Equal(before, after) && lost || lost && name == "missing" && statErr == nil {
						t.Errorf("the refused log now has %d bytes, %v", len(after), statErr)
					}
				}
				self := Member{ID: s.cfg.ID, Addr: s.cfg.BindAddr, Voter: true}
				if err := Recover(t.Context(), s.cfg, &journal{}, []Member{self}); !errors.Is(err, ErrCorrupt) {
					t.Errorf("recover: %v", err)
				}
			})
		}
	}
}

func TestLogWithoutMarkerGetsOne(t *testing.T) {
	t.Parallel()
	s := usedSite(t, false)
	marker := filepath.Join(s.cfg.DataDir, usedFile)
	must(t, os.Remove(marker)) // from before markers, or a crash came first
	s.mustOpen()
	eventually(t, "what was written", func() bool { return s.sm.has("x") })
	s.close()
	text, err := os.ReadFile(marker)
	if err != nil || !strings.Contains(string(text), "join it as a new one") {
		t.Errorf("marker %q, %v", text, err)
	}
	must(t, os.Remove(s.cfg.logPath()))
	if err := s.open(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("lost log opens: %v", err)
	}
}

// A crash while the very first log is created leaves nothing that matters.
func TestUnfinishedFirstStartIsRepeated(t *testing.T) {
	t.Parallel()
	s := newSite(t, "a", &links{}, nil)
	must(t, os.WriteFile(s.cfg.logPath(), nil, 0o600))
	s.mustOpen()
	must(t, s.node.Bootstrap([]Member{{ID: "a", Addr: s.node.Addr(), Voter: true}}))
	eventually(t, "a leader", func() bool { return s.node.Status().Role == Leader })
	s.propose("x")
}

func TestMarkerIsWrittenAfterTheFirstVote(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	marker := filepath.Join(dir, usedFile)
	var early bool
	cfg := Config{DataDir: dir, Timing: DefaultTiming(), Logger: testLogger(t, "store")}
	cfg.seams.store = func(inner innerStore) innerStore {
		return &faulty{innerStore: inner, before: func(string) error {
			_, err := os.Stat(marker)
			early = early || err == nil
			return nil
		}}
	}
	s, err := openStore(cfg, &counters{}, func(bool) {}, func(error) {})
	must(t, err)
	if term, _, err := s.lastVote(); err != nil || term != 0 || early {
		t.Errorf("vote of term %d, %v; the marker came before it: %v", term, err, early)
	}
	if _, err := os.Stat(marker); err != nil {
		t.Error(err)
	}
	must(t, s.close())
	s = openTestStore(t, dir)
	if err := s.GetLog(1, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("new log: %v", err)
	}
	must(t, s.close())
}
