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

// sampler watches state time on all servers.
type sampler struct {
	mu      sync.Mutex // guards the fields below
	last    map[string]time.Time
	highest time.Time
	errs    []error
	across  time.Duration // worst step back from one server to another
	samples int
}

// run asks one server after the other until ctx ends. Each answer was made
// after the one before had arrived.
func (s *sampler) run(ctx context.Context, c *cluster.Cluster) {
	for ctx.Err() == nil {
		for i := range c.Len() {
			if !c.Serves(ctx, i) {
				continue // status is told always, also before a leader has told the time
			}
			if st, err := c.Status(ctx, i); err == nil && st.GetLeaderId() != "" {
				s.note(st)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *sampler) note(st *holdfastv1.GetStatusResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A run of a server is one source; after a restart it begins anew.
	source := st.GetHeader().GetServerId() + st.GetStartTime().String()
	now := st.GetHeader().GetStateTime().AsTime()
	if before, ok := s.last[source]; ok && now.Before(before) {
		s.errs = append(s.errs, fmt.Errorf("state time of server %s went back by %v", source, before.Sub(now)))
	}
	s.last[source] = now
	s.across = max(s.across, s.highest.Sub(now))
	if now.After(s.highest) {
		s.highest = now
	}
	s.samples++
}

// Overrides end by themselves when they are due, neither earlier nor later when
// the leader dies in between, and state time goes forward all the while.
func TestOverrideEndsOnTimeAcrossLeaderChange(t *testing.T) {
	c := start(t, cluster.Options{})
	times := &sampler{last: make(map[string]time.Time)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	group.Go(func() { times.run(ctx, c) })
	rounds := max(2, *kills/3)
	var late cluster.Durations
	for round := range rounds {
		// In even rounds the new leader has time before the end is due, in odd
		// rounds the end falls into the time without a leader.
		ttl, killAfter := 4*time.Second, 500*time.Millisecond
		if round%2 == 1 {
			ttl, killAfter = 2*time.Second, 1900*time.Millisecond
		}
		late = append(late, overrideRound(t, c, round, ttl, killAfter)...)
	}
	stop()
	group.Wait()
	for _, err := range times.errs {
		t.Error(err)
	}
	if times.across > time.Second {
		t.Errorf("estimates of state time of two servers were %v apart", times.across)
	}
	audit := &auditor{}
	must(t, audit.collect(within(t, 20*time.Second), c.Client(0)))
	checkEnds(t, audit, rounds)
	t.Logf("end of an override to its arrival at a watcher, with the leader killed before: %v", late)
	t.Logf("%d samples of state time; worst difference of two servers' estimates %s ms", times.samples, cluster.Millis(times.across))
}

// overrideRound puts one override, kills the leader, and returns how late the
// end was at the surviving servers' watchers.
func overrideRound(t *testing.T, c *cluster.Cluster, round int, ttl, killAfter time.Duration) cluster.Durations {
	t.Helper()
	old := leader(t, c)
	survivors := c.Others(old)
	var replicas []*cluster.Replica
	for _, i := range survivors {
		replicas = append(replicas, follow(t, c, "", i))
	}
	name := fmt.Sprint("end", round)
	sent := time.Now()
	get[cluster.Ack](t)(c.Writer(survivors[0], 5*time.Second).Write(within(t, 10*time.Second), "round", cluster.Override("", name, ttl)))
	acked := time.Now()
	time.Sleep(time.Until(acked.Add(killAfter)))
	gap := outage(t, c, func() error { return c.Kill(old) }, survivors...)
	writable := time.Now()
	var late cluster.Durations
	for i, r := range replicas {
		s := get[cluster.ReplicaState](t)(r.Wait(within(t, 20*time.Second), func(s cluster.ReplicaState) bool {
			_, ok := s.Ended[name]
			return ok
		}))
		ended := s.Ended[name]
		if early := sent.Add(ttl).Sub(ended); early > 0 {
			t.Errorf("round %d: override ended %v early at server %d", round, early, survivors[i])
		}
		due := acked.Add(ttl)
		if writable.After(due) {
			due = writable
		}
		if after := ended.Sub(due); after > time.Second {
			t.Errorf("round %d: override ended %v after it could have, at server %d (writes stopped for %v)", round, after, survivors[i], gap)
		}
		late = append(late, ended.Sub(acked.Add(ttl)))
	}
	t.Logf("round %d: ends %v after its put, leader killed after %v, no writes for %v, end seen %v after it was due", round, ttl, killAfter,
		gap.Round(time.Millisecond), late[0].Round(time.Millisecond))
	restart(t, c, old)
	return late
}

// checkEnds requires one end for every override, by the cluster itself, and not
// before the time that the override carried.
func checkEnds(t *testing.T, audit *auditor, rounds int) {
	t.Helper()
	ends := map[string]int{}
	for _, r := range audit.records {
		for _, ch := range r.GetChanges() {
			if ch.GetType() != holdfastv1.ChangeType_CHANGE_TYPE_ENDED {
				continue
			}
			ends[ch.GetKey().GetName()]++
			if len(r.GetRequestId()) != 0 {
				t.Errorf("the end of %v carries a request id", ch.GetKey())
			}
		}
	}
	if len(ends) != rounds {
		t.Errorf("ends in the audit: %v, want %d", ends, rounds)
	}
	for name, n := range ends {
		if n != 1 {
			t.Errorf("override %s ended %d times", name, n)
		}
	}
}

// A server that was away knows what time it is before it answers: a client that
// compares ends of overrides with its answer must not make them longer.
func TestRestartedServerKnowsStateTime(t *testing.T) {
	t.Parallel()
	c := start(t, cluster.Options{})
	victim := c.Others(leader(t, c))[0]
	get[cluster.Ack](t)(c.Writer(0, time.Second).Write(within(t, 10*time.Second), "before", cluster.Flag("", "before", "x")))
	must(t, c.Kill(victim))
	time.Sleep(4 * time.Second) // without a write
	must(t, c.Restart(victim))
	must(t, c.WaitReady(within(t, 20*time.Second), victim))
	lead := get[*holdfastv1.GetStatusResponse](t)(c.Status(within(t, 5*time.Second), leader(t, c)))
	st := get[*holdfastv1.GetStatusResponse](t)(c.Status(within(t, 5*time.Second), victim))
	behind := lead.GetHeader().GetStateTime().AsTime().Sub(st.GetHeader().GetStateTime().AsTime())
	t.Logf("restarted server is %v behind the leader's state time", behind.Round(time.Millisecond))
	if behind > time.Second {
		t.Errorf("restarted server serves with a state time %v behind the leader's", behind)
	}
}
