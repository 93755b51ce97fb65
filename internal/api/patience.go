package api

import (
	"context"
	"time"
)

// maxAnswerTime is what is kept of a caller's time for the answer to reach it.
const maxAnswerTime = 200 * time.Millisecond

// patience is how long to wait for something on behalf of a caller, at most the
// limit. It ends a little before the caller's own deadline: a caller that hears
// what did not come to pass knows where it stands, one that runs into its
// deadline does not.
func patience(ctx context.Context, limit time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return limit
	}
	left := time.Until(deadline)
	return min(limit, left-min(left/10, maxAnswerTime))
}
