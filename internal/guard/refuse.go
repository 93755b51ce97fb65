package guard

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// refusals are the reasons for which a Target refuses calls, as it counts them.
var refusals = [...]Reason{BreakerOpen, BulkheadFull, BulkheadTimeout, DeadlineTooNear} //nolint:gochecknoglobals // a table

const (
	breakerOpen counter = iota
	bulkheadFull
	bulkheadTimeout
	deadlineTooNear
	reasons // how many there are
)

// open returns the error of a call that the breaker does not let pass. It is shared
// by calls that may come back at about the same time.
func (t *Target) open(s *Setting, wait time.Duration, heard bool) *Rejection {
	by := s.by
	if heard {
		by = byFleet
		t.counters.add(hearsay, 1)
	}
	r := t.rejection.Load()
	if r != nil && r.By == by && r.RetryAfter >= wait && r.RetryAfter-wait <= max(wait/8, time.Millisecond) {
		return r
	}
	r = t.reject(BreakerOpen, codes.Unavailable)
	r.By, r.RetryAfter = by, wait
	t.rejection.Store(r)
	return r
}

func (t *Target) reject(why Reason, code codes.Code) *Rejection {
	return &Rejection{Reason: why, Dependency: t.dependency.name, Target: t.name, Code: code}
}

// tooNear refuses a call that has not enough time left, if the policy is enforced.
func (t *Target) tooNear(s *Setting) error {
	if !s.Enforce {
		t.counters.add(observed+deadlineTooNear, 1)
		return nil
	}
	return t.refused(t.reject(DeadlineTooNear, codes.DeadlineExceeded))
}

// refused counts a call of which no attempt is made, and returns its error.
func (t *Target) refused(err error) error {
	r, ok := err.(*Rejection) //nolint:errorlint // as admit made it, or the context's
	if !ok {
		t.counters.add(gone, 1)
		return err
	}
	t.counters.add(rejected+counter(slices.Index(refusals[:], r.Reason)), 1)
	return err
}

// count counts an attempt by its class; with the first one of a call the call as
// well.
func (t *Target) count(class breaker.Class, first bool) {
	if first && class == breaker.Success {
		if t.counters.add(clean, 1)%renewEach == 0 && t.coarse != nil {
			t.coarse.Exact()
		}
		return
	}
	if first {
		t.counters.add(unclean, 1)
	}
	t.counters.add(results+counter(class), 1)
}

// renewEach is how many calls of a stripe believe the same note of the time at
// most, should the goroutine that renews it get no chance to.
const renewEach = 64

// observe tells an adaptive bulkhead how long the attempt took, if it says anything.
func (p *Permit) observe(now int64, took time.Duration, timedOut bool) {
	switch {
	case !p.setting.Policy.Bulkhead.Adaptive || p.place.whole == nil:
	case good(p.class):
		p.place.whole.Observe(now, took, false)
	case p.class == breaker.Overload || p.class == breaker.Failure && timedOut:
		p.place.whole.Observe(now, took, true)
	}
}
