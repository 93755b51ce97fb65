package guard

import (
	"context"

	"github.com/holdfast-dev/holdfast/internal/bulkhead"
)

type (
	hopKey      struct{}
	priorityKey struct{}
)

// WithHop marks the context of a call that the instance is answering: calls made
// with it keep the margin of their policy, so that there is time left to answer in.
func WithHop(ctx context.Context) context.Context { return context.WithValue(ctx, hopKey{}, true) }

// IsHop tells whether the context is marked by WithHop.
func IsHop(ctx context.Context) bool { return ctx.Value(hopKey{}) != nil }

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
