package client

import (
	"context"
	"fmt"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// MarkDegraded marks the answer of the call that a handler is handling as degraded,
// and says by what. It fails where the headers of the answer are sent, or ctx is not
// the one of a call of gRPC or of a request that Handler passed on. For the latter
// it is a change of the header of the response, to be made as any other.
func MarkDegraded(ctx context.Context, by string) error {
	if header, ok := ctx.Value(headerKey{}).(http.Header); ok {
		header.Add(DegradedKey, by)
		return nil
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs(DegradedKey, by)); err != nil {
		return fmt.Errorf("mark the answer as degraded by %q: %w", by, err)
	}
	return nil
}

// headerKey finds the header of the response to an HTTP request.
type headerKey struct{}
