package main

import (
	"context"
	"errors"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/clock"
)

// What all breakers of a comparison have in common: a rolling window of 10 s in which
// half of at least 20 calls fail opens them, for a minute.
const (
	breakerWindow = 10 * time.Second
	breakerBucket = time.Second
	breakerRatio  = 0.5
	breakerVolume = 20
	breakerOpen   = time.Minute
)

var (
	errDown     = errors.New("down")
	errRejected = errors.New("rejected")
)

// runBreaker measures a breaker around a call that takes no time: admitted and
// recorded as a success, and rejected.
func runBreaker(ctx context.Context, c config) error {
	if err := setBenchtime(&c); err != nil {
		return err
	}
	exact := clock.New()
	coarse := clock.NewCoarse(exact)
	defer coarse.Close()
	t := newComparison(c, "what readings of the clock cost")
	for _, parallel := range []bool{false, true} {
		if err := t.run(ctx, c, "admit and record", parallel, admitted(exact, coarse)...); err != nil {
			return err
		}
		if err := t.run(ctx, c, "reject", parallel, rejected(exact, coarse)...); err != nil {
			return err
		}
	}
	return nil
}

// clockReadings is what exact times of calls cost.
func clockReadings(name string, exact *clock.Clock, each int) subject {
	return subject{name: name, run: func(n int) error {
		last := int64(0)
		for range n {
			for range each {
				last = exact.Now()
			}
		}
		if last < 0 {
			return errors.New("the clock went back")
		}
		return nil
	}}
}

func admitted(exact *clock.Clock, coarse *clock.Coarse) []subject {
	all := append([]subject{clockReadings("two readings of the clock", exact, 2)}, holdfastBreaker(exact, coarse)...)
	return append(all,
		gobreakerExecute("gobreaker 2.4.0 Execute, fixed window", 0, false),
		gobreakerExecute("gobreaker 2.4.0 Execute, rolling window", breakerBucket, false),
		gobreakerTwoStep(false),
		failsafeDirect(false),
		failsafeExecutor(false),
	)
}

func rejected(exact *clock.Clock, coarse *clock.Coarse) []subject {
	all := append([]subject{clockReadings("one reading of the clock", exact, 1)}, holdfastRejecting(exact, coarse)...)
	return append(all,
		gobreakerExecute("gobreaker 2.4.0 Execute, fixed window", 0, true),
		gobreakerExecute("gobreaker 2.4.0 Execute, rolling window", breakerBucket, true),
		gobreakerTwoStep(true),
		failsafeDirect(true),
		failsafeExecutor(true),
	)
}

func newHoldfastBreaker(now int64) *breaker.Breaker {
	return breaker.New(now, breaker.Settings{
		FailureRatio: breakerRatio, SlowRatio: breakerRatio, SlowAfter: time.Second, VolumeThreshold: breakerVolume, Window: breakerWindow,
		Timeout: breakerOpen, MaxTimeout: breakerOpen, Probes: 1, ProbeTimeout: time.Second, SuccessThreshold: 1,
	}, 1)
}

// holdfastBreaker reads its clock before and after each call, to see slow ones. The
// loops are written out for each clock: a call through a variable would be a part of
// what is measured.
func holdfastBreaker(exact *clock.Clock, coarse *clock.Coarse) []subject {
	b := newHoldfastBreaker(exact.Now())
	return []subject{
		{name: "Holdfast, coarse clock", run: func(n int) error {
			for range n {
				begin := coarse.Now()
				a := b.Admit(begin)
				if !a.Admitted {
					return errRejected
				}
				end := coarse.Now()
				b.Record(end, a.Ticket, breaker.Success, time.Duration(end-begin))
			}
			return nil
		}},
		{name: "Holdfast, exact clock", run: func(n int) error {
			for range n {
				begin := exact.Now()
				a := b.Admit(begin)
				if !a.Admitted {
					return errRejected
				}
				end := exact.Now()
				b.Record(end, a.Ticket, breaker.Success, time.Duration(end-begin))
			}
			return nil
		}},
	}
}

func holdfastRejecting(exact *clock.Clock, coarse *clock.Coarse) []subject {
	b := newHoldfastBreaker(exact.Now())
	for range breakerVolume {
		b.Record(exact.Now(), b.Admit(exact.Now()).Ticket, breaker.Failure, time.Millisecond)
	}
	return []subject{
		{name: "Holdfast, coarse clock", refused: errRejected, run: func(n int) error {
			for range n {
				if b.Admit(coarse.Now()).Admitted {
					return nil
				}
			}
			return errRejected
		}},
		{name: "Holdfast, exact clock", refused: errRejected, run: func(n int) error {
			for range n {
				if b.Admit(exact.Now()).Admitted {
					return nil
				}
			}
			return errRejected
		}},
	}
}

func gobreakerSettings(bucket time.Duration) gobreaker.Settings {
	return gobreaker.Settings{
		Interval: breakerWindow, BucketPeriod: bucket, Timeout: breakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.Requests >= breakerVolume && float64(c.TotalFailures) >= breakerRatio*float64(c.Requests)
		},
	}
}

func gobreakerExecute(name string, bucket time.Duration, open bool) subject {
	b := gobreaker.NewCircuitBreaker[int](gobreakerSettings(bucket))
	call := func(err error) error {
		_, err = b.Execute(func() (int, error) { return 0, err })
		return err
	}
	s := subject{name: name, run: func(n int) (err error) {
		for range n {
			_, err = b.Execute(succeed)
		}
		return err
	}}
	if open {
		fail(call)
		s.refused = gobreaker.ErrOpenState
	}
	return s
}

func gobreakerTwoStep(open bool) subject {
	b := gobreaker.NewTwoStepCircuitBreaker[int](gobreakerSettings(breakerBucket))
	call := func(err error) error {
		done, refused := b.Allow()
		if refused != nil {
			return refused
		}
		done(err)
		return nil
	}
	s := subject{name: "gobreaker 2.4.0 TwoStep, rolling window", run: func(n int) (err error) {
		for range n {
			err = call(nil)
		}
		return err
	}}
	if open {
		fail(call)
		s.refused = gobreaker.ErrOpenState
	}
	return s
}

func newFailsafeBreaker[R any]() circuitbreaker.CircuitBreaker[R] {
	return circuitbreaker.NewBuilder[R]().WithFailureRateThreshold(breakerRatio, breakerVolume, breakerWindow).WithDelay(breakerOpen).Build()
}

func failsafeDirect(open bool) subject {
	b := newFailsafeBreaker[int]()
	s := subject{name: "failsafe-go 0.9.7, permits", run: func(n int) error {
		for range n {
			if !b.TryAcquirePermit() {
				return errRejected
			}
			b.RecordSuccess()
		}
		return nil
	}}
	if open {
		b.Open()
		s.refused = errRejected
		s.run = func(n int) error {
			for range n {
				if b.TryAcquirePermit() {
					return nil
				}
			}
			return errRejected
		}
	}
	return s
}

func failsafeExecutor(open bool) subject {
	b := newFailsafeBreaker[int]()
	executor := failsafe.With[int](b)
	s := subject{name: "failsafe-go 0.9.7, executor", run: func(n int) (err error) {
		for range n {
			_, err = executor.Get(succeed)
		}
		return err
	}}
	if open {
		b.Open()
		s.refused = circuitbreaker.ErrOpen
	}
	return s
}

func succeed() (int, error) { return 0, nil }

// fail lets as many calls fail as open a breaker.
func fail(call func(error) error) {
	for range breakerVolume {
		_ = call(errDown)
	}
}
