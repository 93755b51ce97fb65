package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

const (
	// MaxMessage is the longest body of Send: a quarter of a megabyte, and room
	// for a header.
	MaxMessage = 257 << 10
	// handlerWorkers and handlerQueue bound the messages of one kind that are
	// handled and that wait. Further ones are dropped and counted.
	handlerWorkers = 4
	handlerQueue   = 32
	// sendLimit bounds the messages being sent.
	sendLimit = 8
)

// Errors of Send.
var (
	ErrUnknownMember = errors.New("not a member of the pool")
	ErrTooLarge      = errors.New("message too large")
	ErrBusy          = errors.New("too many messages are being sent")
	ErrClosed        = errors.New("pool is not running")
)

// handler takes in the messages of one kind. Its workers are there only while
// there is something to do.
type handler struct {
	pool *Pool
	f    func(ctx context.Context, from address, b []byte)

	mu      sync.Mutex // guards the rest
	waiting []delivery
	working int
}

type delivery struct {
	from string
	body []byte
}

// Handle calls f with the messages of a kind, a name of at most 255 bytes that no
// channel has. It must be called before Start. At most four calls run at a time;
// their context ends when the pool is closed. Only messages of members arrive, but
// any member can send in the name of any other.
func (p *Pool) Handle(kind string, f func(ctx context.Context, from Member, b []byte)) {
	p.handle(kind, func(ctx context.Context, from address, b []byte) {
		if m, ok := p.member(from.name); ok {
			f(ctx, m, b)
		} else {
			p.dropped.Add(1)
		}
	})
}

func (p *Pool) handle(kind string, f func(ctx context.Context, from address, b []byte)) {
	p.handlers[kind] = &handler{pool: p, f: f}
}

// deliver runs on the library's goroutines: it does not block.
func (h *handler) deliver(message []byte) {
	from, body, ok := cutName(message)
	if !ok {
		h.pool.malformed.Add(1)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) >= handlerQueue {
		h.pool.dropped.Add(1)
		return
	}
	h.waiting = append(h.waiting, delivery{from, body})
	if h.working < handlerWorkers && h.pool.goWorker(h.work) {
		h.working++
	}
}

func (h *handler) work() {
	for {
		h.mu.Lock()
		if len(h.waiting) == 0 || h.pool.ctx.Err() != nil {
			h.working--
			h.mu.Unlock()
			return
		}
		next := h.waiting[0]
		h.waiting = h.waiting[1:]
		h.mu.Unlock()
		h.pool.contained(func() { h.f(h.pool.ctx, address{name: next.from}, next.body) })
	}
}

// Send sends a message to a member over a stream of its own, for its handler of
// that kind. It returns once the message is written, which takes a few seconds at
// most, or the context has ended; nobody tells whether it was handled.
func (p *Pool) Send(ctx context.Context, member, kind string, b []byte) error {
	to, ok := p.lookup(member)
	if !ok {
		return fmt.Errorf("send %s to %s: %w", kind, member, ErrUnknownMember)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("send %s of %d bytes, at most %d: %w", kind, len(b), MaxMessage, ErrTooLarge)
	}
	select {
	case p.sends <- struct{}{}:
	default:
		return fmt.Errorf("send %s to %s: %w", kind, member, ErrBusy)
	}
	if err := p.sendTo(ctx, p.sends, to, kind, b); err != nil {
		return fmt.Errorf("send %s to %s: %w", kind, member, err)
	}
	return nil
}

// newKind is a message for a handler.
func (p *Pool) newKind(kind string, b []byte) []byte {
	return append(appendName(appendName(nil, kind), p.name), b...)
}

// sendTo holds a place, which the caller has taken, until the message is written.
func (p *Pool) sendTo(ctx context.Context, place <-chan struct{}, to address, kind string, b []byte) error {
	message := p.newKind(kind, b)
	done := make(chan error, 1)
	started := p.goWorker(func() {
		defer func() { <-place }()
		done <- p.sendStream(to, message)
	})
	if !started {
		<-place
		return ErrClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller wraps it
	}
}
