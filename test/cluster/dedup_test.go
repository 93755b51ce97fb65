package cluster_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// A retry is answered with the first outcome, from whichever server and also
// after the leader and then every process has gone; the same id with another
// body is refused.
func TestRetryIsAnsweredWithTheFirstOutcome(t *testing.T) {
	c := start(t, cluster.Options{})
	w := c.Writer(0, time.Second)
	began := time.Now()
	put := get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "first", cluster.Override("", "o", time.Hour)))
	refusedReq := w.NewRequest("refused", cluster.Expect(cluster.Flag("", "nobody", "x"), 999))
	_, firstRefusal := w.Send(within(t, 10*time.Second), refusedReq, time.Now())
	wantRefusal(t, firstRefusal, codes.FailedPrecondition, "REVISION_MISMATCH")
	// The refused put would be possible now; its retry must stay refused.
	get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "unrelated", cluster.Flag("", "other", "x")))

	check := func(when string) {
		t.Helper()
		for i := range c.Len() {
			resp, err := c.Client(i).Apply(within(t, 10*time.Second), aged(put.Request, time.Since(began)))
			must(t, err)
			if !resp.GetDuplicate() || resp.GetRevision() != put.Response.GetRevision() {
				t.Errorf("%s, server %d: retry answered %v, want a duplicate of revision %d", when, i, resp, put.Response.GetRevision())
			}
			_, err = c.Client(i).Apply(within(t, 10*time.Second), aged(refusedReq, time.Since(began)))
			wantRefusal(t, err, codes.FailedPrecondition, "REVISION_MISMATCH")
			other := aged(put.Request, time.Since(began))
			other.Operations = []*holdfastv1.Operation{cluster.Flag("", "o", "another body")}
			_, err = c.Client(i).Apply(within(t, 10*time.Second), other)
			wantRefusal(t, err, status.Code(err), "REQUEST_ID_REUSED")
		}
		have := listAll(t, c, "")
		if r := have[cluster.ResourceName(holdfastv1.Kind_KIND_OVERRIDE, "o")]; r.GetVersion() != 1 {
			t.Errorf("%s: override has version %d after retries, want 1", when, r.GetVersion())
		}
		if len(have) != 2 {
			t.Errorf("%s: %d resources, want 2: %v", when, len(have), have)
		}
	}
	check("at first")
	old := leader(t, c)
	must(t, c.Kill(old))
	get[int](t)(c.WaitLeader(within(t, 20*time.Second), old))
	restart(t, c, old)
	check("after a leader change")
	for i := range c.Len() {
		must(t, c.Kill(i))
	}
	for i := range c.Len() {
		must(t, c.Restart(i))
	}
	must(t, c.WaitVoters(within(t, 30*time.Second), 3))
	check("after a restart of all servers")
}

// wantRefusal requires an error with a code and a stable reason. A refusal is
// definite, except that nobody knows what became of a request that is too old.
func wantRefusal(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	got, definite := cluster.Reason(err)
	if err == nil || status.Code(err) != code || got != reason || definite == (reason == "REQUEST_TOO_OLD") {
		t.Errorf("got %v (reason %q, definite %v), want %v %s", err, got, definite, code, reason)
	}
}

// Outcomes are kept in bounded space. A retry whose outcome has been dropped is
// refused and not applied anew, and so is a request that nobody knows but that
// began before; what is younger is served as ever.
func TestRetryBeyondTheWindowIsRefused(t *testing.T) {
	t.Parallel()
	servers := 1
	if *long {
		servers = 3
	}
	c := start(t, cluster.Options{Servers: servers})
	w := c.Writer(0, 5*time.Second)
	old := get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "old", cluster.Override("", "old", time.Hour)))
	n := overflowOutcomes(t, c)
	recent := get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "recent", cluster.Override("", "recent", time.Hour)))
	for i := range c.Len() {
		_, err := c.Client(i).Apply(within(t, 10*time.Second), aged(old.Request, time.Since(old.Began)))
		wantRefusal(t, err, codes.FailedPrecondition, "REQUEST_TOO_OLD")
		stranger := w.NewRequest("stranger", cluster.Flag("", "stranger", "x"))
		_, err = c.Client(i).Apply(within(t, 10*time.Second), aged(stranger, time.Hour))
		wantRefusal(t, err, codes.FailedPrecondition, "REQUEST_TOO_OLD")
		resp, err := c.Client(i).Apply(within(t, 10*time.Second), aged(recent.Request, time.Since(recent.Began)))
		if err != nil || !resp.GetDuplicate() {
			t.Errorf("retry within the window: %v, %v, want a duplicate", resp, err)
		}
	}
	have := listAll(t, c, "")
	for _, name := range []string{"old", "recent"} {
		if r := have[cluster.ResourceName(holdfastv1.Kind_KIND_OVERRIDE, name)]; r.GetVersion() != 1 {
			t.Errorf("override %s has version %d, want 1", name, r.GetVersion())
		}
	}
	if len(have) != 2 {
		t.Errorf("%d resources, want 2: %v", len(have), have)
	}
	t.Logf("the first outcome was dropped after %d others", n)
}

// overflowOutcomes makes more outcomes than 32 MiB hold, with writes that are
// refused and so leave nothing else behind.
func overflowOutcomes(t *testing.T, c *cluster.Cluster) int64 {
	t.Helper()
	const outcomes = 80_000 // of 448 bytes each
	ctx := within(t, 3*time.Minute)
	var group sync.WaitGroup
	var sent, failed atomic.Int64
	for range 128 {
		group.Go(func() {
			w := c.Writer(0, 10*time.Second)
			for sent.Add(1) <= outcomes {
				_, err := w.Write(ctx, "", cluster.Expect(cluster.Flag("", "absent", "x"), 999))
				if reason, _ := cluster.Reason(err); reason != "REVISION_MISMATCH" {
					failed.Add(1)
				}
			}
		})
	}
	group.Wait()
	if n := failed.Load(); n > 0 {
		t.Fatalf("%d of %d writes were not refused as they should", n, outcomes)
	}
	return outcomes
}
