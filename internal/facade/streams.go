package facade

import (
	"context"
	"sync"
	"time"
)

// streams are the open streams of both ports, so that the server can count and
// end them.
type streams struct {
	limit int

	mu    sync.Mutex // guards the fields below
	open  map[*stream]struct{}
	ended error // set once no further stream is let in
}

type stream struct{ cancel context.CancelCauseFunc }

func newStreams(limit int) *streams {
	return &streams{limit: limit, open: make(map[*stream]struct{})}
}

// enter counts a stream in. It returns a context that ends with the stream, or
// when the server ends it, then with a *failure as its cause. The caller calls
// leave when the stream is over.
func (s *streams) enter(parent context.Context) (ctx context.Context, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended != nil:
		return nil, nil, s.ended
	case len(s.open) >= s.limit:
		return nil, nil, errStreams
	}
	ctx, cancel := context.WithCancelCause(parent)
	st := &stream{cancel: cancel}
	s.open[st] = struct{}{}
	return ctx, func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, st)
	}, nil
}

// end ends every open stream at once; new ones are let in.
func (s *streams) end(why error) {
	for _, st := range s.list() {
		st.cancel(why)
	}
}

// drain lets nobody in any more and ends the open streams one by one, evenly over
// the window, so that their clients do not fall on another server at the same
// moment. When ctx ends, the rest is ended at once.
func (s *streams) drain(ctx context.Context, window time.Duration, why error) {
	s.mu.Lock()
	s.ended = why
	s.mu.Unlock()
	open := s.list() // in random order, so that no client is always the first
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, st := range open {
		due := window * time.Duration(i) / time.Duration(len(open))
		pause(ctx, timer, due-time.Since(began))
		st.cancel(why)
	}
}

func (s *streams) list() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*stream, 0, len(s.open))
	for st := range s.open {
		open = append(open, st)
	}
	return open
}
