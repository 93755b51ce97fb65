package guard

import (
	"log/slog"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Config says what a Guard is made of.
type Config struct {
	// Clock is required.
	Clock *clock.Clock
	// Coarse lets breakers tell the time by a clock that is up to a millisecond
	// late while calls are made, instead of reading it twice for each call.
	Coarse bool
	// Seed decides jitter and ramps; instances need different ones.
	Seed uint64
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
	// OnEvent, if not nil, is told of every change of a breaker's state, never under
	// a lock, by the goroutine that caused it; it must not block. It may call
	// methods of the Guard.
	OnEvent func(BreakerEvent)
	// OnSuspicion, if not nil, is told that the Evidence of a dependency is worth a look:
	// its failures crossed the policy's suspicion threshold, a breaker changed its state, or
	// a probe ended. It is called like OnEvent, for failures at most every 50 ms and for each
	// dependency apart.
	OnSuspicion func(*Dependency)
}

// Rules are what a guard enforces. A flags.View with the settings given in code
// makes them. They are immutable.
type Rules interface {
	// Revision is the one of the view.
	Revision() uint64
	// Disabled tells that calls are to be made as if there were no guard.
	Disabled() bool
	// Policy returns the settings of a dependency.
	Policy(dependency string) policy.Policy
	// Hold returns the override that holds a breaker; false if there is none.
	Hold(dependency, method string) (flags.Hold, bool)
	// Method returns what levels of modes do with a method, Operation with an
	// operation.
	Method(side flags.Side, method string, noSideEffects bool) flags.Plan
	Operation(name string) flags.Plan
	// RecordMethod and RecordOperation return the effects of any level that may
	// answer from the cache: replies are recorded for them in normal operation.
	RecordMethod(side flags.Side, method string, noSideEffects bool) []flags.Recording
	RecordOperation(name string) []flags.Recording
}
