package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/nemesis"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/report"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/run"
)

// endLimit is how long an interrupted run may take to clean up.
const endLimit = 20 * time.Second

// matrix is what the command run was asked for.
type matrix struct {
	profile   run.Profile
	scenarios []run.Scenario
	seed      uint64
	seeds     int
	faults    time.Duration
	driver    string
	server    string
	keep      string
	out       string
}

func parse(args []string) (*matrix, error) {
	m := &matrix{}
	var profile, scenarios string
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.StringVar(&profile, "profile", "default", "how much of everything: short, default, measure or long")
	flags.StringVar(&scenarios, "scenario", "", "`names` of scenarios, comma-separated, or all (default: those of the profile)")
	flags.Uint64Var(&m.seed, "seed", 1, "first `seed`: it chooses faults, targets and times")
	flags.IntVar(&m.seeds, "seeds", 0, "`number` of seeds for each scenario (default: that of the profile)")
	flags.DurationVar(&m.faults, "faults", 0, "how long faults are begun in a run (default: that of the profile)")
	flags.StringVar(&m.driver, "driver", "", "network: kernel, proxy (default: kernel where the machine allows namespaces)")
	flags.StringVar(&m.server, "server", "", "`program` to test in place of this version's server, built with -tags faults")
	flags.StringVar(&m.keep, "keep", "failed", "keep histories and logs of all runs, or of those that did not pass: all or failed")
	flags.StringVar(&m.out, "out", "", "`directory` for reports and artefacts (default: a new one below the temporary directory)")
	if err := flags.Parse(args); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	if flags.NArg() > 0 || (m.keep != "all" && m.keep != "failed") {
		return nil, fmt.Errorf("%w: run does not understand %q", errUsage, strings.Join(args, " "))
	}
	var err error
	if m.profile, err = run.FindProfile(profile); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	if m.seeds <= 0 {
		m.seeds = m.profile.Seeds
	}
	names := m.profile.Scenarios
	if scenarios != "" {
		names = strings.Split(scenarios, ",")
	}
	if scenarios == "all" || len(names) == 0 {
		m.scenarios = slices.DeleteFunc(run.Scenarios(), func(s run.Scenario) bool { return s.Measures && scenarios != "all" })
		return m, nil
	}
	for _, name := range names {
		s, err := run.Find(strings.TrimSpace(name))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		m.scenarios = append(m.scenarios, s)
	}
	return m, nil
}

// runMany builds the programs, carries out one run after the other, each in a process
// of its own, and sums up.
func runMany(ctx context.Context, args []string) (int, error) {
	m, err := parse(args)
	if err != nil {
		return exitUsage, err
	}
	if m.out == "" {
		if m.out, err = os.MkdirTemp("", "jepsen-lite-"); err != nil {
			return exitNotProven, fmt.Errorf("make a directory: %w", err)
		}
	}
	if m.out, err = filepath.Abs(m.out); err != nil {
		return exitNotProven, fmt.Errorf("find the directory: %w", err)
	}
	previous := false
	for _, s := range m.scenarios {
		previous = previous || s.Previous
	}
	_, _ = fmt.Printf("building the programs below %s\n", m.out)
	programs, err := run.Build(ctx, filepath.Join(m.out, "bin"), m.server, previous, run.Tags)
	if err != nil {
		return exitNotProven, err
	}
	sum := &report.Summary{Dir: m.out, Began: time.Now().UTC(), Command: "jepsen-lite run " + strings.Join(args, " ")}
	for n := range m.seeds {
		for _, s := range m.scenarios {
			if ctx.Err() != nil {
				break
			}
			line := m.one(ctx, s, m.seed+uint64(n), programs)
			sum.Lines = append(sum.Lines, line)
			sum.Took = time.Since(sum.Began).Round(time.Second)
			if err := sum.Write(); err != nil {
				return exitNotProven, err
			}
		}
	}
	tellSummary(os.Stdout, sum)
	if ctx.Err() != nil {
		return exitInterrupted, fmt.Errorf("after %d runs: %w", len(sum.Lines), ctx.Err())
	}
	return exitOfAll(sum), nil
}

// one has one run carried out and reads what came of it.
func (m *matrix) one(ctx context.Context, s run.Scenario, seed uint64, programs run.Programs) report.Line {
	name := fmt.Sprintf("%s-%d", s.Name, seed)
	o := order{
		Scenario: s.Name, Profile: m.profile.Name, Seed: seed, Faults: m.faults, Driver: m.driver, Dir: filepath.Join(m.out, name),
		Programs: programs, Command: fmt.Sprintf("jepsen-lite run -profile %s -scenario %s -seed %d -seeds 1", m.profile.Name, s.Name, seed),
	}
	if m.faults > 0 {
		o.Command += " -faults " + m.faults.String()
	}
	if m.driver != "" {
		o.Command += " -driver " + m.driver
	}
	if m.server != "" {
		o.Command += " -server " + m.server
	}
	line := report.Line{
		Scenario: s.Name, Seed: seed, Result: check.Invalid, Command: o.Command,
		Page: name + "/report.html",
	}
	began := time.Now()
	_, _ = fmt.Printf("\n=== %s, seed %d: %s\n", s.Name, seed, s.About)
	exit, err := execute(ctx, filepath.Join(m.out, name+".order.json"), &o)
	line.Took = time.Since(began).Round(100 * time.Millisecond)
	judge(&line, o.Dir)
	if err != nil {
		line.Result, line.Why = check.Invalid, fmt.Sprintf("%v; %s", err, line.Why)
		return line
	}
	if exit != exitOf(line.Result) {
		// The process may have been killed after it wrote its verdict, or have left
		// something that made it fail.
		line.Result, line.Why = check.Invalid, fmt.Sprintf("the run says %s and ended with %d; %s", line.Result, exit, line.Why)
	}
	if line.Result == check.Pass && m.keep == "failed" {
		dropBulk(o.Dir)
	}
	return line
}

// dropBulk keeps of a run what its report says.
func dropBulk(dir string) {
	for _, bulk := range []string{"data", "trace", "history", "faults", "logs"} {
		_ = os.RemoveAll(filepath.Join(dir, bulk))
	}
}

// execute runs an order in a process of its own, which gets one signal if ctx ends
// and is killed if it does not obey; the kernel ends everything below it.
func execute(ctx context.Context, path string, o *order) (int, error) {
	data, err := json.MarshalIndent(o, "", "\t")
	if err != nil {
		return exitNotProven, fmt.Errorf("write the order: %w", err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return exitNotProven, fmt.Errorf("write the order: %w", err)
	}
	defer func() { _ = os.Remove(path) }()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "one", path)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Its own group, so that Ctrl-C reaches it once: from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = endLimit
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return exitNotProven, fmt.Errorf("execute a run: %w", err)
	}
	return exitPassed, nil
}

// tell prints the verdicts of a run.
func tell(out io.Writer, page *report.Page) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range page.Verdicts {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", v.Rule, v.Result, v.Why)
		for _, e := range v.Evidence[:min(3, len(v.Evidence))] {
			_, _ = fmt.Fprintf(table, "\t\t  %s\n", e)
		}
	}
	_ = table.Flush()
	if page.Trouble != "" {
		_, _ = fmt.Fprintf(out, "trouble: %s\n", page.Trouble)
	}
	tellTables(out, page.Figures.Measured())
	_, _ = fmt.Fprintf(out, "%s, seed %d: %s; %s\n", page.Run.Scenario, page.Run.Seed, page.Result, filepath.Join(page.Dir, "report.html"))
}

// list shows what there is.
func list(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SCENARIO\tWHAT\tFAULTS")
	for _, s := range run.Scenarios() {
		var lanes []string
		for _, lane := range s.Lanes {
			lanes = append(lanes, strings.Join(lane, " "))
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, s.About, strings.Join(lanes, " | "))
	}
	_, _ = fmt.Fprintln(table, "\nPROFILE\tFAULTS FOR\tINSTANCES")
	for _, p := range run.Profiles() {
		_, _ = fmt.Fprintf(table, "%s\t%v\t%d\n", p.Name, p.Faults, p.Instances)
	}
	_, _ = fmt.Fprintln(table, "\nFAULT\tLASTS")
	for _, f := range nemesis.Catalogue() {
		_, _ = fmt.Fprintf(table, "%s\t%v–%v\n", f.Name, f.Hold.Min, f.Hold.Max)
	}
	_, _ = fmt.Fprintln(table, "\nRULE\tWHAT MUST HOLD")
	for _, r := range check.Rules() {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", r.Name, r.Statement)
	}
	return table.Flush()
}
