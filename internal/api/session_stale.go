package api

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A server that has heard no leader for staleTime sends its sessions to other
// servers, which may have one, spread over a third of that time more. Those that
// came to it although it heard none stay four times as long: where there is no
// leader anywhere, instances do not wander all the time.
const (
	staleTime     = 15 * time.Second
	staleWander   = 4
	staleChecks   = 5 // within staleTime
	staleSpreadBy = 3
)

// loyalty ends a session whose server is cut off from its leader.
type loyalty struct {
	replica Replica
	limit   time.Duration // a server that is further behind is cut off
	patient time.Duration // how long it may be
	end     context.CancelCauseFunc

	mu      sync.Mutex
	since   time.Time // when it was found to be cut off; zero while it is not
	timer   *time.Timer
	stopped bool
}

// watchLoyalty begins to look at the server. stop ends that; nothing of it runs on.
func watchLoyalty(replica Replica, limit time.Duration, end context.CancelCauseFunc) *loyalty {
	l := &loyalty{replica: replica, limit: limit, patient: limit + rand.N(limit/staleSpreadBy), end: end}
	if replica.Staleness() > limit {
		l.patient *= staleWander
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(limit/staleChecks, l.look)
	return l
}

func (l *loyalty) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case l.stopped:
		return
	case l.replica.Staleness() <= l.limit:
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = now
	case now.Sub(l.since) >= l.patient:
		l.end(Errorf(ReasonStale, "this server has heard no leader for %s; another one may have", l.patient.Round(time.Millisecond)))
		return
	}
	l.timer.Reset(l.limit / staleChecks)
}

func (l *loyalty) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.timer.Stop()
}
