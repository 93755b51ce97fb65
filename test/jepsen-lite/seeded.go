package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
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
	control bool
}

// catch is what became of a bug.
type catch struct {
	bug    seeded.Bug
	run    int // in which it was caught, 0 if it was not
	took   time.Duration
	failed []string // rules that were violated in that run, or in any if it was not caught
	why    string   // why a run proved nothing
}

func parseHunt(args []string) (*hunt, error) {
	h := &hunt{}
	h.keep = "all" // until the verdicts are read
	var names, profile string
	flags := flag.NewFlagSet("seeded", flag.ContinueOnError)
	flags.StringVar(&names, "bug", "", "`names` of bugs, comma-separated (default: all)")
	flags.StringVar(&profile, "profile", "short", "how much of everything: short, default or long")
	flags.IntVar(&h.runs, "runs", 5, "`number` of runs in which a bug has to be caught")
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
	exit := exitPassed
	if h.control {
		exit, err = h.controls(ctx, programs, root)
		if err != nil {
			return exit, err
		}
	}
	var caught []catch
	for _, b := range h.bugs {
		c, err := h.hunt(ctx, b, programs, root)
		if err != nil {
			return exitNotProven, err
		}
		caught = append(caught, c)
		if c.run == 0 {
			exit = exitFailed
		}
		if err := tellCaught(os.Stdout, caught); err != nil {
			return exitNotProven, err
		}
	}
	return exit, nil
}

// controls has every scenario pass without a bug, or what the hunt shows proves
// nothing.
func (h *hunt) controls(ctx context.Context, programs run.Programs, root string) (int, error) {
	var done []string
	exit := exitPassed
	for _, b := range h.bugs {
		if slices.Contains(done, b.Scenario) {
			continue
		}
		done = append(done, b.Scenario)
		verdicts, line, err := h.run(ctx, b, h.seed, programs, filepath.Join(root, "control"))
		if err != nil {
			return exitNotProven, err
		}
		if line != check.Pass {
			exit = exitNotProven
			_, _ = fmt.Printf("without a bug, %s is %s: %s\n", b.Scenario, line, strings.Join(failed(verdicts), " "))
		}
	}
	return exit, nil
}

// hunt runs a bug's scenario with other seeds until the rule that is meant for it is
// violated.
func (h *hunt) hunt(ctx context.Context, b seeded.Bug, programs run.Programs, root string) (catch, error) {
	dir := filepath.Join(root, b.Name)
	sick, err := seeded.Give(programs, b.Name, filepath.Join(dir, "bin"))
	if err != nil {
		return catch{}, err
	}
	c := catch{bug: b}
	began := time.Now()
	var all []string
	for n := range h.runs {
		verdicts, result, err := h.run(ctx, b, h.seed+uint64(n), sick, dir)
		if err != nil {
			return c, err
		}
		rules := failed(verdicts)
		if slices.ContainsFunc(rules, func(r string) bool { return slices.Contains(b.Rules, r) }) {
			c.run, c.failed, c.took = n+1, rules, time.Since(began)
			return c, nil
		}
		if result != check.Fail {
			c.why = fmt.Sprintf("run %d is %s", n+1, result)
		}
		all = append(all, rules...)
	}
	slices.Sort(all)
	c.failed, c.took = slices.Compact(all), time.Since(began)
	return c, nil
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
	data, err := os.ReadFile(filepath.Join(dir, filepath.Dir(line.Page), "verdicts.json"))
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

// tellCaught prints what became of the bugs so far.
func tellCaught(out io.Writer, caught []catch) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nBUG\tRULE\tSCENARIO\tCAUGHT IN RUN\tSECONDS\tOTHER RULES")
	n := 0
	for _, c := range caught {
		in := "not caught"
		if c.run > 0 {
			n++
			in = fmt.Sprint(c.run)
		} else if c.why != "" {
			in += ": " + c.why
		}
		others := slices.DeleteFunc(slices.Clone(c.failed), func(r string) bool { return slices.Contains(c.bug.Rules, r) })
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.0f\t%s\n",
			c.bug.Name, strings.Join(c.bug.Rules, " or "), c.bug.Scenario, in, c.took.Seconds(), strings.Join(others, " "))
	}
	_, _ = fmt.Fprintf(table, "%d of %d caught\n", n, len(caught))
	return table.Flush()
}
