package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// newTestAhead returns a log of a leader over a disk that writes when told to.
func newTestAhead(t *testing.T, disk *faulty) (a *ahead, failed chan struct{}) {
	t.Helper()
	failed = make(chan struct{})
	s, _ := newTestStore(disk)
	s.live.Store(true)
	var once sync.Once
	s.fail = func(error) { once.Do(func() { close(failed) }) }
	a = newAhead(s, func() bool { return true }, failed)
	t.Cleanup(a.stop)
	return a, failed
}

func own(first, count int) []*raft.Log {
	logs := make([]*raft.Log, count)
	for i := range logs {
		logs[i] = &raft.Log{Index: uint64(first + i), Term: 1, Type: raft.LogCommand, Data: fmt.Append(nil, "entry ", first+i)}
	}
	return logs
}

func (a *ahead) heldBack() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// A leader sends while it writes, and commits nothing before it has written: the
// answers of both followers are there and do not count yet.
func TestLeaderWritesWhileItsFollowersDo(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	p := &trap{op: "StoreLogs", hold: make(chan struct{})}
	c := newCluster(t, 3, func(cfg *Config) {
		disks(of)(cfg)
		disk := of[cfg.ID]
		disk.before = func(op string) error { return p.springAt(disk, op) }
	})
	leader := c.leader()
	<-leader.terms // its own barrier is behind us
	leader.propose("before")
	// Both pipelines have to be open, so that no answer comes another way.
	before := leader.node.Status()
	p.disk.Store(of[leader.cfg.ID])
	p.on.Store(true)
	done := make(chan error, 1)
	go func() {
		_, _, err := leader.node.Propose(testCtx(t), []byte("ahead"))
		done <- err
	}()
	eventually(t, "both followers have written and their answers are held back", func() bool { return leader.node.ahead.heldBack() == 2 })
	for _, s := range c.sites {
		if st := s.node.Status(); st.LastIndex != before.LastIndex+1 || st.Commit > before.LastIndex {
			t.Errorf("%s: last entry %d, committed %d before the leader's disk has entry %d", s.cfg.ID, st.LastIndex, st.Commit, before.LastIndex+1)
		}
	}
	p.on.Store(false)
	close(p.hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Without another voter nobody's answer is needed, so the entry must be on disk
// before raft counts it.
func TestSingleVoterWritesFirst(t *testing.T) {
	t.Parallel()
	of := make(map[string]*faulty)
	p := &trap{op: "StoreLogs", hold: make(chan struct{})}
	hit := make(chan struct{}, 16)
	c := newCluster(t, 1, func(cfg *Config) {
		disks(of)(cfg)
		disk := of[cfg.ID]
		disk.before = func(op string) error {
			if p.disk.Load() == disk {
				hit <- struct{}{}
			}
			return p.springAt(disk, op)
		}
	})
	leader := c.leader()
	<-leader.terms // its own barrier is behind us
	last := leader.node.Status().LastIndex
	p.disk.Store(of[leader.cfg.ID])
	p.on.Store(true)
	done := make(chan error, 1)
	go func() {
		_, _, err := leader.node.Propose(testCtx(t), []byte("alone"))
		done <- err
	}()
	<-hit
	if n := len(leader.node.ahead.batch()); n > 0 {
		t.Errorf("%d entries are pending; raft counts them", n)
	}
	if st := leader.node.Status(); st.LastIndex > last || st.Commit > last {
		t.Errorf("entry counts before it is on disk: %+v", st)
	}
	p.on.Store(false)
	close(p.hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestAheadReadsWhatIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		a, _ := newTestAhead(t, &faulty{innerStore: memory{raft.NewInmemStore()}, before: func(op string) error {
			if op == "StoreLogs" {
				<-hold
			}
			return nil
		}})
		if err := a.StoreLogs(own(1, 3)); err != nil {
			t.Fatal(err)
		}
		var l raft.Log
		for i := uint64(1); i <= 3; i++ {
			if err := a.GetLog(i, &l); err != nil || l.Index != i || checkLog(&l, i) != nil {
				t.Errorf("entry %d: %v, %v", i, l.Index, err)
			}
		}
		if err := a.GetLog(4, &l); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("entry 4: %v", err)
		}
		if last, err := a.LastIndex(); last != 3 || err != nil {
			t.Errorf("last index %d, %v", last, err)
		}
		wrote := make(chan bool, 1)
		go func() { wrote <- a.written(2, nil) }()
		removed := make(chan error, 1)
		go func() { removed <- a.DeleteRange(3, 3) }()
		synctest.Wait()
		select {
		case <-wrote:
			t.Error("entry 2 counts as written")
		case <-removed:
			t.Error("an entry was removed before it was written")
		default:
		}
		close(hold)
		if !<-wrote {
			t.Error("entry 2 does not count as written")
		}
		if err := <-removed; err != nil {
			t.Error(err)
		}
		if last, _ := a.LastIndex(); last != 2 {
			t.Errorf("last index %d after the removal", last)
		}
	})
}

// Another leader's entries, a change of the members, and what is more than the
// bound wait for the disk.
func TestAheadWaitsWhereItMust(t *testing.T) {
	foreign := own(4, 1)
	sealLog(foreign[0])
	change := own(4, 1)
	change[0].Type = raft.LogConfiguration
	large := own(4, 1)
	large[0].Data = bytes.Repeat([]byte("x"), maxPendingBytes)
	for name, logs := range map[string][]*raft.Log{
		"entries of another leader": foreign, "a change of the members": change, "too many": own(4, maxPending),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hold := make(chan struct{})
				disk := memory{raft.NewInmemStore()}
				a, _ := newTestAhead(t, &faulty{innerStore: disk, before: func(op string) error {
					if op == "StoreLogs" {
						<-hold
					}
					return nil
				}})
				if err := a.StoreLogs(own(1, 3)); err != nil {
					t.Fatal(err)
				}
				stored := make(chan error, 1)
				go func() { stored <- a.StoreLogs(logs) }()
				synctest.Wait()
				select {
				case <-stored:
					t.Error("did not wait for the disk")
				default:
				}
				close(hold)
				if err := <-stored; err != nil {
					t.Fatal(err)
				}
				if err := a.flush(); err != nil {
					t.Fatal(err)
				}
				if last, _ := disk.LastIndex(); last != logs[len(logs)-1].Index {
					t.Errorf("the disk ends at %d", last)
				}
			})
		})
	}
	t.Run("too large", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hold := make(chan struct{})
			a, _ := newTestAhead(t, &faulty{innerStore: memory{raft.NewInmemStore()}, before: func(op string) error {
				if op == "StoreLogs" {
					<-hold
				}
				return nil
			}})
			stored := make(chan error, 1)
			go func() { stored <- errors.Join(a.StoreLogs(large), a.StoreLogs(own(5, 1))) }()
			synctest.Wait()
			if len(stored) > 0 {
				t.Error("did not wait for the disk")
			}
			close(hold)
			if err := <-stored; err != nil {
				t.Fatal(err)
			}
		})
	})
}

// When the disk fails nothing that was pending counts, and nobody waits for it.
func TestAheadGivesUpWithItsDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		a, failed := newTestAhead(t, &faulty{innerStore: memory{raft.NewInmemStore()}, before: func(op string) error {
			if op == "StoreLogs" {
				<-hold
				return errors.New("no disk")
			}
			return nil
		}})
		if err := a.StoreLogs(own(1, 1)); err != nil {
			t.Fatal(err)
		}
		wrote := make(chan bool, 1)
		go func() { wrote <- a.written(1, nil) }()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = a.DeleteRange(1, 1)
			t.Error("a failed disk removed something")
		}()
		late := make(chan struct{})
		close(hold)
		<-failed
		if <-wrote {
			t.Error("an entry counts as written that the disk does not have")
		}
		<-ended
		go func() {
			defer close(late)
			_ = a.StoreLogs(own(2, 1))
			t.Error("a failed disk took something")
		}()
		<-late
	})
}

// Whatever raft does to a log, the disk ends with the same as without this layer.
func TestAheadIsALog(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			draw := rand.New(rand.NewPCG(seed, 1))
			disk, twin := memory{raft.NewInmemStore()}, map[uint64]string{}
			a, _ := newTestAhead(t, &faulty{innerStore: disk})
			last := uint64(0)
			for range 200 {
				switch n := 1 + draw.IntN(4); draw.IntN(5) {
				case 0, 1, 2:
					logs := own(int(last)+1, n)
					for _, l := range logs {
						l.Data = fmt.Append(nil, draw.Uint64())
						twin[l.Index] = string(l.Data)
						if draw.IntN(8) == 0 {
							l.Type = raft.LogConfiguration
						}
					}
					if draw.IntN(3) == 0 {
						for _, l := range logs {
							sealLog(l)
						}
					}
					last += uint64(n)
					if err := a.StoreLogs(logs); err != nil {
						t.Fatal(err)
					}
				case 3:
					if uint64(n) > last {
						continue
					}
					for i := last - uint64(n) + 1; i <= last; i++ {
						delete(twin, i)
					}
					if err := a.DeleteRange(last-uint64(n)+1, last); err != nil {
						t.Fatal(err)
					}
					last -= uint64(n)
				case 4:
					if last == 0 {
						continue
					}
					i := 1 + draw.Uint64N(last)
					var l raft.Log
					if err := a.GetLog(i, &l); err != nil || string(l.Data) != twin[i] {
						t.Fatalf("entry %d is %q, want %q, %v", i, l.Data, twin[i], err)
					}
				}
			}
			if err := a.flush(); err != nil {
				t.Fatal(err)
			}
			var l raft.Log
			for i := range twin {
				if err := disk.GetLog(i, &l); err != nil || string(l.Data) != twin[i] || checkLog(&l, i) != nil {
					t.Fatalf("entry %d on disk is %q, want %q, %v", i, l.Data, twin[i], err)
				}
			}
			if got, _ := a.LastIndex(); got != last {
				t.Fatalf("last index %d, want %d", got, last)
			}
		})
	}
}
