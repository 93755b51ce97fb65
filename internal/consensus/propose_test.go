package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(id)}
}

type (
	timeoutNowRequest  = raft.TimeoutNowRequest
	timeoutNowResponse = raft.TimeoutNowResponse
)

// proposeCancelled proposes on a leader that cannot commit, and cancels once raft
// has taken the command.
func (s *site) proposeCancelled(command string) error {
	s.t.Helper()
	last := s.node.raft.LastIndex()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, _, err := s.node.Propose(ctx, []byte(command))
		done <- err
	}()
	eventually(s.t, "raft to take the command", func() bool { return s.node.raft.LastIndex() > last || len(done) > 0 })
	cancel()
	return <-done
}

func TestProposeOutcomes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	follower := c.follower(leader)
	follower.waitApplied(leader.propose("x"))
	ctx := testCtx(t)

	_, _, err := follower.node.Propose(ctx, []byte("y"))
	if !isNotLeader(err, leader) {
		t.Errorf("on a follower: %v", err)
	}
	if _, _, err := leader.node.Propose(ctx, make([]byte, MaxCommand+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := leader.node.Propose(done, []byte("y")); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if got := leader.sm.commands(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("refused commands were applied: %v", got)
	}
}

func TestProposeIntoAPartition(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) {
		// The context ends long before the leader notices.
		cfg.Timing.Heartbeat, cfg.Timing.Election, cfg.Timing.Lease = time.Second, time.Second, time.Second
	})
	leader := c.leader()
	c.isolate(leader)
	if err := leader.proposeCancelled("lost"); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("propose: %v", err)
	}
	// The leader gives up in the end, and says that it does not know either.
	_, _, err := leader.node.Propose(testCtx(t), []byte("lost too"))
	if !errors.Is(err, ErrUnknownOutcome) && !errors.As(err, new(*NotLeaderError)) { // it may have noticed already
		t.Errorf("propose: %v", err)
	}
	next := c.leader(leader)
	c.heal()
	leader.waitApplied(next.propose("kept"))
	if got := leader.sm.commands(); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("applied %v", got)
	}
}

func TestAcknowledgedWritesSurviveTheLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	var want []string
	for round := range 3 {
		leader := c.leader()
		for i := range 10 {
			command := fmt.Sprintf("r%d-%d", round, i)
			leader.propose(command)
			want = append(want, command)
		}
		leader.kill()
		c.leader(leader)
		leader.mustOpen()
	}
	last := c.leader()
	index, err := last.node.ReadIndex(testCtx(t))
	must(t, err)
	for _, s := range c.sites {
		s.waitApplied(index)
		if got := s.sm.commands(); !slices.Equal(got, want) {
			t.Errorf("%s applied %v, want %v", s.cfg.ID, got, want)
		}
	}
}

// A restart must read what came after the snapshot, also when that is more than
// raft's channels hold.
func TestRestartWithALongLog(t *testing.T) {
	t.Parallel()
	const count = 9000
	c := newCluster(t, 1, nil)
	s := c.leader()
	s.propose("first")
	s.snapshot()
	term := s.node.Status().Term
	last := s.node.Status().LastIndex
	s.close()

	log := openTestStore(t, s.cfg.DataDir)
	var batch []*raft.Log
	for i := range count {
		batch = append(batch, &raft.Log{Index: last + 1 + uint64(i), Term: term, Type: raft.LogCommand, Data: fmt.Append(nil, i)})
		if len(batch) == 1000 {
			must(t, log.StoreLogs(batch))
			batch = nil
		}
	}
	must(t, log.close())
	s.mustOpen()
	if m := s.node.Members(); len(m) != 1 || !m[0].Voter {
		t.Errorf("members after the restart: %+v", m)
	}
	s.waitApplied(last + count)
	if got := len(s.sm.commands()); got != count+1 {
		t.Errorf("%d commands applied, want %d", got, count+1)
	}
}

func TestMissingEntryIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	s := c.leader()
	for range 10 {
		s.propose("x")
	}
	s.close()
	bolt, err := openBolt(s.cfg.logPath(), true)
	must(t, err)
	must(t, bolt.DeleteRange(5, 6))
	must(t, bolt.Close())
	if err := s.open(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a log with a hole opens: %v", err)
	}
}

func TestDamagedEntryIsRefusedAtStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	s := c.leader()
	for i := range 10 {
		s.propose(fmt.Sprintf("command-number-%d", i))
	}
	s.close()
	bolt, err := openBolt(s.cfg.logPath(), true)
	must(t, err)
	var l raft.Log
	must(t, bolt.GetLog(6, &l))
	l.Data[0] ^= 1
	must(t, bolt.StoreLog(&l))
	must(t, bolt.Close())
	if err := s.open(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged entry opens: %v", err)
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	g := newGate(2, 100)
	must(t, g.enter(60))
	if err := g.enter(41); !errors.Is(err, ErrUnavailable) {
		t.Errorf("too many bytes: %v", err)
	}
	must(t, g.enter(40))
	if err := g.enter(0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("one too many: %v", err)
	}
	g.leave(40)
	must(t, g.enter(0))
	g.close()
	g.close()
	if err := g.enter(0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after close: %v", err)
	}
	g.leave(0)
	select {
	case <-g.drained:
		t.Error("drained with one inside")
	default:
	}
	g.leave(60)
	<-g.drained
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{ID: "a", DataDir: t.TempDir(), BindAddr: "127.0.0.1:0"}
	for name, change := range map[string]func(*Config){
		"no id":          func(c *Config) { c.ID = "" },
		"no directory":   func(c *Config) { c.DataDir = "" },
		"no address":     func(c *Config) { c.BindAddr = "" },
		"half of TLS":    func(c *Config) { c.ServerTLS = testTLS(t).server("server") },
		"source no IP":   func(c *Config) { c.SourceIP = "localhost" },
		"impossible":     func(c *Config) { c.Timing = DefaultTiming(); c.Timing.Lease = time.Hour },
		"address in use": func(c *Config) { c.BindAddr = "256.0.0.1:1" },
	} {
		cfg := good
		cfg.DataDir = t.TempDir()
		change(&cfg)
		if _, err := Open(cfg, &journal{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSlowTimingIsValid(t *testing.T) {
	t.Parallel()
	for _, timing := range []Timing{DefaultTiming(), SlowTiming()} {
		cfg := Config{ID: "a", Timing: timing, Logger: textLogger(io.Discard)}
		must(t, raft.ValidateConfig(cfg.raftConfig(nil)))
	}
}
