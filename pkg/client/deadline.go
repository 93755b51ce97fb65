package client

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Remaining returns how much time is left for the work of the context, less the
// margin of a hop, for a message that carries it on; false if there is no limit. It
// is never negative.
func Remaining(ctx context.Context) (time.Duration, bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0, false
	}
	margin := policy.Default().Timeouts.Margin
	return max(0, time.Until(deadline)-margin), true
}

// WithRemaining bounds work by what Remaining told when the message was sent. Calls
// made with the context keep the margin of a hop, as those of a handler do.
func WithRemaining(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	return guard.WithHop(ctx), cancel
}

// timeoutHeader carries over HTTP how many milliseconds a request may take.
const timeoutHeader = "Holdfast-Timeout-Ms"

// sendTimeout tells the other side how long the context lives.
func sendTimeout(ctx context.Context, h http.Header) {
	if deadline, ok := ctx.Deadline(); ok {
		h.Set(timeoutHeader, strconv.FormatInt(max(0, time.Until(deadline).Milliseconds()), 10))
	}
}

// receivedTimeout returns what sendTimeout sent; false if there is nothing, or
// something that makes no sense.
func receivedTimeout(h http.Header) (time.Duration, bool) {
	const most = math.MaxInt64 / int64(time.Millisecond)
	ms, err := strconv.ParseInt(h.Get(timeoutHeader), 10, 64)
	if err != nil || ms < 0 || ms > most {
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}
