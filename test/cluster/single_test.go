package cluster_test

import (
	"context"
	"errors"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// A server without any cluster settings is durable: a kill at any time loses no
// acknowledged write.
func TestSingleServerIsDurable(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Servers: 1})
	l := &ledger{acked: make(map[string]uint64)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for who := range 4 {
		writers.Go(func() { l.fill(ctx, c, who, 0) })
	}
	var down cluster.Durations
	for range *kills {
		time.Sleep(300 * time.Millisecond) // of writing
		must(t, c.Kill(0))
		down = append(down, outage(t, c, func() error { return c.Restart(0) }, 0))
	}
	stop()
	writers.Wait()
	l.check(t, listAll(t, c, ""))
	t.Logf("%d acknowledged writes over %d kills, all there; start to first acknowledged write: %v", len(l.acked), len(down), down)
}

// Two processes never work on one data directory.
func TestDataDirectoryIsUsedOnce(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{Servers: 1})
	out, err := command(t, server(t), "--data-dir", c.DataDir(0), "--port-base", "0")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() <= 0 {
		t.Errorf("second server on one directory: %v, want a refusal:\n%s", err, out)
	}
	if _, err := c.Status(within(t, 5*time.Second), 0); err != nil {
		t.Errorf("the first server suffered: %v", err)
	}
}
