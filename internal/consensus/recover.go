package consensus

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Recover gives the data directory of a stopped node new members, after the
// majority of the old ones was lost for good. This node must be among them. It
// applies every entry of the log, committed or not: what the lost members alone
// had is gone. sm must be fresh, and is of no use afterwards.
//
// ErrLocked if the node still runs. Recover has either happened or not when it
// fails, except that it may be repeated.
func Recover(ctx context.Context, cfg Config, sm StateMachine, members []Member) error {
	if cfg.BindAddr == "" {
		cfg.BindAddr = "unused"
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	configuration, err := servers(members)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if self, ok := findServer(configuration, cfg.ID); !ok || self.Suffrage != raft.Voter {
		return fmt.Errorf("recover: this node, %s, must be among the voters", cfg.ID)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	var c counters
	failure := newFailure()
	s, err := openStore(cfg, &c, func(bool) {}, failure.fail)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	err = recoverStore(ctx, cfg, s, &c, sm, configuration)
	if err = errors.Join(err, failure.cause(), s.close()); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

func recoverStore(ctx context.Context, cfg Config, s *store, c *counters, sm StateMachine, members raft.Configuration) error {
	snaps, err := openSnapshots(cfg, c)
	if err != nil {
		return err
	}
	open := make(chan struct{})
	close(open)
	var failed error
	m := &machine{
		sm: sm, applied: &applied{}, counters: c, halted: open, ready: open,
		fail:     func(err error) { failed = errors.Join(failed, err) },
		onApply:  func(mark) {},
		onConfig: func(raft.Configuration) {},
	}
	if err := restoreState(s, snaps, m); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// raft restores the same snapshot again, into an empty index.
	m.applied = &applied{}
	// The addresses are encoded by a transport that never sends.
	_, encoder := raft.NewInmemTransport("")
	err = guardPanic(func() error {
		return raft.RecoverCluster(cfg.raftConfig(nil), m, s, s, snaps, encoder, members)
	})
	return errors.Join(failed, err)
}
