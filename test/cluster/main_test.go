package cluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

var (
	long  = flag.Bool("long", os.Getenv("HOLDFAST_CLUSTER_LONG") == "1", "the long profile: 20 kills, longer waits")
	kills = flag.Int("kills", 0, "how many servers each kill test kills; 0 means 5, or 20 in the long profile")
)

// The programs are built once per test process.
var builds struct {
	dir string

	mu   sync.Mutex // guards done
	done map[string]string

	previous func() (cluster.Previous, error)
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *kills <= 0 {
		*kills = 5
		if *long {
			*kills = 20
		}
	}
	dir, err := os.MkdirTemp("", "holdfast-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds.dir, builds.done = dir, make(map[string]string)
	builds.previous = sync.OnceValues(func() (cluster.Previous, error) {
		return cluster.BuildPrevious(context.Background(), filepath.Join(dir, "previous"))
	})
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// server is the server's program, built with the given arguments of go build.
func server(t *testing.T, extra ...string) string {
	t.Helper()
	return once(t, "server "+strings.Join(extra, " "), func(dir string) (string, error) {
		return cluster.BuildServer(t.Context(), dir, extra...)
	})
}

// cli is the operator's program.
func cli(t *testing.T) string {
	t.Helper()
	return once(t, "cli", func(dir string) (string, error) { return cluster.BuildCLI(t.Context(), dir) })
}

// previous is the programs of the previous version; where their sources are not at
// hand the test is skipped.
func previous(t *testing.T) cluster.Previous {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs real processes; not with -short")
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not at hand")
	}
	p, err := builds.previous()
	if errors.Is(err, cluster.ErrNoHistory) {
		t.Skip(err)
	}
	must(t, err)
	return p
}

// once builds what nobody has built yet.
func once(t *testing.T, what string, build func(dir string) (string, error)) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers; not with -short")
	}
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if path, ok := builds.done[what]; ok {
		return path
	}
	path := get[string](t)(build(filepath.Join(builds.dir, fmt.Sprint(len(builds.done)))))
	builds.done[what] = path
	return path
}

// start starts a cluster that ends with the test and shows its logs when the
// test failed.
func start(t *testing.T, opts cluster.Options) *cluster.Cluster {
	t.Helper()
	if opts.Server == "" {
		opts.Server = server(t)
	}
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := cluster.Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := range c.Len() {
			if log := c.FullLog(i); strings.Contains(log, "DATA RACE") || strings.Contains(log, "\npanic: ") {
				t.Errorf("server %d raced or panicked:\n%s", i, log)
			}
		}
		if t.Failed() {
			var logs strings.Builder
			c.Logs(&logs)
			t.Log(logs.String())
		}
		c.Close()
	})
	return c
}

// within returns a context for one step of a test.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get fails the test on an error and returns the value otherwise.
func get[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// leader waits for a leader.
func leader(t *testing.T, c *cluster.Cluster) int {
	t.Helper()
	return get[int](t)(c.WaitLeader(within(t, 20*time.Second), -1))
}

// outage disturbs and measures until a write through one of the servers is
// acknowledged.
func outage(t *testing.T, c *cluster.Cluster, disturb func() error, through ...int) time.Duration {
	t.Helper()
	var probes []func(context.Context) error
	for _, i := range through {
		probes = append(probes, c.Probe(i))
	}
	return get[time.Duration](t)(cluster.Outage(within(t, 30*time.Second), disturb, probes...))
}

// restart starts a server and waits until it has caught up.
func restart(t *testing.T, c *cluster.Cluster, i int) {
	t.Helper()
	must(t, c.Restart(i))
	must(t, c.WaitReady(within(t, 30*time.Second), i))
}

// command runs one of the programs to its end and returns what it printed.
func command(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(within(t, 30*time.Second), program, args...)
	cmd.Env = cluster.Environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}
