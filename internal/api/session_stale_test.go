package api

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestSessionsLeaveAServerWithoutLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replica := new(fakeReplica)
		behind := func(d time.Duration) { replica.set(func(r *fakeReplica) { r.staleness = d }) }
		ctx, end := context.WithCancelCause(t.Context())
		l := watchLoyalty(replica, staleTime, end)
		defer l.stop()
		<-time.After(time.Hour)
		behind(math.MaxInt64) // an election
		<-time.After(staleTime / 2)
		behind(0)
		<-time.After(time.Hour)
		if ctx.Err() != nil {
			t.Fatalf("an election ended the session: %v", context.Cause(ctx))
		}
		behind(math.MaxInt64)
		begin := time.Now()
		<-ctx.Done()
		if took := time.Since(begin); reasonOf(context.Cause(ctx)) != ReasonStale || took < staleTime || took > 2*staleTime {
			t.Errorf("ended after %s by %v", took, context.Cause(ctx))
		}
		// Whoever comes while it is so stays longer.
		ctx, end = context.WithCancelCause(t.Context())
		second := watchLoyalty(replica, staleTime, end)
		begin = time.Now()
		<-ctx.Done()
		if took := time.Since(begin); took < staleWander*staleTime || took > 2*staleWander*staleTime {
			t.Errorf("a session that began without a leader ended after %s", took)
		}
		second.stop()
		ctx, end = context.WithCancelCause(t.Context())
		watchLoyalty(replica, staleTime, end).stop()
		<-time.After(time.Hour)
		if ctx.Err() != nil {
			t.Error("it goes on after the session")
		}
	})
}

// TestSessionEndsAsStale: the instance learns why, and goes elsewhere.
func TestSessionEndsAsStale(t *testing.T) {
	n := single(t)
	n.sessions.staleTime = 50 * time.Millisecond
	i := n.connect(t, helloOf("i"))
	i.epochOf(t)
	n.replica.set(func(r *fakeReplica) { r.staleness = math.MaxInt64 })
	var err error
	for err == nil {
		err = i.next()
	}
	if reasonOf(err) != ReasonStale {
		t.Errorf("the session ended with %v", err)
	}
}
