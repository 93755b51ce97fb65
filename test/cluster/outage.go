package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Outage disturbs a system and returns the time from then to the first write
// that was begun afterwards and acknowledged. A fresh write with a long limit
// sets out to each target every 20 ms, so that the result does not depend on
// when some client happens to retry.
func Outage(ctx context.Context, disturb func() error, targets ...func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	if err := disturb(); err != nil {
		return 0, fmt.Errorf("disturb: %w", err)
	}
	var (
		group sync.WaitGroup
		first = make(chan time.Duration, 1)
		last  = make(chan error, 1)
	)
	defer group.Wait()
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, write := range targets {
			group.Go(func() {
				try, done := context.WithTimeout(ctx, 10*time.Second)
				defer done()
				if err := write(try); err != nil {
					keep(last, err)
					return
				}
				keep(first, time.Since(began))
			})
		}
		select {
		case took := <-first:
			return took, nil
		case <-ctx.Done():
			err := errors.New("no answer at all")
			select {
			case err = <-last:
			default:
			}
			return 0, fmt.Errorf("no write acknowledged %v after the disturbance: %w; an error: %w",
				time.Since(began).Round(time.Millisecond), context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// keep puts v into a channel of one place if that is free.
func keep[T any](ch chan T, v T) {
	select {
	case ch <- v:
	default:
	}
}

// Probe is a write through server i for Outage, always a change.
func (c *Cluster) Probe(i int) func(context.Context) error {
	client := c.Client(i)
	return func(ctx context.Context) error {
		id := NewRequestID()
		w := Writer{Actor: "probe"}
		req := w.NewRequest("probe", Flag("probe", fmt.Sprintf("probe-%d", i), fmt.Sprintf("%x", id)))
		_, err := client.Apply(ctx, req)
		return err
	}
}
