package main

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/measure"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/report"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/run"
)

// sumUp writes a summary of runs that lie in directories: each that of a run, or of a
// set of runs. It judges nothing again.
func sumUp(out io.Writer, args []string) (int, error) {
	flags := flag.NewFlagSet("summary", flag.ContinueOnError)
	to := flags.String("out", "", "`directory` for the summary (default: the first of those that are summed up)")
	if err := flags.Parse(args); err != nil {
		return exitUsage, fmt.Errorf("summary: %w", err)
	}
	if flags.NArg() == 0 {
		return exitUsage, fmt.Errorf("%w: summary needs directories of runs", errUsage)
	}
	if *to == "" {
		*to = flags.Arg(0)
	}
	dir, err := filepath.Abs(*to)
	if err != nil {
		return exitNotProven, fmt.Errorf("find the directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return exitNotProven, fmt.Errorf("make the directory: %w", err)
	}
	sum := &report.Summary{Dir: dir, Began: time.Now().UTC(), Command: "jepsen-lite summary " + strings.Join(args, " ")}
	for _, arg := range flags.Args() {
		dirs, err := runsIn(arg)
		if err != nil {
			return exitNotProven, err
		}
		for _, one := range dirs {
			line, err := recorded(dir, one)
			if err != nil {
				return exitNotProven, err
			}
			sum.Lines, sum.Took = append(sum.Lines, line), sum.Took+line.Took
		}
	}
	if err := sum.Write(); err != nil {
		return exitNotProven, err
	}
	tellSummary(out, sum)
	return exitOfAll(sum), nil
}

// runsIn are the directories of runs at a directory or right below it.
func runsIn(dir string) ([]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	var dirs []string
	for _, pattern := range []string{"run.json", "*/run.json"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, fmt.Errorf("find runs: %w", err)
		}
		for _, path := range found {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("no run lies in %s or right below it: %w", dir, fs.ErrNotExist)
	}
	slices.Sort(dirs)
	return dirs, nil
}

// recorded is a run as its directory tells it.
func recorded(from, dir string) (report.Line, error) {
	record, err := run.ReadRecord(dir)
	if err != nil {
		return report.Line{}, err
	}
	page, err := filepath.Rel(from, filepath.Join(dir, "report.html"))
	if err != nil {
		return report.Line{}, fmt.Errorf("link to a report: %w", err)
	}
	line := report.Line{
		Scenario: record.Run.Scenario, Seed: record.Run.Seed, Command: record.Command, Page: filepath.ToSlash(page),
		Took: time.Duration(max(0, record.Run.Ended-record.Run.Began)).Round(100 * time.Millisecond),
	}
	judge(&line, dir)
	return line, nil
}

// judge fills in what the verdicts of a run say. One without any proves nothing.
func judge(line *report.Line, dir string) {
	line.Result = check.Invalid
	j, err := run.ReadJudgement(dir)
	if err != nil {
		line.Why = "no verdict: " + err.Error()
		return
	}
	line.Result, line.Figures, line.Why = j.Result, j.Figures, j.Trouble
	for _, v := range j.Verdicts {
		if j.Result == check.Skipped && v.Rule == "L3" {
			line.Why = v.Why // it tells why no fault could be done
		}
		if v.Result != check.Pass && v.Result != check.Skipped {
			line.Why = strings.TrimSpace(fmt.Sprintf("%s %s %s: %s;", line.Why, v.Rule, v.Result, v.Why))
		}
	}
}

// exitOfAll is the exit code of a set of runs.
func exitOfAll(sum *report.Summary) int {
	switch {
	case sum.Passed():
		return exitPassed
	case slices.ContainsFunc(sum.Lines, func(l report.Line) bool { return l.Result == check.Fail }):
		return exitFailed
	}
	return exitNotProven
}

// tellSummary prints what came of a set of runs.
func tellSummary(out io.Writer, sum *report.Summary) {
	figures := sum.Figures()
	_, _ = fmt.Fprintln(out)
	tellTables(out, figures.Tables())
	for _, c := range sum.Tally() {
		_, _ = fmt.Fprintf(out, "%d %s  ", c.N, c.Name)
	}
	_, _ = fmt.Fprintf(out, "\n%s\n", filepath.Join(sum.Dir, "summary.html"))
}

// tellTables prints tables of figures.
func tellTables(out io.Writer, tables []measure.Table) {
	for _, t := range tables {
		_, _ = fmt.Fprintln(out, t.Title)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{t.Head}, t.Rows...) {
			_, _ = fmt.Fprintln(table, "  "+strings.Join(row, "\t"))
		}
		_ = table.Flush()
		for _, note := range t.Notes {
			_, _ = fmt.Fprintln(out, "  "+note)
		}
		_, _ = fmt.Fprintln(out)
	}
}
