package api

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// streams are the open endless streams, so that the server can count and end
// them.
type streams struct {
	// quotas are of the methods that follow the state, by method. The map is never
	// changed.
	quotas map[string]*quota

	mu    sync.Mutex
	open  map[*openStream]struct{}
	ended error // set once no further stream is let in
}

// quota limits the open streams of one method. It is guarded by the mutex of
// streams.
type quota struct {
	reason string // of the refusal
	what   string
	limit  int
	open   int
	gauge  prometheus.Gauge
}

func (q *quota) count(by int) {
	q.open += by
	q.gauge.Set(float64(q.open))
}

// openStream is one of them.
type openStream struct {
	cancel context.CancelCauseFunc
	quota  *quota // nil for one that does not follow the state
}

func newStreams(sessions int, m *metrics) *streams {
	return &streams{open: make(map[*openStream]struct{}), quotas: map[string]*quota{
		holdfastv1.StateService_Watch_FullMethodName: {
			reason: ReasonTooManyWatches, what: "watches", limit: MaxWatches, gauge: m.watches,
		},
		holdfastv1.SessionService_Connect_FullMethodName: {
			reason: ReasonTooManySessions, what: "sessions of instances", limit: sessions, gauge: m.sessions,
		},
		holdfastv1.FleetService_WatchFleet_FullMethodName: {
			reason: ReasonTooManyWatches, what: "watches of fleets", limit: MaxFleetWatches, gauge: m.fleetWatches,
		},
	}}
}

// enter counts a stream in. It returns a context that ends with the stream or
// when the server ends it, then with the failure as its cause. The caller calls
// leave when the stream is over.
func (s *streams) enter(parent context.Context, method string) (ctx context.Context, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.quotas[method]
	switch {
	case s.ended != nil:
		return nil, nil, s.ended
	case q != nil && q.open >= q.limit:
		return nil, nil, Errorf(q.reason, "this server has %d %s, which is its limit; use another server", q.open, q.what)
	}
	ctx, cancel := context.WithCancelCause(parent)
	st := &openStream{cancel: cancel, quota: q}
	s.open[st] = struct{}{}
	if q != nil {
		q.count(1)
	}
	return ctx, func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, st)
		if q != nil {
			q.count(-1)
		}
	}, nil
}

// following returns the number of open streams of a method that follows the
// state.
func (s *streams) following(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quotas[method].open
}

// endFollowing ends every stream that follows the state at once; new ones are
// let in.
func (s *streams) endFollowing(why error) {
	for _, st := range s.list() {
		if st.quota != nil {
			st.cancel(why)
		}
	}
}

// drain lets nobody in any more and ends the open streams one by one, evenly
// over the window, so that their clients do not fall on another server at the
// same moment. When ctx ends, the rest is ended at once.
func (s *streams) drain(ctx context.Context, window time.Duration, why error) {
	s.mu.Lock()
	s.ended = why
	s.mu.Unlock()
	// The order of the map is random, so no client is always the first.
	open := s.list()
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, st := range open {
		due := window * time.Duration(i) / time.Duration(len(open))
		timer.Reset(due - time.Since(began))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		st.cancel(why)
	}
}

// list returns the open streams.
func (s *streams) list() []*openStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*openStream, 0, len(s.open))
	for st := range s.open {
		open = append(open, st)
	}
	return open
}
