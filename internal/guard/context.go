package guard

import (
	"context"
	"sync/atomic"

	"github.com/holdfast-dev/holdfast/internal/bulkhead"
)

type (
	hopKey      struct{}
	priorityKey struct{}
)

// Hop is the context of a call that the instance is answering.
type Hop struct {
	context.Context //nolint:containedctx // it is one

	spent atomic.Bool
}

// WithHop marks the context of a call that the instance is answering: calls made
// with it keep the margin of their policy, so that there is time left to answer in,
// and the Hop learns whether they did what they could.
func WithHop(ctx context.Context) *Hop { return &Hop{Context: ctx} }

// Value implements context.Context.
func (h *Hop) Value(key any) any {
	if _, ok := key.(hopKey); ok {
		return h
	}
	return h.Context.Value(key)
}

// Spent tells whether a call made with the context was given up although it might
// have been repeated: its attempts or its budget were used up, here or further on.
// Whoever repeats the call that is being answered would multiply them.
func (h *Hop) Spent() bool { return h.spent.Load() }

// HopOf returns what WithHop made of a context that it was derived from; nil if
// there is none.
func HopOf(ctx context.Context) *Hop {
	h, _ := ctx.Value(hopKey{}).(*Hop)
	return h
}

// IsHop tells whether calls made with the context keep the margin: it answers a call
// that has a deadline.
func IsHop(ctx context.Context) bool {
	h := HopOf(ctx)
	if h == nil {
		return false
	}
	_, ok := h.Deadline()
	return ok
}

// spend tells the hop of a context, if there is one, that it is Spent.
func spend(ctx context.Context) {
	if h := HopOf(ctx); h != nil {
		h.spent.Store(true)
	}
}

// WithPriority says how much calls made with the context matter to the queues of
// bulkheads.
func WithPriority(ctx context.Context, p bulkhead.Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf returns the priority of calls made with the context, Normal where none
// was said.
func PriorityOf(ctx context.Context) bulkhead.Priority {
	p, _ := ctx.Value(priorityKey{}).(bulkhead.Priority)
	return p
}
