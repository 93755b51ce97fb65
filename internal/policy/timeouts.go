package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/schema"
)

// Timeouts bound what calls may take. 0 means that the policy adds no deadline;
// a deadline of the caller always holds.
type Timeouts struct {
	// Call is the deadline of calls without one of their own in Named.
	Call time.Duration
	// PerAttempt bounds one of several attempts; 0 leaves it what is left of the call.
	PerAttempt time.Duration
	// Connect bounds the making of a connection, Query a query on one; 0 leaves a
	// query what is left of the call.
	Connect time.Duration
	Query   time.Duration
	// Margin is what a server keeps of its caller's deadline for itself when it
	// calls on. It is less than Call.
	Margin time.Duration
	// Minimum is the time below which a call is refused at once, as it could not
	// come back in time.
	Minimum time.Duration
	// Named are the deadlines of operations, of methods "/pkg.Service/Method" and of
	// services "/pkg.Service/*"; For looks them up.
	Named map[string]time.Duration
}

// For returns the deadline of an operation or of a method "/pkg.Service/Method":
// its own, else its service's, else that of all calls.
func (t Timeouts) For(name string) time.Duration { return lookup(t.Named, name, t.Call) }

func (t *Timeouts) settings() []setting {
	const day = 24 * time.Hour
	keys := []setting{
		one("call", durations(0, day), &t.Call),
		one("per_attempt", durations(0, day), &t.PerAttempt),
		one("connect", durations(time.Millisecond, time.Hour), &t.Connect),
		one("query", durations(0, day), &t.Query),
		one("margin", durations(0, 10*time.Second), &t.Margin),
		one("minimum", durations(0, 10*time.Second), &t.Minimum),
	}
	check := func(name string) error { return checkTimeoutName(name, names(keys)) }
	return append(keys, others(check, durations(0, day), &t.Named))
}

// checkTimeoutName accepts names of calls that are no mistaken key: such a
// timeout would be one of an operation that nobody calls.
func checkTimeoutName(name string, keys []string) error {
	if name == "default" {
		return errors.New(`is the name of no operation; the timeout of calls without one of their own is "call"`)
	}
	// Only the case of a word as short as "call" tells a mistake from a name.
	if key, ok := schema.Nearest(name, keys); ok && (key != "call" || strings.EqualFold(name, key)) {
		return fmt.Errorf("is nearly the key %q; did you mean that? An operation needs another name", key)
	}
	return checkCall(name)
}
