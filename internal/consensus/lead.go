package consensus

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// leadership runs Config.Lead while this node leads. raft waits until each change
// of leadership has been taken from the channel, so one goroutine does nothing
// but take them; another one runs the callback.
type leadership struct {
	id       string
	log      *slog.Logger
	changes  chan bool // raft's NotifyCh
	terms    chan context.Context
	lead     func(ctx context.Context, term uint64)
	barrier  func(ctx context.Context) error
	term     func() uint64
	counters *counters
	retry    time.Duration
	wg       sync.WaitGroup
}

// start runs until stop ends.
func (l *leadership) start(stop context.Context) {
	l.wg.Go(func() { l.follow(stop) })
	l.wg.Go(func() { l.run(stop) })
}

// follow turns changes into contexts: each ends with its leadership. Only the
// newest waits for run.
func (l *leadership) follow(stop context.Context) {
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case leads := <-l.changes:
			end()
			end = func() {}
			if !leads {
				l.log.Info("leadership lost")
				seam.Event("leadership", "id", l.id, "leads", false)
				continue
			}
			ctx, cancel := context.WithCancel(stop)
			end = cancel
			select {
			case <-l.terms:
			default:
			}
			l.terms <- ctx
		case <-stop.Done():
			return
		}
	}
}

// run leads, once at a time.
func (l *leadership) run(stop context.Context) {
	for {
		select {
		case ctx := <-l.terms:
			if term, ok := l.settle(ctx); ok {
				l.log.Info("leading", "term", term)
				seam.Event("leadership", "id", l.id, "leads", true, "term", term)
				l.lead(ctx, term)
			}
		case <-stop.Done():
			return
		}
	}
}

// settle waits until everything from before this leadership is applied, and
// returns its term. The barrier succeeds only in a term that this node leads; if
// the term is the same before and after, it is that one.
func (l *leadership) settle(ctx context.Context) (term uint64, ok bool) {
	for ctx.Err() == nil {
		before := l.term()
		if l.barrier(ctx) == nil && l.term() == before {
			return before, ctx.Err() == nil
		}
		// Refused while a transfer of leadership is under way, which may fail.
		select {
		case <-ctx.Done():
		case <-time.After(l.retry):
		}
	}
	return 0, false
}
