package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// fastTiming elects within a second and leaves a busy machine some air.
func fastTiming() Timing {
	t := DefaultTiming()
	t.Heartbeat, t.Election, t.Lease = 400*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond
	t.Commit = 20 * time.Millisecond
	t.SnapshotInterval = time.Hour // snapshots are taken by hand
	return t
}

// testCtx bounds whatever a test waits for.
func testCtx(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that nobody signals.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("never happened: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// journal is a state machine that remembers its commands in order.
type journal struct {
	mu      sync.Mutex
	entries []Entry
	poison  string // command that cannot be applied
	applied func([]Entry)
	forget  bool // remembers nothing
}

func (j *journal) Apply(entries []Entry) ([]any, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	results := make([]any, len(entries))
	for i, e := range entries {
		if j.poison != "" && string(e.Data) == j.poison {
			return nil, fmt.Errorf("unknown command %q", e.Data)
		}
		if !j.forget {
			j.entries = append(j.entries, e)
		}
		results[i] = "did " + string(e.Data)
	}
	if j.applied != nil {
		j.applied(entries)
	}
	return results, nil
}

func (j *journal) commands() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]string, len(j.entries))
	for i, e := range j.entries {
		list[i] = string(e.Data)
	}
	return list
}

func (j *journal) has(command string) bool {
	return slices.Contains(j.commands(), command)
}

func (j *journal) Snapshot() (io.WriterTo, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return image(append([]Entry(nil), j.entries...)), nil
}

func (j *journal) Restore(r io.Reader) error {
	entries, err := readImage(r)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = entries
	return nil
}

// site is one server of a test cluster: what survives a restart of its node.
type site struct {
	t     testing.TB
	cfg   Config
	sm    *journal
	node  *Node
	fatal chan error
	terms chan uint64 // terms that it led
}

func (s *site) open() error {
	s.sm = &journal{poison: s.sm.poison, applied: s.sm.applied}
	node, err := Open(s.cfg, s.sm)
	if err != nil {
		return err
	}
	s.node = node
	s.cfg.BindAddr = node.Addr()
	return nil
}

func (s *site) mustOpen() {
	s.t.Helper()
	if err := s.open(); err != nil {
		s.t.Fatal(err)
	}
}

// close stops the node, as a test that does not look at that itself would.
func (s *site) close() {
	if s.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.node.Close(ctx); err != nil {
		s.t.Errorf("close %s: %v", s.cfg.ID, err)
	}
	s.node = nil
}

// kill stops the node without its handing anything over.
func (s *site) kill() {
	s.node.trans.poison()
	s.close()
}

// links is which links between the sites of a cluster are cut.
type links struct {
	mu      sync.Mutex
	cut     map[string]bool // "from to"
	refused map[string]int  // connections, by who wanted them
}

func (n *links) refuse(from string) func(string) error {
	return func(to string) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.cut[from+" "+to] {
			n.refused[from]++
			return errors.New("link is cut")
		}
		return nil
	}
}

// refusals counts the connections that a site wanted over cut links.
func (n *links) refusals(from string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused[from]
}

// cluster is a few sites on loopback.
type cluster struct {
	t     testing.TB
	net   *links
	sites []*site
}

func newSite(tb testing.TB, id string, wires *links, change func(*Config)) *site {
	tb.Helper()
	s := &site{t: tb, sm: &journal{}, fatal: make(chan error, 1), terms: make(chan uint64, 100)}
	s.cfg = Config{
		ID:       id,
		DataDir:  tb.TempDir(),
		BindAddr: "127.0.0.1:0",
		Timing:   fastTiming(),
		Logger:   testLogger(tb, id),
		Lead:     func(ctx context.Context, term uint64) { s.terms <- term; <-ctx.Done() },
		OnFatal:  func(err error) { s.fatal <- err },
	}
	s.cfg.seams.refuse = wires.refuse(id)
	_, s.cfg.seams.noSync = tb.(*testing.T) // benchmarks pay for it
	if change != nil {
		change(&s.cfg)
	}
	tb.Cleanup(s.close)
	return s
}

// testLogger shows the node's log with HOLDFAST_TEST_LOG=1 only.
func testLogger(tb testing.TB, id string) *slog.Logger {
	tb.Helper()
	if os.Getenv("HOLDFAST_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id, "test", tb.Name())
}

// newCluster starts and bootstraps size voters.
func newCluster(tb testing.TB, size int, change func(*Config)) *cluster {
	tb.Helper()
	c := &cluster{t: tb, net: &links{cut: make(map[string]bool), refused: make(map[string]int)}}
	var members []Member
	for i := range size {
		s := newSite(tb, fmt.Sprintf("n%d", i+1), c.net, func(cfg *Config) {
			if size == 1 { // depends on nobody
				cfg.Timing.Heartbeat, cfg.Timing.Election, cfg.Timing.Lease = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
			}
			if change != nil {
				change(cfg)
			}
		})
		s.mustOpen()
		c.sites = append(c.sites, s)
		members = append(members, Member{ID: s.cfg.ID, Addr: s.node.Addr(), Voter: true})
	}
	if err := c.sites[0].node.Bootstrap(members); err != nil {
		tb.Fatal(err)
	}
	return c
}

// leader waits for a leader among the sites that are up.
func (c *cluster) leader(except ...*site) *site {
	c.t.Helper()
	var found *site
	eventually(c.t, "a leader", func() bool {
	next:
		for _, s := range c.sites {
			for _, e := range except {
				if s == e {
					continue next
				}
			}
			if s.node == nil || s.node.Status().Role != Leader {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, err := s.node.ReadIndex(ctx)
			cancel()
			if err == nil {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

func (c *cluster) follower(leader *site) *site {
	for _, s := range c.sites {
		if s != leader && s.node != nil {
			return s
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// isolate cuts every link of a site; heal undoes it.
func (c *cluster) isolate(s *site) {
	c.net.mu.Lock()
	for _, other := range c.sites {
		if other != s {
			c.net.cut[s.cfg.ID+" "+other.cfg.BindAddr] = true
			c.net.cut[other.cfg.ID+" "+s.cfg.BindAddr] = true
		}
	}
	c.net.mu.Unlock()
	for _, from := range c.sites {
		if from.node == nil {
			continue
		}
		refuse := c.net.refuse(from.cfg.ID)
		from.node.trans.stream.drop(func(conn *streamConn) bool {
			return conn.target != "" && refuse(conn.target) != nil
		})
	}
}

func (c *cluster) heal() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	clear(c.net.cut)
}

func (s *site) propose(command string) uint64 {
	s.t.Helper()
	index, result, err := s.node.Propose(testCtx(s.t), []byte(command))
	if err != nil {
		s.t.Fatalf("propose %q: %v", command, err)
	}
	if result != "did "+command {
		s.t.Fatalf("propose %q: result %v", command, result)
	}
	return index
}

func (s *site) waitApplied(index uint64) {
	s.t.Helper()
	if err := s.node.WaitApplied(testCtx(s.t), index); err != nil {
		s.t.Fatalf("%s: %v", s.cfg.ID, err)
	}
}

func (s *site) expectFatal(target error) error {
	s.t.Helper()
	select {
	case err := <-s.fatal:
		if target != nil && !errors.Is(err, target) {
			s.t.Fatalf("fatal error %v, want %v", err, target)
		}
		return err
	case <-testCtx(s.t).Done():
		s.t.Fatal("no fatal error")
		return nil
	}
}

func (s *site) snapshot() {
	s.t.Helper()
	if err := s.node.raft.Snapshot().Error(); err != nil {
		s.t.Fatalf("snapshot: %v", err)
	}
}

func (s *site) snapshotDirs() []string {
	s.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.cfg.DataDir, snapshotDir, "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return dirs
}
