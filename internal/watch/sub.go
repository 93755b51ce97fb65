package watch

import (
	"context"
	"time"

	"github.com/holdfast-dev/holdfast/internal/state"
)

// Kind says what an event is.
type Kind uint8

const (
	// Snapshot replaces everything that the subscriber has by the namespace of
	// Event.View.
	Snapshot Kind = iota + 1
	// Delta changes what the subscriber has by Event.Delta.
	Delta
	// Progress tells that the subscriber has everything up to Event.Revision.
	Progress
	// Woken tells nothing but that a value came over the channel of WakeOn.
	Woken
)

// Event is what a subscriber is told.
type Event struct {
	// View is the view that the event was made from.
	View *state.View
	Kind Kind
	// Revision is the one that the subscriber has after the event.
	Revision uint64
	// Delta is set on a delta.
	Delta *Shared
}

// Sub is a subscription to one namespace. One goroutine at a time may use it.
type Sub struct {
	hub    *Hub
	space  *space
	cursor Cursor
	native bool // the cursor is of this cluster
	told   bool // an event was delivered
	closed bool
	woken  <-chan struct{} // nil for none
}

// Cursor returns the place up to which events were delivered.
func (s *Sub) Cursor() Cursor { return s.cursor }

// Close ends the subscription. It may be called again.
func (s *Sub) Close() {
	if !s.closed {
		s.closed = true
		s.hub.leave(s.space)
	}
}

// WakeOn has Next return whenever a value arrives from the channel, also while the
// cursor is ahead of this server.
func (s *Sub) WakeOn(c <-chan struct{}) { s.woken = c }

// Next waits for the next event and moves the cursor behind it. The first one
// comes at once, unless the cursor is ahead of this server: a snapshot, a delta,
// or progress when there is nothing to tell. Afterwards progress is told when a
// value arrives from the channel, which may be nil, while nothing has changed.
//
// It returns the error of ctx, or ErrForeignLineage or ErrForkedEpoch when the
// server turns out to have another history than the cursor it waited for.
func (s *Sub) Next(ctx context.Context, progress <-chan time.Time) (Event, error) {
	due, bell := !s.told, s.space.bell
	for {
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		wake := bell.listen()
		event, at, err := s.poll(due)
		if err != nil || event.Kind != 0 {
			return event, err
		}
		if at == ahead && bell != s.hub.late {
			bell = s.hub.late
			continue // and look again, because it has not been listened to yet
		}
		select {
		case <-wake:
		case <-bell.token:
			bell.pass()
		case <-progress:
			due = true
			continue
		case <-s.woken:
			return Event{View: s.hub.view.Load(), Kind: Woken, Revision: s.cursor.Revision}, nil
		case <-ctx.Done():
		}
		due = !s.told
	}
}

// poll compares the cursor with the newest view. Progress is told if it is due.
// No event means that there is nothing to tell.
func (s *Sub) poll(due bool) (Event, standing, error) {
	v := s.hub.view.Load()
	at, err := s.cursor.compare(v, s.native)
	switch {
	case err != nil:
		s.hub.counters.refused(err)
		return Event{}, at, err
	case at == ahead:
		return Event{}, at, nil
	case at == behind:
		return s.snapshot(v), at, nil
	}
	n := v.Namespace(s.space.name)
	if n.ModRevision() > s.cursor.Revision {
		shared := s.space.delta(v, n, s.cursor.Revision, s.encoded)
		if !shared.resolve() {
			return s.snapshot(v), at, nil
		}
		s.hub.counters.deltas.Add(1)
		return s.tell(Event{View: v, Kind: Delta, Revision: shared.to, Delta: shared}), at, nil
	}
	if !due {
		return Event{}, at, nil
	}
	s.hub.counters.progress.Add(1)
	return s.tell(Event{View: v, Kind: Progress, Revision: v.Revision()}), at, nil
}

func (s *Sub) snapshot(v *state.View) Event {
	s.hub.counters.snapshots.Add(1)
	return s.tell(Event{View: v, Kind: Snapshot, Revision: v.Revision()})
}

// tell moves the cursor behind an event.
func (s *Sub) tell(e Event) Event {
	s.cursor = Cursor{Epoch: e.View.Epoch(), Revision: e.Revision, Set: true}
	s.native, s.told = true, true
	return e
}

// encoded counts a delta that was encoded, and what it weighs.
func (s *Sub) encoded(shared *Shared) {
	size := 0
	for _, b := range shared.encoded {
		size += len(b)
	}
	s.hub.counters.encoded.Add(1)
	s.space.weigh(shared, size)
}
