package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/version"
	"github.com/holdfast-dev/holdfast/pkg/client"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// Servers of the previous version are replaced one by one while clients write, a
// watcher of that version looks on, and an instance with the SDK follows: nothing that
// was acknowledged is lost, all come to the same state, and neither the watcher nor
// the instance goes back.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	before := previous(t)
	current := server(t)
	c := start(t, cluster.Options{Server: before.Server})
	in := openInstance(t, addresses(c))
	in.has(t, write(t, c, 0, storefront()))
	if s := in.Status(); !s.Connected || s.ServerID != "" {
		t.Errorf("the instance has a session with server %q of %s: %+v", s.ServerID, before.Version, s)
	}
	watched := watchByCLI(t, c, before.CLI)

	l := &ledger{acked: make(map[string]uint64)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for who := range 3 {
		writers.Go(func() { l.fill(ctx, c, who, 5*time.Millisecond) })
	}
	c.Upgrade(current)
	for i := range c.Len() {
		if code := get[int](t)(c.Stop(i)); code != 0 {
			t.Errorf("server %d of %s ended with %d", i, before.Version, code)
		}
		restart(t, c, i)
	}
	stop()
	writers.Wait()
	have := listAll(t, c, "")
	delete(have, cluster.ResourceName(holdfastv1.Kind_KIND_MODE, "storefront"))
	l.check(t, have)
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 30*time.Second)))
	for i := range c.Len() {
		members := get[*holdfastv1.ListMembersResponse](t)(c.Admin(i).ListMembers(within(t, 10*time.Second), &holdfastv1.ListMembersRequest{}))
		for _, m := range members.GetMembers() {
			if !strings.HasPrefix(m.GetVersion(), version.Version) {
				t.Errorf("server %d sees %s with version %q, want %s", i, m.GetId(), m.GetVersion(), version.Version)
			}
		}
	}
	t.Logf("%d acknowledged writes from %s to %s", len(l.acked), before.Version, version.Version)
	upgraded(t, c, before, in, watched, l)
}

// upgraded requires that what came before goes on with the new servers: the old
// watcher has seen every change, the instance has a session now, and the old program
// operates.
func upgraded(t *testing.T, c *cluster.Cluster, before cluster.Previous, in *instance, watched *logs, l *ledger) {
	t.Helper()
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		seen := watched.String()
		for name := range l.acked {
			if !strings.Contains(seen, `"`+name+`"`) {
				return fmt.Errorf("a watcher of %s has not seen %s", before.Version, name)
			}
		}
		return nil
	}))
	in.wait(t, "in a session", func(s client.Status) bool { return s.Connected && s.ServerID != "" })
	servers := strings.Join(addresses(c), ",")
	for _, args := range [][]string{
		{"mode", "set", "storefront", "read-only", "--for", "1m", "--reason", "upgrade", "--wait"},
		{"cluster", "status"},
		{"mode", "list"},
		{"flag", "list"},
		{"audit"},
	} {
		if out, err := command(t, before.CLI, append([]string{"--addr", servers}, args...)...); err != nil {
			t.Errorf("%s of %s: %v\n%s", strings.Join(args, " "), before.Version, err, out)
		}
	}
	in.wait(t, "read-only", func(client.Status) bool { return in.Mode("storefront").Is("read-only") })
}

// watchByCLI follows the cluster by an operator's program until the test ends.
func watchByCLI(t *testing.T, c *cluster.Cluster, program string) *logs {
	t.Helper()
	out := &logs{}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, program, "--addr", strings.Join(addresses(c), ","), "watch", "-o", "json")
	cmd.Env, cmd.Stdout, cmd.Stderr = cluster.Environ(), out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		if t.Failed() && len(out.String()) < 1<<12 {
			t.Logf("the watcher printed: %s", out)
		}
	})
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		if len(out.lines("watching namespace")) == 0 {
			return errors.New("the watcher has not begun")
		}
		return nil
	}))
	return out
}
