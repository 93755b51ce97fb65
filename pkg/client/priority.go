package client

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// Priority is how much a call matters when calls have to be shed.
type Priority = bulkhead.Priority

// The priorities. Critical calls are never shed; Normal is meant where none is set.
const (
	Low      = bulkhead.Low
	Normal   = bulkhead.Normal
	High     = bulkhead.High
	Critical = bulkhead.Critical
)

// WithPriority sets the priority of calls made with the context, also of those that
// servers make on their behalf.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return guard.WithPriority(ctx, p)
}

// PriorityOf returns the priority of calls made with the context.
func PriorityOf(ctx context.Context) Priority { return guard.PriorityOf(ctx) }

// priorityKey is the metadata, and the HTTP header, that carries a priority other
// than Normal.
const priorityKey = "holdfast-priority"

// sendPriority lets a gRPC call carry its priority.
func sendPriority(ctx context.Context) context.Context {
	if p := guard.PriorityOf(ctx); p != Normal {
		return metadata.AppendToOutgoingContext(ctx, priorityKey, p.String())
	}
	return ctx
}
