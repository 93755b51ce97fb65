package process_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// steps is the life of servers as it was told.
type steps struct {
	mu  sync.Mutex // guards all
	all []string
}

func (s *steps) tell(id, event string, code int, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, fmt.Sprintf("%s %s %d", id, event, code))
}

func (s *steps) has(step string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.all, step)
}

func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, told *steps) (*process.Cluster, string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers; not with -short")
	}
	bin, err := cluster.BuildServer(t.Context(), t.TempDir(), "-tags", "faults")
	must(t, err)
	// An address of its own for each test process, so that two do not meet.
	pid := os.Getpid()
	var ips []netip.Addr
	for i := range byte(3) {
		ips = append(ips, netip.AddrFrom4([4]byte{127, byte(64 + pid%128), byte(pid >> 7), i + 1}))
	}
	dir := t.TempDir()
	c, err := process.New(process.Config{
		Dir: dir, Program: bin, IPs: ips, Tell: told.tell, Args: []string{"--dead-server-timeout", "2s"},
	})
	must(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*"))
			for _, log := range logs {
				data, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", log, data)
			}
		}
	})
	must(t, c.Start(within(t, 30*time.Second)))
	return c, dir
}

// A cluster survives what this package does to it, and every step is told.
func TestLifeOfServers(t *testing.T) {
	told := &steps{}
	c, dir := start(t, told)
	first, err := c.WaitLeader(within(t, 10*time.Second))
	must(t, err)

	proof, err := first.Pause("test")
	must(t, err)
	if states := strings.TrimPrefix(proof[strings.LastIndex(proof, " ")+1:], " "); strings.Trim(states, "T") != "" || states == "" {
		t.Errorf("a paused server's threads are %q, want T only", states)
	}
	second, err := c.WaitLeader(within(t, 15*time.Second), first)
	must(t, err)
	must(t, first.Resume())
	must(t, first.WaitCaughtUp(within(t, 15*time.Second)))

	second.Kill("test")
	third, err := c.WaitLeader(within(t, 15*time.Second), second)
	must(t, err)
	must(t, second.Wipe("test"))
	must(t, second.Start())
	must(t, second.WaitVoters(within(t, 60*time.Second), 3))

	must(t, third.TransferTo(within(t, 5*time.Second), ""))
	_, err = c.WaitLeader(within(t, 15*time.Second), third)
	must(t, err)
	must(t, third.Stop("test"))
	must(t, c.Revive())
	must(t, third.WaitCaughtUp(within(t, 15*time.Second)))

	for _, step := range []string{
		first.ID + " pause 0", first.ID + " resume 0", second.ID + " kill 0", second.ID + " exit -1",
		second.ID + " wipe 0", third.ID + " stop 0", third.ID + " exit 0",
	} {
		if !told.has(step) {
			t.Errorf("nobody was told of %q: %v", step, told.all)
		}
	}
	traces, _ := filepath.Glob(filepath.Join(dir, "trace", second.ID+".*.jsonl"))
	if len(traces) != 2 {
		t.Errorf("%s was started twice and left the traces %v", second.ID, traces)
	}
	usage, err := first.Usage(within(t, 5*time.Second))
	if err != nil || usage.Goroutines == 0 || usage.FDs == 0 || usage.RSS == 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
}

// A backup can be taken and restored while the cluster serves.
func TestBackupAndRestore(t *testing.T) {
	c, _ := start(t, &steps{})
	data, err := c.Servers[1].Backup(within(t, 10*time.Second))
	must(t, err)
	before, err := c.Servers[0].Status(t.Context())
	must(t, err)
	after, err := c.Servers[2].Restore(within(t, 10*time.Second), data)
	must(t, err)
	if after.GetRevision() <= before.GetHeader().GetRevision() || after.GetEpoch().GetCounter() <= before.GetHeader().GetEpoch().GetCounter() {
		t.Errorf("restored as %v, was at %v", after, before.GetHeader())
	}
}
