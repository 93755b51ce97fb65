package main

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/test/cluster"
)

// runFailover kills leaders and prints how long no write was acknowledged. The
// systems take turns.
func runFailover(ctx context.Context, c config) error {
	systems, closeAll, err := startSystems(ctx, c)
	if err != nil {
		return err
	}
	defer closeAll()
	gaps := make([]cluster.Durations, len(systems))
	for range c.kills {
		for i, s := range systems {
			gap, err := failover(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name(), err)
			}
			gaps[i] = append(gaps[i], gap)
		}
	}
	fmt.Println("kill -9 of the leader to the first acknowledged write that was begun afterwards")
	for i, s := range systems {
		fmt.Printf("%9s  %s\n", s.Name(), gaps[i])
	}
	return nil
}

func failover(ctx context.Context, s system) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var leader int
	err := cluster.Poll(ctx, func() (err error) {
		leader, err = s.Leader(ctx)
		return err
	})
	if err != nil {
		return 0, err
	}
	var targets []func(context.Context) error
	for i := range 3 {
		if i == leader {
			continue
		}
		c, err := s.Open(i)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.Close() }()
		// Connect now: the handshake is not what is measured.
		if err := c.Put(ctx, "failover", fmt.Sprint("warm", time.Now().UnixNano())); err != nil {
			return 0, fmt.Errorf("write before the kill: %w", err)
		}
		targets = append(targets, func(ctx context.Context) error {
			return c.Put(ctx, "failover", fmt.Sprint(i, time.Now().UnixNano()))
		})
	}
	gap, err := cluster.Outage(ctx, func() error { return s.Kill(leader) }, targets...)
	if err != nil {
		return 0, err
	}
	if err := s.Restart(leader); err != nil {
		return 0, err
	}
	if err := s.Ready(ctx, leader); err != nil {
		return 0, err
	}
	// Let the elections end and the logs meet, as between two real failures.
	time.Sleep(1500 * time.Millisecond)
	return gap, nil
}
