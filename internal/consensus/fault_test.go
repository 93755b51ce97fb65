package consensus

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// disks gives each site of a cluster a disk that can misbehave.
func disks(of map[string]*faulty) func(*Config) {
	return func(cfg *Config) {
		disk := &faulty{}
		of[cfg.ID] = disk
		cfg.seams.store = func(inner innerStore) innerStore {
			disk.innerStore = inner
			return disk
		}
	}
}

// trap is a fault that can be switched on while the disk is in use.
type trap struct {
	on   atomic.Bool
	op   string
	err  error
	hold chan struct{} // hang until closed
	held atomic.Bool   // something hangs or has hung
	disk atomic.Pointer[faulty]
}

// springAt is spring for one disk of a cluster.
func (p *trap) springAt(disk *faulty, op string) error {
	if p.disk.Load() != disk {
		return nil
	}
	return p.spring(op)
}

func (p *trap) spring(op string) error {
	if !p.on.Load() || !strings.HasPrefix(op, p.op) {
		return nil
	}
	if p.hold != nil {
		p.held.Store(true)
		<-p.hold
		return nil
	}
	return p.err
}

func TestDiskErrorOfLeaderIsFatalAndAnotherLeads(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		err   error
		after bool
	}{
		"EIO":          {err: syscall.EIO},
		"ENOSPC":       {err: syscall.ENOSPC},
		"fsync failed": {err: syscall.EIO, after: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of := make(map[string]*faulty)
			p := &trap{op: "StoreLogs", err: fault.err}
			c := newCluster(t, 3, func(cfg *Config) {
				disks(of)(cfg)
				if disk := of[cfg.ID]; fault.after {
					disk.after = func(op string) error { return p.springAt(disk, op) }
				} else {
					disk.before = func(op string) error { return p.springAt(disk, op) }
				}
			})
			leader := c.leader()
			leader.propose("acknowledged")
			p.disk.Store(of[leader.cfg.ID])
			p.on.Store(true)
			_, _, err := leader.node.Propose(testCtx(t), []byte("unknown"))
			if !errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("write on a sick disk: %v", err)
			}
			fatal := leader.expectFatal(fault.err)
			if !strings.Contains(fatal.Error(), leader.node.cfg.logPath()) {
				t.Errorf("message does not name the file: %v", fatal)
			}
			next := c.leader(leader)
			next.waitApplied(next.propose("after"))
			if got := next.sm.commands(); got[0] != "acknowledged" {
				t.Errorf("new leader has %v", got)
			}
			if _, _, err := leader.node.Propose(testCtx(t), []byte("late")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("write after the failure: %v", err)
			}
		})
	}
}

// An election writes the term: raft panics when that fails.
func TestDiskErrorInElectionIsFatal(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	p := &trap{op: "Set ", err: syscall.EIO}
	c := newCluster(t, 3, func(cfg *Config) {
		disks(of)(cfg)
		of[cfg.ID].before = p.spring
	})
	leader := c.leader()
	p.on.Store(true)
	leader.kill()
	for {
		select {
		case err := <-c.sites[0].fatal:
			checkEIO(t, err)
			return
		case err := <-c.sites[1].fatal:
			checkEIO(t, err)
			return
		case err := <-c.sites[2].fatal:
			checkEIO(t, err)
			return
		case <-testCtx(t).Done():
			t.Fatal("no fatal error")
		}
	}
}

func checkEIO(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("fatal error %v", err)
	}
}

// A leader whose disk hangs keeps sending heartbeats; it must fall silent.
func TestHangingDiskOfLeaderLetsAnotherLead(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	p := &trap{op: "StoreLogs", hold: make(chan struct{})}
	c := newCluster(t, 3, func(cfg *Config) {
		disks(of)(cfg)
		disk := of[cfg.ID]
		disk.before = func(op string) error { return p.springAt(disk, op) }
		cfg.Timing.Stall, cfg.Timing.StallFatal = 300*time.Millisecond, 4*time.Second
	})
	leader := c.leader()
	p.disk.Store(of[leader.cfg.ID])
	p.on.Store(true)
	if err := leader.proposeCancelled("stuck"); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("write on a hanging disk: %v", err)
	}
	next := c.leader(leader)
	next.propose("elsewhere")
	leader.expectFatal(ErrStalled)
	if leader.node.Metrics().Stalls == 0 {
		t.Error("the hang was not counted")
	}
	close(p.hold)
}

func TestShortHangIsSurvived(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	p := &trap{op: "StoreLogs", hold: make(chan struct{})}
	c := newCluster(t, 3, func(cfg *Config) {
		disks(of)(cfg)
		disk := of[cfg.ID]
		disk.before = func(op string) error { return p.springAt(disk, op) }
		cfg.Timing.Stall = 200 * time.Millisecond
	})
	leader := c.leader()
	p.disk.Store(of[leader.cfg.ID])
	p.on.Store(true)
	go func() { _, _, _ = leader.node.Propose(context.Background(), []byte("stuck")) }()
	next := c.leader(leader)
	p.on.Store(false)
	close(p.hold)
	leader.waitApplied(next.propose("elsewhere"))
	if leader.node.trans.silent() {
		t.Error("still silent")
	}
	select {
	case err := <-leader.fatal:
		t.Error("fatal:", err)
	default:
	}
}

func TestUnknownCommandStopsTheNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	old := c.follower(leader) // the only one that does not know the command
	old.sm.mu.Lock()
	old.sm.poison = "from the future"
	old.sm.mu.Unlock()
	leader.propose("before")
	leader.propose("from the future")
	leader.propose("after")
	err := old.expectFatal(nil)
	if !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("fatal error %v", err)
	}
	old.close()
	if old.sm.has("after") || old.sm.has("from the future") {
		t.Errorf("applied %v", old.sm.commands())
	}
}

func TestUnknownCommandStopsALeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	leader := c.leader()
	leader.sm.mu.Lock()
	leader.sm.poison = "from the future"
	leader.sm.mu.Unlock()
	_, _, err := leader.node.Propose(testCtx(t), []byte("from the future"))
	if !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("propose: %v", err)
	}
	leader.expectFatal(nil)
	if err := leader.node.WaitApplied(testCtx(t), 1000); !errors.Is(err, ErrUnavailable) {
		t.Errorf("wait: %v", err)
	}
	if leader.node.machine.failed != true {
		t.Error("the state machine goes on")
	}
}

// raft's helpers of a replicator wait for it: one that ends without telling them
// would leave them, and with them Close, waiting for ever.
func TestDiskErrorWhileReplicatingLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	slow := &trap{op: "StoreLogs", hold: make(chan struct{})}
	sick := &trap{op: "GetLog", err: syscall.EIO}
	c := newCluster(t, 3, func(cfg *Config) {
		disks(of)(cfg)
		cfg.Timing.Heartbeat, cfg.Timing.Election, cfg.Timing.Lease = 2*time.Second, 2*time.Second, time.Second // a busy machine ends no leadership
		disk := of[cfg.ID]
		disk.before = func(op string) error {
			return errors.Join(slow.springAt(disk, op), sick.springAt(disk, op))
		}
	})
	leader := c.leader()
	follower := c.follower(leader)
	follower.waitApplied(leader.propose("before"))
	slow.disk.Store(of[follower.cfg.ID])
	slow.on.Store(true)
	var wg sync.WaitGroup
	for range 20 { // so that the follower's next entry is read from disk
		wg.Go(func() {
			for range logCache / 10 {
				leader.propose("x")
			}
		})
	}
	wg.Wait()
	sick.disk.Store(of[leader.cfg.ID])
	sick.on.Store(true)
	close(slow.hold)
	checkEIO(t, leader.expectFatal(syscall.EIO))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := leader.node.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}
