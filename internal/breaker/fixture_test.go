package breaker

import (
	"testing"
	"time"
)

// fixture is a breaker on a clock that the test sets.
type fixture struct {
	*testing.T
	*Breaker
	now int64
	// event is the last one.
	event *Event
}

// newFixture starts late, so that a time that is taken for a duration shows, and
// without jitter.
func newFixture(t *testing.T, change func(*Settings)) *fixture {
	t.Helper()
	s := defaults()
	s.Jitter = 0
	if change != nil {
		change(&s)
	}
	now := int64(1000 * time.Hour)
	return &fixture{T: t, Breaker: New(now, s, 1), now: now}
}

func (f *fixture) pass(d time.Duration) { f.now += int64(d) }

// admit begins a call, which must be admitted.
func (f *fixture) admit() Ticket {
	f.Helper()
	a := f.Admit(f.now)
	if !a.Admitted {
		f.Fatalf("rejected while %s", f.state())
	}
	if a.Event != nil {
		f.event = a.Event
	}
	return a.Ticket
}

// reject tries a call, which must be rejected, and returns its RetryAfter.
func (f *fixture) reject() time.Duration {
	f.Helper()
	a := f.Admit(f.now)
	if a.Admitted {
		f.Fatalf("admitted while %s", f.state())
	}
	if a.Event != nil {
		f.event = a.Event
	}
	return a.RetryAfter
}

func (f *fixture) record(t Ticket, classes ...Class) {
	f.Helper()
	for _, c := range classes {
		if e := f.Record(f.now, t, c, 0); e != nil {
			f.event = e
		}
	}
}

// calls makes a call for each class.
func (f *fixture) calls(classes ...Class) {
	f.Helper()
	for _, c := range classes {
		f.record(f.admit(), c)
	}
}

func (f *fixture) times(n int, c Class) {
	f.Helper()
	for range n {
		f.calls(c)
	}
}

func (f *fixture) snapshot() Snapshot { return f.Snapshot(f.now) }
func (f *fixture) state() State       { return f.snapshot().State }

func (f *fixture) is(want State) {
	f.Helper()
	if got := f.state(); got != want {
		f.Fatalf("%s, want %s", got, want)
	}
}

// changed checks the last event.
func (f *fixture) changed(from, to State, why Reason) {
	f.Helper()
	if e := f.event; e == nil || e.From != from || e.To != to || e.Reason != why {
		f.Fatalf("the last event is %+v, want %s to %s: %s", e, from, to, why)
	}
	f.event = nil
}

// trip opens it and returns for how long.
func (f *fixture) trip() time.Duration {
	f.Helper()
	f.is(Closed)
	for range 1000 {
		f.calls(Failure)
		if s := f.snapshot(); s.State == Open {
			return s.OpenFor
		}
	}
	f.Fatal("failures do not open it")
	return 0
}

// probe waits until it probes, and begins the first one.
func (f *fixture) probe() Ticket {
	f.Helper()
	f.is(Open)
	f.pass(f.snapshot().OpenFor)
	t := f.admit()
	f.is(HalfOpen)
	return t
}

// recover brings it from open to the ramp or, without one, to closed.
func (f *fixture) recover() {
	f.Helper()
	f.record(f.probe(), Success)
	for f.state() == HalfOpen {
		f.calls(Success)
	}
}

// climb brings it from the ramp to closed, with one success for each step.
func (f *fixture) climb() {
	f.Helper()
	for range 1000 {
		f.pass(time.Hour)
		t := f.admit()
		f.record(t, Success)
		if f.state() == Closed {
			return
		}
	}
	f.Fatal("does not close")
}

func isNoted(f *fixture, stale uint64) {
	f.Helper()
	if got := f.snapshot().Stale; got != stale {
		f.Fatalf("%d stale results, want %d", got, stale)
	}
}
