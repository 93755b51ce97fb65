package api

import (
	"context"
	"sync"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// streams are the open endless streams, so that the server can count and end
// them.
type streams struct {
	limit   int
	metrics *metrics

	mu      sync.Mutex
	open    map[*openStream]struct{}
	watches int
	ended   error // set once no further stream is let in
}

// openStream is one of them.
type openStream struct {
	cancel context.CancelCauseFunc
	watch  bool
}

func newStreams(limit int, m *metrics) *streams {
	return &streams{limit: limit, metrics: m, open: make(map[*openStream]struct{})}
}

// enter counts a stream in. It returns a context that ends with the stream or
// when the server ends it, then with the failure as its cause. The caller calls
// leave when the stream is over.
func (s *streams) enter(parent context.Context, method string) (ctx context.Context, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	watch := method == holdfastv1.StateService_Watch_FullMethodName
	switch {
	case s.ended != nil:
		return nil, nil, s.ended
	case watch && s.watches >= s.limit:
		return nil, nil, Errorf(ReasonTooManyWatches, "this server has %d watches, which is its limit; use another server", s.limit)
	}
	ctx, cancel := context.WithCancelCause(parent)
	st := &openStream{cancel: cancel, watch: watch}
	s.open[st] = struct{}{}
	s.count(watch, 1)
	return ctx, func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, st)
		s.count(watch, -1)
	}, nil
}

// count follows the number of watches. The caller holds the lock.
func (s *streams) count(watch bool, by int) {
	if watch {
		s.watches += by
		s.metrics.watches.Set(float64(s.watches))
	}
}

// watching returns the number of open watches.
func (s *streams) watching() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(s.watches) //nolint:gosec // never negative
}

// endWatches ends every open watch at once; new ones are let in.
func (s *streams) endWatches(why error) {
	for _, st := range s.list() {
		if st.watch {
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
