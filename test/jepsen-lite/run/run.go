package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/nemesis"
)

const (
	servers = 3
	// startLimit bounds the start of everybody, on a busy machine.
	startLimit = 60 * time.Second
	warmUp     = time.Second
	// afterHeal is how long clients go on when everything is healed: what they do then
	// has to succeed.
	afterHeal = 3 * time.Second
	// settleLimit bounds the wait for everybody to agree. The rules are stricter; this
	// is where waiting ends.
	settleLimit = 60 * time.Second
	// shrinkLimit is how long servers may take to let go of what the faults had them take.
	shrinkLimit = 20 * time.Second
)

// Options describe one run.
type Options struct {
	Scenario Scenario
	Profile  Profile
	Seed     uint64
	Dir      string // is made, and must be empty
	Programs Programs
	Driver   string // of the network: empty chooses, "none" has none
	Self     string // this program, for what it executes itself as
	Command  string // that repeats the run
}

// Record is the file run.json of a run: what a later reader needs beside the history.
type Record struct {
	Run     history.Run     `json:"run"`
	Command string          `json:"command"`
	About   string          `json:"about"`
	Check   check.Options   `json:"check"`
	Faults  nemesis.Summary `json:"faults"`
	// Trouble is what kept the run from its end; such a run proves nothing.
	Trouble string `json:"trouble,omitempty"`
}

// Run carries out one run. What was recorded lies in its directory afterwards, also
// where an error tells that the run did not come to its end. Nothing is left running.
func Run(ctx context.Context, o Options) (*Record, error) {
	record := &Record{Command: o.Command, About: o.Scenario.About, Check: limits(o.Scenario)}
	s, err := open(ctx, o, &record.Run)
	if err == nil {
		record.Faults, err = s.phases(ctx)
		err = errors.Join(err, s.close())
	}
	if err != nil {
		record.Trouble = err.Error()
	}
	if saveErr := save(filepath.Join(o.Dir, "run.json"), record); saveErr != nil {
		return record, errors.Join(err, saveErr)
	}
	return record, err
}

// limits are the deadlines and floors that the rules hold a run against.
func limits(s Scenario) check.Options {
	o := check.Defaults()
	o.Require = s.require()
	// Who leads at the end need not have led at first, and leading takes connections to
	// everybody and from everybody.
	o.FDs, o.Goroutines = 24, 60
	// The rings of the audit log and of remembered requests fill up during a run.
	o.RSS = 256 << 20
	return o
}

// phases are the life of a run once everybody has started.
func (s *stage) phases(ctx context.Context) (nemesis.Summary, error) {
	run := s.run
	var bitten nemesis.Summary
	plan, err := s.o.Scenario.plan(s.o.Seed, s.o.Profile.Faults)
	if err != nil {
		return bitten, err
	}
	run.Began = history.Now()
	if err := pass(ctx, warmUp); err != nil {
		return bitten, err
	}
	base := s.baseline(ctx) // with everybody connected
	if len(plan.Lanes) == 0 {
		err = pass(ctx, s.o.Profile.Faults)
	} else {
		bitten, err = nemesis.Run(ctx, s.env, plan, s.o.Seed)
	}
	s.say("faults", "bitten", bitten.Bitten, "toothless", bitten.Toothless, "skipped", bitten.Skipped)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return bitten, fmt.Errorf("the phase of faults: %w", err)
	}
	if err := s.heal(); err != nil {
		return bitten, fmt.Errorf("heal: %w", err)
	}
	run.Healed = history.Now()
	if err := pass(ctx, max(afterHeal, s.o.Scenario.AfterHeal)); err != nil {
		return bitten, err
	}
	run.Settling = history.Now()
	settling, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	s.settle(settling)
	run.Settled = history.Now()
	s.remains(ctx, base)
	run.Ended = history.Now()
	return bitten, ctx.Err()
}

// pass lets time go by.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("cut short: %w", context.Cause(ctx))
	case <-timer.C:
		return nil
	}
}

func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the run's directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into the run's directory: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("the run's directory %s is not empty: name another", dir)
	}
	return nil
}
