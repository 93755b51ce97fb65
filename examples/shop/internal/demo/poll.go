package demo

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is how often a wait looks again.
const pollEvery = 50 * time.Millisecond

// poll looks until look finds nothing wrong, or until the limit is over or ctx
// ends; then the error says what was wrong last. look bounds its own time.
func poll(ctx context.Context, limit time.Duration, look func(context.Context) error) error {
	over := time.NewTimer(limit)
	defer over.Stop()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w before this was over: %w", context.Cause(ctx), err)
		case <-over.C:
			return fmt.Errorf("after %v: %w", limit, err)
		case <-ticker.C:
		}
	}
}
