package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// follow keeps a replica of a namespace up to date through one server until
// the test ends, and waits for its first state.
func follow(t *testing.T, c *cluster.Cluster, namespace string, servers ...int) *cluster.Replica {
	t.Helper()
	r := cluster.NewReplica(namespace)
	var clients []holdfastv1.StateServiceClient
	for _, i := range servers {
		clients = append(clients, c.Client(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = r.Keep(ctx, clients...) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
		if err := r.Err(); err != nil {
			t.Errorf("watch through servers %v: %v", servers, err)
		}
	})
	get[cluster.ReplicaState](t)(r.Wait(within(t, 20*time.Second), func(s cluster.ReplicaState) bool { return s.Snapshots > 0 }))
	return r
}

func reached(revision uint64) func(cluster.ReplicaState) bool {
	return func(s cluster.ReplicaState) bool { return s.Revision >= revision }
}

// A change through any server reaches watchers on all servers, and replicas
// that followed different servers end up with the same resources.
func TestChangeThroughAnyServerReachesEveryWatcher(t *testing.T) {
	c := start(t, cluster.Options{})
	replicas := make([]*cluster.Replica, c.Len())
	for i := range replicas {
		replicas[i] = follow(t, c, "", i)
	}
	var extra cluster.Durations
	var last uint64
	for n := range 60 {
		through := n % c.Len()
		op := cluster.Flag("", fmt.Sprintf("f%d", n%7), fmt.Sprint(n))
		if n%10 == 9 {
			op = cluster.Delete("", fmt.Sprintf("f%d", (n-1)%7))
		}
		ack := get[cluster.Ack](t)(c.Writer(through, 5*time.Second).Write(within(t, 10*time.Second), "change", op))
		acked := time.Now()
		last = ack.Response.GetRevision()
		for i, r := range replicas {
			get[cluster.ReplicaState](t)(r.Wait(within(t, 10*time.Second), reached(last)))
			if i != through {
				extra = append(extra, time.Since(acked))
			}
		}
	}
	have := listAll(t, c, "")
	for i, r := range replicas {
		s := get[cluster.ReplicaState](t)(r.Wait(within(t, 10*time.Second), reached(last)))
		sameResources(t, fmt.Sprintf("replica through server %d", i), s.Resources, have)
		if s.Snapshots != 1 {
			t.Errorf("server %d sent %d snapshots, want the first one only", i, s.Snapshots)
		}
		if string(s.Root) != string(replicas[0].State().Root) {
			t.Errorf("server %d gave root %x, server 0 %x", i, s.Root, replicas[0].State().Root)
		}
	}
	t.Logf("from the acknowledgement to the watchers on the other servers, one after the other: median %s, p90 %s, worst %s ms",
		cluster.Millis(extra.Quantile(0.5)), cluster.Millis(extra.Quantile(0.9)), cluster.Millis(extra.Quantile(1)))
}

func sameResources(t *testing.T, who string, got, want map[string]*holdfastv1.Resource) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s has %d resources, want %d", who, len(got), len(want))
	}
	for name, w := range want {
		if g := got[name]; g.GetModRevision() != w.GetModRevision() || string(g.GetSpec()) != string(w.GetSpec()) ||
			g.GetVersion() != w.GetVersion() {
			t.Errorf("%s has %s as %v, want %v", who, name, g, w)
		}
	}
}

// A watcher that loses its server goes on through another one with deltas, also
// when that one is behind it, and never sees the state go back.
func TestWatchResumesOnAnotherServer(t *testing.T) {
	c := start(t, cluster.Options{})
	lead := leader(t, c)
	first, second := (lead+1)%3, (lead+2)%3
	r := follow(t, c, "", first, second)
	w := c.Writer(lead, 2*time.Second)
	for n := range 20 {
		get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "before", cluster.Flag("", fmt.Sprint("f", n), "1")))
	}
	// The second server misses what the watcher still gets from the first one.
	must(t, c.Pause(second))
	ack := get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "missed", cluster.Flag("", "missed", "1")))
	get[cluster.ReplicaState](t)(r.Wait(within(t, 10*time.Second), reached(ack.Response.GetRevision())))
	must(t, c.Kill(first))
	// Let the reconnect attempt wait at the paused server, so that the server
	// meets a cursor from its future in the moment in which it wakes up.
	time.Sleep(200 * time.Millisecond)
	must(t, c.Resume(second))
	ack = get[cluster.Ack](t)(w.Write(within(t, 20*time.Second), "after", cluster.Flag("", "after", "1")))
	s := get[cluster.ReplicaState](t)(r.Wait(within(t, 20*time.Second), reached(ack.Response.GetRevision())))
	if s.Snapshots != 1 {
		t.Errorf("%d snapshots, want the first one only: the resumed watch should continue with deltas", s.Snapshots)
	}
	sameResources(t, "resumed watcher", s.Resources, get[map[string]*holdfastv1.Resource](t)(list(within(t, 10*time.Second), c.Client(second), "")))
}

// A document larger than a gRPC message arrives in chunks, also while it is
// being changed, and is the same everywhere.
func TestLargeDocumentTravelsInChunks(t *testing.T) {
	c := start(t, cluster.Options{})
	w := c.Writer(0, 10*time.Second)
	const flags, size = 100, 60 << 10
	for n := range flags {
		text := strings.Repeat(string(rune('a'+n%26)), size)
		get[cluster.Ack](t)(w.Write(within(t, 20*time.Second), "large", cluster.Flag("", fmt.Sprint("large", n), text)))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	group.Go(func() {
		churn := c.Writer(1, 5*time.Second)
		for n := 0; ctx.Err() == nil; n++ {
			// Until it is answered: a write that was given up may still be done later.
			_, _ = churn.Write(t.Context(), "churn", cluster.Flag("", fmt.Sprint("churn", n%5), fmt.Sprint(n)))
		}
	})
	var replicas []*cluster.Replica
	for i := range c.Len() {
		replicas = append(replicas, follow(t, c, "", i))
	}
	stop()
	group.Wait()
	st := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second)))
	have := listAll(t, c, "")
	for i, r := range replicas {
		s := get[cluster.ReplicaState](t)(r.Wait(within(t, 10*time.Second), reached(st.GetHeader().GetRevision())))
		if s.Chunks < 6 {
			t.Errorf("server %d sent %d KiB in %d chunks, want chunks of at most 1 MiB", i, flags*size>>10, s.Chunks)
		}
		sameResources(t, fmt.Sprintf("replica through server %d", i), s.Resources, have)
		if root := st.GetNamespaces()[0].GetRoot(); string(s.Root) != string(root) {
			t.Errorf("server %d gave root %x, want %x", i, s.Root, root)
		}
	}
	t.Logf("%d KiB arrived in %d chunks", flags*size>>10, replicas[0].State().Chunks)
}
