package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
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
// neither the watcher nor the instances go back. Servers of both versions understand
// each other's gossip all the while, and an instance takes part in fleet health as soon as
// its server can.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	before := previous(t)
	current := server(t)
	c := start(t, cluster.Options{Server: before.Server})
	in := openInstance(t, addresses(c))
	in.has(t, write(t, c, 0, storefront()))
	if g := in.Status().Gossip; g.Mode != client.GossipOff || !strings.Contains(g.Why, "before 0.4") {
		t.Errorf("at a server of %s an instance says of gossip: %+v", before.Version, g)
	}
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
		understood(t, c, i+1, before)
	}
	stop()
	writers.Wait()
	in.wait(t, "in fleet health", func(s client.Status) bool { return s.Gossip.Mode == client.GossipRelayed && s.Gossip.Why == "" })
	if lines := in.log.lines("level=ERROR"); len(lines) > 0 {
		t.Errorf("the instance logs errors: %s", lines)
	}
	have := listAll(t, c, "")
	delete(have, cluster.ResourceName(holdfastv1.Kind_KIND_MODE, "storefront"))
	l.check(t, have)
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 30*time.Second)))
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

// understood requires that each server hears from every other one, what it is and how far
// it has come, while so many have been replaced, and that those find nothing in it that
// they cannot read.
func understood(t *testing.T, c *cluster.Cluster, replaced int, before cluster.Previous) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	since := get[*holdfastv1.GetStatusResponse](t)(c.Status(ctx, 0)).GetHeader().GetRevision()
	want := map[string]string{}
	for i := range c.Len() {
		want[c.Addr(i)] = version.Version
		if i >= replaced {
			want[c.Addr(i)] = before.Version
		}
	}
	for i := range c.Len() {
		must(t, cluster.Poll(ctx, func() error {
			members, err := c.Admin(i).ListMembers(ctx, &holdfastv1.ListMembersRequest{})
			if err != nil {
				return fmt.Errorf("list members: %w", err)
			}
			for _, m := range members.GetMembers() {
				if is := want[m.GetApiAddr()]; is == "" || !m.GetAlive() || !strings.HasPrefix(m.GetVersion(), is) || m.GetRevision() < since {
					return fmt.Errorf("server %d, %d replaced, sees %v; want version %q, revision %d", i, replaced, m, is, since)
				}
			}
			return nil
		}))
	}
	for i := range replaced {
		for _, what := range []string{"pool_malformed_total", "pool_dropped_total", "fleet_malformed_total", "diverged_index"} {
			if got := figure(t, c, i, "holdfast_"+what); got != "0" {
				t.Errorf("server %d, %d replaced: %s is %s", i, replaced, what, got)
			}
		}
	}
}

// figure reads one of a server's metrics.
func figure(t *testing.T, c *cluster.Cluster, i int, name string) string {
	t.Helper()
	req := get[*http.Request](t)(http.NewRequestWithContext(within(t, 10*time.Second), http.MethodGet, "http://"+c.HTTPAddr(i)+"/metrics", nil))
	resp := get[*http.Response](t)(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	for line := range strings.Lines(string(get[[]byte](t)(io.ReadAll(resp.Body)))) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			return value
		}
	}
	return "missing"
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
