package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/run"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/seeded"
)

// hunt is what the command seeded was asked for.
type hunt struct {
	matrix
	bugs    []seeded.Bug
	runs    int
	all     bool // all runs of each bug, also after one that caught it
	control bool
}

func parseHunt(args []string) (*hunt, error) {
	h := &hunt{}
	h.keep = "all" // until it is known which are worth it
	var names, profile string
	flags := flag.NewFlagSet("seeded", flag.ContinueOnError)
	flags.StringVar(&names, "bug", "", "`names` of bugs, comma-separated (default: all)")
	flags.StringVar(&profile, "profile", "short", "how much of everything: short, default or long")
	flags.IntVar(&h.runs, "runs", 5, "`number` of runs in which a bug has to be caught")
	flags.BoolVar(&h.all, "all", false, "carry out all runs of each bug, for the rate, and do not stop at the first catch")
	flags.Uint64Var(&h.seed, "seed", 1, "`seed` of the first run")
	flags.BoolVar(&h.control, "control", true, "first show that the same programs pass without a bug")
	flags.StringVar(&h.driver, "driver", "", "network: kernel, proxy (default: kernel where the machine allows namespaces)")
	flags.StringVar(&h.out, "out", "", "`directory` for programs and artefacts (default: a new one below the temporary directory)")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("seeded: %w", err)
	}
	if flags.NArg() > 0 || h.runs < 1 {
		return nil, fmt.Errorf("%w: seeded does not understand %q", errUsage, strings.Join(args, " "))
	}
	var err error
	if h.profile, err = run.FindProfile(profile); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	if names == "" {
		h.bugs = seeded.Bugs()
		return h, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		b, err := seeded.Find(strings.TrimSpace(name))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		h.bugs = append(h.bugs, b)
	}
	return h, nil
}

// runSeeded shows that each bug is found by the rule that is meant for it, and that
// without one the same programs pass.
func runSeeded(ctx context.Context, args []string) (int, error) {
	h, err := parseHunt(args)
	if err != nil {
		return exitUsage, err
	}
	if h.out == "" {
		if h.out, err = os.MkdirTemp("", "jepsen-seeded-"); err != nil {
			return exitNotProven, fmt.Errorf("make a directory: %w", err)
		}
	}
	root, err := filepath.Abs(h.out)
	if err != nil {
		return exitNotProven, fmt.Errorf("find the directory: %w", err)
	}
	_, _ = fmt.Printf("building the programs below %s\n", root)
	programs, err := seeded.Build(ctx, filepath.Join(root, "bin"))
	if err != nil {
		return exitNotProven, err
	}
	f := &findings{began: time.Now()}
	page := filepath.Join(root, "seeded.md")
	if h.control {
		if err := h.controls(ctx, f, programs, root); err != nil {
			return exitNotProven, err
		}
	}
	for _, b := range h.bugs {
		c, err := h.hunt(ctx, b, programs, root)
		if err != nil {
			return exitNotProven, err
		}
		f.catches = append(f.catches, c)
		f.took = time.Since(f.began)
		if err := errors.Join(f.tell(os.Stdout), os.WriteFile(page, []byte(f.markdown()), 0o644)); err != nil {
			return exitNotProven, fmt.Errorf("tell what was caught: %w", err)
		}
	}
	_, _ = fmt.Println(page)
	return f.exit(), nil
}

// controls has every scenario pass without a bug, or what the hunt shows proves
// nothing.
func (h *hunt) controls(ctx context.Context, f *findings, programs run.Programs, root string) error {
	for _, b := range h.bugs {
		c := control{scenario: b.Scenario, faults: b.Faults}
		if slices.ContainsFunc(f.controls, func(done control) bool { return done.scenario == c.scenario && done.faults == c.faults }) {
			continue
		}
		dir := filepath.Join(root, "control", b.Faults.String())
		verdicts, result, err := h.run(ctx, b, h.seed, programs, dir)
		if err != nil {
			return err
		}
		c.result, c.failed = result, failed(verdicts)
		if result == check.Pass {
			dropBulk(h.place(dir, b, h.seed))
		}
		f.controls = append(f.controls, c)
	}
	return nil
}

// hunt runs a bug's scenario with one seed after the other.
func (h *hunt) hunt(ctx context.Context, b seeded.Bug, programs run.Programs, root string) (catch, error) {
	dir := filepath.Join(root, b.Name)
	sick, err := seeded.Give(programs, b.Name, filepath.Join(dir, "bin"))
	if err != nil {
		return catch{}, err
	}
	c := catch{bug: b}
	began := time.Now()
	for n := range h.runs {
		if c.caught > 0 && !h.all {
			break
		}
		seed := h.seed + uint64(n)
		verdicts, result, err := h.run(ctx, b, seed, sick, dir)
		if err != nil {
			return c, err
		}
		if first := c.add(failed(verdicts), result, time.Since(began)); !first {
			dropBulk(h.place(dir, b, seed)) // one that shows the bug is enough
		}
	}
	return c, nil
}

// place is the directory of a run.
func (h *hunt) place(dir string, b seeded.Bug, seed uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%d", b.Scenario, seed))
}

// run has a bug's scenario carried out once.
func (h *hunt) run(ctx context.Context, b seeded.Bug, seed uint64, programs run.Programs, dir string) ([]check.Verdict, check.Result, error) {
	scenario, err := run.Find(b.Scenario)
	if err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", fmt.Errorf("make a directory: %w", err)
	}
	m := h.matrix
	m.out, m.faults = dir, b.Faults
	line := m.one(ctx, scenario, seed, programs)
	if err := ctx.Err(); err != nil {
		return nil, "", fmt.Errorf("hunt for %s: %w", b.Name, err)
	}
	data, err := os.ReadFile(filepath.Join(h.place(dir, b, seed), "verdicts.json"))
	if errors.Is(err, os.ErrNotExist) {
		_, _ = fmt.Println(line.Why)
		return nil, check.Invalid, nil // what it did not come to is no proof
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the verdicts: %w", err)
	}
	var page struct {
		Verdicts []check.Verdict `json:"verdicts"`
	}
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, "", fmt.Errorf("read the verdicts: %w", err)
	}
	return page.Verdicts, line.Result, nil
}

// failed are the names of the rules that were violated.
func failed(verdicts []check.Verdict) []string {
	var names []string
	for _, v := range verdicts {
		if v.Result == check.Fail {
			names = append(names, v.Rule)
		}
	}
	return names
}
