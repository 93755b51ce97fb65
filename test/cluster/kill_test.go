package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// ledger remembers what was acknowledged.
type ledger struct {
	mu    sync.Mutex // guards the fields below
	acked map[string]uint64
	errs  []error
	last  time.Time     // of an acknowledgement
	gap   time.Duration // longest without one
}

func (l *ledger) note(name string, revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[name] = revision
	l.gap = max(l.gap, time.Since(l.last))
	l.last = time.Now()
}

// longestGap is the longest time without an acknowledgement since the last call.
func (l *ledger) longestGap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := max(l.gap, time.Since(l.last))
	l.gap, l.last = 0, time.Now()
	return gap
}

// fill writes keys of its own until ctx ends; what is under way then is still
// brought to an end.
func (l *ledger) fill(ctx context.Context, c *cluster.Cluster, who int, pause time.Duration) {
	w := c.Writer(who, time.Second)
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("w%d-%d", who, n)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		ack, err := w.Write(last, "fill", cluster.Create(cluster.Flag("", name, name)))
		cancel()
		if err != nil {
			l.mu.Lock()
			l.errs = append(l.errs, fmt.Errorf("%s: %w", name, err))
			l.mu.Unlock()
			return
		}
		l.note(name, ack.Response.GetRevision())
		time.Sleep(pause)
	}
}

// check compares what is there with what was acknowledged: every writer ends
// with an answer to all its writes, so both must be equal.
func (l *ledger) check(t *testing.T, have map[string]*holdfastv1.Resource) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.errs {
		t.Error(err)
	}
	for name, revision := range l.acked {
		r, ok := have[cluster.ResourceName(holdfastv1.Kind_KIND_FLAG, name)]
		switch {
		case !ok:
			t.Errorf("acknowledged write %s at revision %d is lost", name, revision)
		case r.GetModRevision() != revision || r.GetVersion() != 1 || string(r.GetSpec()) != string(cluster.FlagSpec(name)):
			t.Errorf("write %s acknowledged at revision %d is now %v", name, revision, r)
		}
	}
	if len(have) != len(l.acked) {
		t.Errorf("%d resources, %d acknowledged", len(have), len(l.acked))
	}
}

// keepWriting lets 8 writers fill the cluster until stop is called, which waits
// for the answers to what is under way.
func keepWriting(t *testing.T, c *cluster.Cluster) (l *ledger, stop func()) {
	t.Helper()
	l = &ledger{acked: make(map[string]uint64), last: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for who := range 8 {
		writers.Go(func() { l.fill(ctx, c, who, 20*time.Millisecond) })
	}
	stop = func() { cancel(); writers.Wait() }
	t.Cleanup(stop)
	return l, stop
}

// A server that is killed takes no acknowledged write with it, whichever it is,
// and neither does the loss of all processes at once.
func TestKillLosesNoAcknowledgedWrite(t *testing.T) {
	c := start(t, cluster.Options{})
	l, stop := keepWriting(t, c)
	var ofLeader, ofFollower cluster.Durations
	for k := range *kills {
		time.Sleep(time.Second) // of writing in peace
		lead := leader(t, c)
		victim := lead
		if k%3 == 2 {
			victim = (lead + 1) % c.Len()
		}
		gap := outage(t, c, func() error { return c.Kill(victim) }, c.Others(victim)...)
		if victim == lead {
			ofLeader = append(ofLeader, gap)
		} else {
			ofFollower = append(ofFollower, gap)
		}
		restart(t, c, victim)
	}
	stop()
	t.Logf("kill -9 of the leader to the first acknowledged write: %v (etcd with its defaults: median 1300, worst 1600 ms)", ofLeader)
	t.Logf("kill -9 of a follower to the first acknowledged write: %v", ofFollower)
	if worst := ofLeader.Quantile(1); worst > 5*time.Second {
		t.Errorf("writes stopped for %v after a kill of the leader", worst)
	}
	if worst := ofFollower.Quantile(1); worst > time.Second {
		t.Errorf("writes stopped for %v after a kill of a follower", worst)
	}
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
	l.check(t, listAll(t, c, ""))

	for i := range c.Len() {
		must(t, c.Kill(i))
	}
	for i := range c.Len() {
		must(t, c.Restart(i))
	}
	must(t, c.WaitVoters(within(t, 30*time.Second), 3))
	l.check(t, listAll(t, c, ""))
	t.Logf("%d acknowledged writes, all there, also after kill -9 of all servers at once", len(l.acked))
}

// A leader that was stopped for longer than an election must not answer a
// linearizable read from what it had, in the moment in which it wakes up.
func TestPausedLeaderServesNoStaleRead(t *testing.T) {
	c := start(t, cluster.Options{})
	w := c.Writer(0, time.Second)
	for round := range 3 {
		old := leader(t, c)
		get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "before", cluster.Flag("", "paused", fmt.Sprint("before", round))))
		must(t, c.Pause(old))
		next := get[int](t)(c.WaitLeader(within(t, 20*time.Second), old))
		want := fmt.Sprint("after", round)
		ack := get[cluster.Ack](t)(c.Writer(next, time.Second).Write(within(t, 10*time.Second), "after", cluster.Flag("", "paused", want)))
		type answer struct {
			resource *holdfastv1.Resource
			err      error
		}
		const readers = 8
		answers := make(chan answer, readers)
		ctx := within(t, 30*time.Second)
		for range readers {
			// These begin after the acknowledgement, wait in the socket of the
			// paused process, and are the first thing that it does when it wakes up.
			go func() {
				resp, err := c.Client(old).Get(ctx, &holdfastv1.GetRequest{
					Key:  &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: "paused"},
					Read: &holdfastv1.ReadOptions{Consistency: holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE},
				})
				answers <- answer{resp.GetResource(), err}
			}()
		}
		time.Sleep(200 * time.Millisecond) // until they are in the socket
		must(t, c.Resume(old))
		fresh := 0
		for range readers {
			a := <-answers
			if a.err != nil {
				continue // it may say that it does not know
			}
			if a.resource.GetModRevision() < ack.Response.GetRevision() {
				t.Errorf("round %d: paused leader answered revision %d, %d was acknowledged before it woke up",
					round, a.resource.GetModRevision(), ack.Response.GetRevision())
			}
			fresh++
		}
		t.Logf("round %d: %d of %d reads queued at the paused leader were answered, all fresh", round, fresh, readers)
		must(t, c.WaitReady(within(t, 20*time.Second), old))
	}
}
