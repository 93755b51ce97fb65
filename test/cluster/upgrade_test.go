package cluster_test

import (
	"context"
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
// watcher of that version looks on, and instances with the SDKs of both versions
// follow: nothing that was acknowledged is lost, all come to the same state, and
// neither the watcher nor the instances go back.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	before := previous(t)
	current := server(t)
	c := start(t, cluster.Options{Server: before.Server})
	in := openInstance(t, addresses(c))
	in.has(t, write(t, c, 0, storefront()))
	watched := watchByCLI(t, c, before.CLI)
	old := follower(t, "obeys", before.Instance, strings.Join(addresses(c), ","), t.TempDir())

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
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		if lines := old.lines("level=read-only connected=true problems=0"); len(lines) == 0 {
			return fmt.Errorf("an instance of %s does not obey", before.Version)
		}
		return nil
	}))
	forward(t, old.lines("obeys"))
}

// forward requires that the revisions in lines never go back, and that nothing had
// to be fetched anew.
func forward(t *testing.T, lines []string) {
	t.Helper()
	var last uint64
	for _, line := range lines {
		var revision uint64
		if _, err := fmt.Sscanf(line, "obeys revision=%d", &revision); err != nil || revision < last || !strings.Contains(line, "resyncs=0") {
			t.Errorf("after revision %d: %s (%v)", last, line, err)
		}
		last = revision
	}
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
	return follower(t, "watching namespace", program, "--addr", strings.Join(addresses(c), ","), "watch", "-o", "json")
}

// follower runs a program that follows the cluster until the test ends. It has begun
// once it has printed something.
func follower(t *testing.T, begun, program string, args ...string) *logs {
	t.Helper()
	out := &logs{}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = cluster.Environ(), out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		if t.Failed() && len(out.String()) < 1<<14 {
			t.Logf("%s printed: %s", program, out)
		}
	})
	must(t, cluster.Poll(within(t, 20*time.Second), func() error {
		if len(out.lines(begun)) == 0 {
			return fmt.Errorf("%s has not begun", program)
		}
		return nil
	}))
	return out
}
