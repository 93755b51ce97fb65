package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// SIGTERM hands the leadership over before it stops, so that writes go on almost
// at once, and none that was acknowledged is lost.
func TestStopOfLeaderHandsOver(t *testing.T) {
	c := start(t, cluster.Options{})
	l, stop := keepWriting(t, c)
	var gaps, stops cluster.Durations
	for range max(3, *kills/2) {
		old := leader(t, c)
		l.longestGap()
		began := time.Now()
		code := get[int](t)(c.Stop(old))
		stops = append(stops, time.Since(began))
		if code != 0 {
			t.Errorf("exit code %d after SIGTERM, want 0", code)
		}
		get[int](t)(c.WaitLeader(within(t, 10*time.Second), old))
		time.Sleep(300 * time.Millisecond)
		gaps = append(gaps, l.longestGap())
		restart(t, c, old)
	}
	stop()
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
	l.check(t, listAll(t, c, ""))
	t.Logf("SIGTERM of the leader: longest time in which none of 8 writers got an answer: %v", gaps)
	t.Logf("SIGTERM to the end of the process: %v", stops)
	if worst := gaps.Quantile(1); worst > 2*time.Second {
		t.Errorf("writes stopped for %v when the leader was asked to stop", worst)
	}
}

// A server whose disk was lost comes back empty with the same command line,
// as a new member, and the old one leaves the configuration.
func TestWipedServerRejoins(t *testing.T) {
	c := start(t, cluster.Options{Args: []string{"--dead-server-timeout", "3s"}})
	w := c.Writer(0, 2*time.Second)
	for n := range 50 {
		get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "before", cluster.Flag("", fmt.Sprint("f", n), "x")))
	}
	for _, victim := range []int{(leader(t, c) + 1) % 3, leader(t, c)} {
		st := get[*holdfastv1.GetStatusResponse](t)(c.Status(within(t, 5*time.Second), victim))
		must(t, c.Kill(victim))
		must(t, c.Wipe(victim))
		get[cluster.Ack](t)(w.Write(within(t, 20*time.Second), "while away", cluster.Flag("", fmt.Sprint("away", victim), "x")))
		began := time.Now()
		must(t, c.Restart(victim))
		must(t, c.WaitReady(within(t, 40*time.Second), victim))
		caughtUp := time.Since(began)
		must(t, c.WaitVoters(within(t, 60*time.Second), 3))
		t.Logf("wiped server %d has caught up after %v, is one of three voters after %v", victim,
			caughtUp.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		now := get[*holdfastv1.GetStatusResponse](t)(c.Status(within(t, 5*time.Second), victim))
		if now.GetHeader().GetServerId() == st.GetHeader().GetServerId() {
			t.Errorf("server %d came back with an empty disk under its old id", victim)
		}
		get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
		if have := listAll(t, c, ""); len(have) < 50 {
			t.Errorf("%d resources after server %d was wiped", len(have), victim)
		}
	}
}

// Two of three disks are lost. The survivor is recovered offline as documented,
// serves what it has under a higher epoch, and two empty servers join it.
func TestRecoverAfterLossOfTwoDisks(t *testing.T) {
	c := start(t, cluster.Options{})
	w := c.Writer(0, 2*time.Second)
	for n := range 50 {
		get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "before", cluster.Flag("", fmt.Sprint("f", n), "x")))
	}
	ack := get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "before", cluster.Override("", "o", time.Hour)))
	before := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second)))
	survivor := 1
	r := follow(t, c, "", survivor)
	get[cluster.ReplicaState](t)(r.Wait(within(t, 10*time.Second), reached(ack.Response.GetRevision())))
	for i := range c.Len() {
		must(t, c.Kill(i))
	}
	for _, i := range c.Others(survivor) {
		must(t, c.Wipe(i))
	}
	must(t, recoverServer(t, c, survivor))
	began := time.Now()
	must(t, c.Restart(survivor))
	must(t, c.WaitReady(within(t, 30*time.Second), survivor))
	t.Logf("recovered server serves %v after its start", time.Since(began).Round(time.Millisecond))
	for _, i := range c.Others(survivor) {
		must(t, c.Restart(i))
	}
	must(t, c.WaitVoters(within(t, 60*time.Second), 3))
	after := get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 20*time.Second)))
	checkEpochs(t, before.GetHeader(), after.GetHeader())
	if rootOf(before, "default") != rootOf(after, "default") {
		t.Errorf("roots after the recovery %s, before %s", cluster.Roots(after), cluster.Roots(before))
	}
	s := get[cluster.ReplicaState](t)(r.Wait(within(t, 20*time.Second), func(s cluster.ReplicaState) bool {
		return s.Epoch.GetCounter() == after.GetHeader().GetEpoch().GetCounter()
	}))
	if s.Snapshots != 2 {
		t.Errorf("watcher got %d snapshots, want one more after the recovery", s.Snapshots)
	}
	sameResources(t, "watcher", s.Resources, listAll(t, c, ""))
	resp, err := c.Client(0).Apply(within(t, 10*time.Second), aged(ack.Request, time.Since(ack.Began)))
	if err != nil || !resp.GetDuplicate() {
		t.Errorf("retry of a write from before the loss: %v, %v, want a duplicate", resp, err)
	}
	get[cluster.Ack](t)(c.Writer(2, 2*time.Second).Write(within(t, 10*time.Second), "after", cluster.Flag("", "after", "x")))
}

// recoverServer runs the documented command on the data of a stopped server.
func recoverServer(t *testing.T, c *cluster.Cluster, i int) error {
	t.Helper()
	id, err := os.ReadFile(filepath.Join(c.DataDir(i), "node-id"))
	must(t, err)
	args := []string{"recover", "--data-dir", c.DataDir(i), "--peers", strings.TrimSpace(string(id)) + "=" + c.RaftAddr(i)}
	out, err := command(t, server(t), args...)
	t.Logf("controlplane recover: %s", out)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}
