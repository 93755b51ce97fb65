package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/schema"
)

// settler brings settings that bound each other in line. Where the definition
// gives both, that is a contradiction, which is reported, and the bound wins;
// otherwise the one that it does not give follows the one that it gives.
type settler struct {
	schema.Fields
	// right holds the paths of the settings that the definition gives rightly.
	right map[string]bool
}

// given tells whether the definition gives all of these settings rightly: what is
// wrong with one has been reported, and makes no contradiction.
func (s settler) given(paths ...string) bool {
	return !slices.ContainsFunc(paths, func(path string) bool { return !s.right[path] })
}

// contradiction reports what is wrong with the setting at path.
func (s settler) contradiction(path, format string, args ...any) {
	at := s.Path
	for name := range strings.SplitSeq(path, ".") {
		at = at.Key(name)
	}
	s.Add(at, format, args...)
}

// ordered keeps a setting from being more than its bound.
func ordered[T cmp.Ordered](s settler, path string, x *T, boundPath string, bound *T) {
	switch {
	case *x <= *bound:
	case s.given(path, boundPath):
		_, key, _ := strings.Cut(boundPath, ".")
		s.contradiction(path, "is %s, but %s is %s, which is less", show(*x), key, show(*bound))
		*x = *bound
	case s.given(path):
		*bound = *x
	default:
		*x = *bound
	}
}

// show returns a value as definitions write it.
func show(x any) string {
	if d, ok := x.(time.Duration); ok {
		return schema.DurationText(d)
	}
	return fmt.Sprint(x)
}

func (s settler) breaker(b *CircuitBreaker) {
	ordered(s, "circuit_breaker.timeout", &b.Timeout, "circuit_breaker.max_timeout", &b.MaxTimeout)
	if _, has := s.member("circuit_breaker", "slow_after"); !has && b.SlowAfter == 0 && s.given("circuit_breaker.slow_ratio") {
		s.contradiction("circuit_breaker.slow_ratio", "has no effect, as slow_after does not say from when on a call is slow")
	}
}

func (s settler) retry(r *Retry) {
	ordered(s, "retry_policy.initial_delay", &r.InitialDelay, "retry_policy.max_delay", &r.MaxDelay)
	const retryable, never = "retry_policy.retryable", "retry_policy.non_retryable"
	if both := r.Retryable & r.NonRetryable; both != 0 {
		if s.given(retryable, never) {
			s.contradiction(never, "has %s in common with retryable", strings.Join(both.Names(), " and "))
		}
		if s.given(retryable) && !s.given(never) {
			r.NonRetryable &^= both
		} else {
			r.Retryable &^= both
		}
	}
	const jitter, backoff = "retry_policy.jitter", "retry_policy.backoff"
	if r.Jitter.Kind == DecorrelatedJitter && r.Backoff == Fibonacci {
		if s.given(jitter, backoff) {
			s.contradiction(backoff, "has no effect, as jitter is decorrelated, which grows in its own way")
		}
		if s.given(backoff) && !s.given(jitter) {
			r.Jitter = Jitter{Kind: FullJitter}
		} else {
			r.Backoff = Exponential
		}
	}
}

func (s settler) timeouts(t *Timeouts) {
	if t.Call == 0 {
		return // no bound
	}
	ordered(s, "timeouts.per_attempt", &t.PerAttempt, "timeouts.call", &t.Call)
	ordered(s, "timeouts.minimum", &t.Minimum, "timeouts.call", &t.Call)
	if t.Margin >= t.Call {
		if s.given("timeouts.margin", "timeouts.call") {
			s.contradiction("timeouts.margin", "is %s, which leaves nothing of call, %s", show(t.Margin), show(t.Call))
		}
		t.Margin = t.Call / 2
	}
}

func (s settler) bulkhead(b *Bulkhead) {
	ordered(s, "bulkhead.min_concurrent", &b.MinConcurrent, "bulkhead.max_concurrent", &b.MaxConcurrent)
	if _, has := s.member("bulkhead", "max_queue"); !has && b.MaxQueue == 0 && s.given("bulkhead.max_wait") && b.MaxWait > 0 {
		s.contradiction("bulkhead.max_wait", "has no effect, as max_queue does not say how many calls may wait")
	}
}

// member returns a member of a section.
func (s settler) member(section, name string) (any, bool) {
	members, _ := s.Members[section].(map[string]any)
	value, has := members[name]
	return value, has
}
