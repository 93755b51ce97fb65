package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/run"
)

// order is a run that the command run orders from itself; it travels in a file.
type order struct {
	Scenario, Profile string
	Seed              uint64
	Faults            time.Duration // 0 leaves it to the profile
	Driver            string
	Dir, Command      string
	Programs          run.Programs
}

func (o *order) options() (run.Options, error) {
	scenario, err := run.Find(o.Scenario)
	if err != nil {
		return run.Options{}, err
	}
	profile, err := run.FindProfile(o.Profile)
	if err != nil {
		return run.Options{}, err
	}
	if o.Faults > 0 {
		profile.Faults = o.Faults
	}
	self, err := os.Executable()
	if err != nil {
		return run.Options{}, fmt.Errorf("find this program: %w", err)
	}
	return run.Options{
		Scenario: scenario, Profile: profile, Seed: o.Seed, Dir: o.Dir, Programs: o.Programs,
		Driver: o.Driver, Self: self, Command: o.Command,
	}, nil
}

// runOne carries out an order, in namespaces where the driver of the network wants
// them and the machine allows them.
func runOne(ctx context.Context, args []string) (int, error) {
	if len(args) != 1 {
		return exitUsage, fmt.Errorf("%w: one needs the file of its order", errUsage)
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return exitUsage, fmt.Errorf("read the order: %w", err)
	}
	var o order
	if err := json.Unmarshal(data, &o); err != nil {
		return exitUsage, fmt.Errorf("read the order %s: %w", args[0], err)
	}
	if o.Driver != fabric.Proxy {
		inside, exit, err := fabric.Enter([]string{"one", args[0]})
		switch {
		case errors.Is(err, fabric.ErrForbidden) && o.Driver == "":
			_, _ = fmt.Fprintf(os.Stderr, "%v; going on with proxies\n", err)
		case err != nil:
			return exitNotProven, err
		case !inside:
			return exit, nil
		}
	}
	options, err := o.options()
	if err != nil {
		return exitUsage, err
	}
	_, err = run.Run(ctx, options)
	if ctx.Err() != nil {
		return exitInterrupted, err
	}
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "the run did not come to its end: %v\n", err)
	}
	page, err := run.Judge(o.Dir)
	if err != nil {
		return exitNotProven, err
	}
	tell(os.Stdout, page)
	return exitOf(page.Result), nil
}

func exitOf(r check.Result) int {
	switch r {
	case check.Pass:
		return exitPassed
	case check.Fail:
		return exitFailed
	case check.Unknown, check.Invalid, check.Skipped:
	}
	return exitNotProven
}

// checkAgain judges recorded runs.
func checkAgain(out *os.File, args []string) (int, error) {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	if err := flags.Parse(args); err != nil {
		return exitUsage, fmt.Errorf("check: %w", err)
	}
	if flags.NArg() == 0 {
		return exitUsage, fmt.Errorf("%w: check needs the directory of a run", errUsage)
	}
	worst := exitPassed
	for _, dir := range flags.Args() {
		page, err := run.Judge(filepath.Clean(dir))
		if err != nil {
			return exitNotProven, err
		}
		tell(out, page)
		if exit := exitOf(page.Result); exit == exitFailed || worst == exitPassed {
			worst = exit
		}
	}
	return worst, nil
}
