package guard

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Kind tells what the name of a target means.
type Kind uint8

// The kinds of targets.
const (
	// Method is a gRPC method "/package.Service/Method".
	Method Kind = iota
	// Operation is a name given to client.Do, or of an HTTP request.
	Operation
)

// Target is one method or operation of a dependency, with a breaker of its own. Its
// methods may be called at the same time.
type Target struct {
	// What each call reads, apart from what it writes.
	setting    atomic.Pointer[Setting]
	clock      *clock.Clock
	coarse     *clock.Coarse // nil: clock is read
	breaker    *breaker.Breaker
	dependency *Dependency
	name       string
	kind       Kind
	// idempotent and noSideEffects are what the proto declares.
	idempotent, noSideEffects bool

	rejection atomic.Pointer[Rejection] // the last one by the breaker
	advised   atomic.Pointer[advice]    // nil: it never was
	counters  counters
}

// Name returns the name.
func (t *Target) Name() string { return t.name }

// Dependency returns the dependency that the target belongs to.
func (t *Target) Dependency() *Dependency { return t.dependency }

// Now returns what holds for calls that begin now. One call uses one of them from
// its beginning to its end.
func (t *Target) Now() *Setting { return t.setting.Load() }

// Setting is what holds for the calls of a target: immutable. Only Target.Now
// returns one that can be used.
type Setting struct {
	// Plan is what levels of modes do with the calls; Recordings what is recorded.
	Plan       flags.Plan
	Recordings []flags.Recording
	Policy     *policy.Policy
	// Disabled tells to let calls alone: nothing is enforced, observed or counted.
	Disabled bool
	// Enforce is false where the policy only observes.
	Enforce bool
	// Idempotent tells that calls may be repeated, NoSideEffects that they change
	// nothing: from the proto's idempotency_level and the policy's list.
	Idempotent, NoSideEffects bool
	// Hold is the override that holds the breaker, its Dependency empty without.
	Hold flags.Hold

	by      string        // the holder
	own     time.Duration // the deadline of the target by the policy
	fair    time.Duration // see fair
	hedged  bool
	weight  int // places in the whole
	partKey string
	part    *bulkhead.Bulkhead // nil without one
	whole   *bulkhead.Bulkhead
	// repeatable and readOnly are the same for calls of which their callers know more.
	repeatable, readOnly *Setting
}

// Repeatable returns the same setting for a call of which its caller knows that it
// may be repeated.
func (s *Setting) Repeatable() *Setting { return s.repeatable }

// ReadOnly returns the same setting for a call of which its caller knows that it
// changes nothing, and so may be repeated, also at the same time. What modes do with
// it stays as it is.
func (s *Setting) ReadOnly() *Setting { return s.readOnly }

// Hedged tells whether a call may get a Twin.
func (s *Setting) Hedged() bool { return s.hedged }

// now tells the time: exactly, or cheaply if so configured.
func (t *Target) now() int64 {
	if t.coarse != nil {
		return t.coarse.Now()
	}
	return t.clock.Now()
}

// exact tells the time where it matters, and renews what a coarse clock tells.
func (t *Target) exact() int64 {
	if t.coarse != nil {
		return t.coarse.Exact()
	}
	return t.clock.Now()
}
