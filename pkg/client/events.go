package client

import (
	"context"
	"sync"
	"sync/atomic"
)

// eventBuffer is how many events a reader may be behind.
const eventBuffer = 256

// Events returns what happens from now on until ctx ends or the client is closed,
// which closes the channel. A reader that is more than 256 events behind loses the
// newest ones; the next one that it gets tells how many.
func (c *Client) Events(ctx context.Context) <-chan Event { return c.events.subscribe(ctx) }

// bus tells every reader of events. Nobody who tells of one waits. The zero value
// has no readers.
type bus struct {
	lost atomic.Uint64

	mu      sync.Mutex
	readers map[*reader]struct{}
	closed  bool
}

type reader struct {
	events chan Event
	missed int
	stop   func() bool // of the watch over the context
}

func (b *bus) subscribe(ctx context.Context) <-chan Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &reader{events: make(chan Event, eventBuffer)}
	if b.closed {
		close(r.events)
		return r.events
	}
	if b.readers == nil {
		b.readers = map[*reader]struct{}{}
	}
	b.readers[r] = struct{}{}
	r.stop = context.AfterFunc(ctx, func() { b.remove(r) })
	return r.events
}

func (b *bus) remove(r *reader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.readers[r]; ok {
		delete(b.readers, r)
		close(r.events)
	}
}

func (b *bus) tell(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.readers {
		e.Missed = r.missed
		select {
		case r.events <- e:
			r.missed = 0
		default:
			r.missed++
			b.lost.Add(1)
		}
	}
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for r := range b.readers {
		r.stop()
		close(r.events)
	}
	clear(b.readers)
}
