package policy

import "time"

// Retry says which failed calls are made again, and when.
type Retry struct {
	// MaxAttempts counts the first one: 1 means that nothing is retried.
	MaxAttempts int
	// The pause before a retry begins with InitialDelay and grows by Backoff, up to
	// MaxDelay; Jitter draws the actual one.
	InitialDelay time.Duration
	MaxDelay     time.Duration
	// Multiplier is the growth of an exponential backoff.
	Multiplier float64
	Backoff    Backoff
	Jitter     Jitter
	// Retryable are the codes that are retried, NonRetryable those that never are,
	// whatever a classifier in code says. They have no code in common.
	Retryable    Codes
	NonRetryable Codes
	// Idempotent are the methods ("/pkg.Service/Method", "/pkg.Service/*") and
	// operations that may be repeated beside those that their protos declare
	// idempotent or free of side effects; "*" is all of them.
	Idempotent []string
	// Budget bounds the retries of a dependency, all its methods together.
	Budget Budget
	// HedgeDelay is after what time without an answer a method without side effects
	// is called once more while the first call goes on, MaxHedges times; 0 for never.
	HedgeDelay time.Duration
	MaxHedges  int
}

// Budget bounds retries to a share of the calls in a window, plus so many per
// second that rare calls can be retried too.
type Budget struct {
	Ratio        float64
	MinPerSecond float64
	Window       time.Duration
}

// Backoff is how pauses grow.
type Backoff string

// The ways in which pauses grow.
const (
	Exponential Backoff = "exponential"
	Fibonacci   Backoff = "fibonacci"
)

// Jitter is how the actual pause is drawn from the computed one.
type Jitter struct {
	Kind JitterKind
	// Share is the d of ShareJitter, otherwise 0.
	Share float64
}

// JitterKind is a way to draw a pause.
type JitterKind string

// The ways to draw a pause p.
const (
	NoJitter    JitterKind = "none"  // p
	FullJitter  JitterKind = "full"  // between 0 and p
	EqualJitter JitterKind = "equal" // between p/2 and p
	// DecorrelatedJitter draws between InitialDelay and three times the pause before;
	// backoff and multiplier have no part in it.
	DecorrelatedJitter JitterKind = "decorrelated"
	// ShareJitter draws between p·(1−d) and p·(1+d). Definitions write it as the
	// number d.
	ShareJitter JitterKind = "share"
)

func (r *Retry) settings() []setting {
	return []setting{
		one("max_attempts", wholes("attempts", 1, 20), &r.MaxAttempts),
		one("initial_delay", durations(time.Millisecond, 10*time.Minute), &r.InitialDelay),
		one("max_delay", durations(time.Millisecond, time.Hour), &r.MaxDelay),
		one("multiplier", numbers("times", 1, 10), &r.Multiplier),
		one("backoff", words(Exponential, Fibonacci), &r.Backoff),
		one("jitter", jitters(), &r.Jitter),
		one("retryable", codeSets(), &r.Retryable),
		one("non_retryable", codeSets(), &r.NonRetryable),
		one("idempotent", callLists(), &r.Idempotent),
		object("budget", r.Budget.settings),
		one("hedge_delay", durations(0, 10*time.Minute), &r.HedgeDelay),
		one("max_hedges", wholes("calls", 1, 5), &r.MaxHedges),
	}
}

func (b *Budget) settings() []setting {
	return []setting{
		one("ratio", numbers("share of calls", 0, 1), &b.Ratio),
		one("min_per_second", numbers("retries per second", 0, 10_000), &b.MinPerSecond),
		one("window", durations(100*time.Millisecond, 10*time.Minute), &b.Window),
	}
}
