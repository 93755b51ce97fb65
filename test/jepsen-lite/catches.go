package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/seeded"
)

// findings are what a hunt for seeded bugs has come to.
type findings struct {
	began    time.Time
	took     time.Duration
	controls []control
	catches  []catch
}

// control is a scenario without a bug.
type control struct {
	scenario string
	faults   time.Duration
	result   check.Result
	failed   []string // rules that were violated
}

// catch is what became of a bug.
type catch struct {
	bug    seeded.Bug
	runs   int
	caught int            // in how many of them
	first  time.Duration  // until the first of those was judged
	by     map[string]int // in how many runs each rule was violated
	why    string         // why a run proved nothing
}

// add counts a run by the rules that were violated, and tells whether it is the first
// that caught the bug.
func (c *catch) add(failed []string, result check.Result, after time.Duration) (first bool) {
	c.runs++
	if c.by == nil {
		c.by = make(map[string]int)
	}
	for _, rule := range failed {
		c.by[rule]++
	}
	switch {
	case slices.ContainsFunc(failed, c.meant):
		if c.caught++; c.caught == 1 {
			c.first = after
			return true
		}
	case result != check.Fail && result != check.Pass:
		c.why = fmt.Sprintf("run %d is %s", c.runs, result)
	}
	return false
}

func (c *catch) meant(rule string) bool { return slices.Contains(c.bug.Rules, rule) }

// rules are the violated ones that were meant to be, or the others, and how often each
// was where it was not each time.
func (c *catch) rules(meant bool) string {
	var all []string
	for _, rule := range slices.Sorted(maps.Keys(c.by)) {
		switch {
		case c.meant(rule) != meant:
		case c.by[rule] == c.runs:
			all = append(all, rule)
		default:
			all = append(all, fmt.Sprintf("%s (%d of %d)", rule, c.by[rule], c.runs))
		}
	}
	return strings.Join(all, ", ")
}

// after is the time to the first catch.
func (c *catch) after() string {
	if c.caught == 0 {
		return strings.TrimSpace("not caught " + c.why)
	}
	return fmt.Sprintf("%.0f s", c.first.Seconds())
}

func (f *findings) caught() (n int) {
	for _, c := range f.catches {
		if c.caught > 0 {
			n++
		}
	}
	return n
}

// disturbed are the controls that did not pass.
func (f *findings) disturbed() (lines []string) {
	for _, c := range f.controls {
		if c.result != check.Pass {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("without a bug, %s is %s %s", c.scenario, c.result, strings.Join(c.failed, " "))))
		}
	}
	return lines
}

// exit is 0 only if every bug was caught by a rule meant for it, and the controls passed.
func (f *findings) exit() int {
	switch {
	case f.caught() < len(f.catches):
		return exitFailed
	case len(f.disturbed()) > 0:
		return exitNotProven
	}
	return exitPassed
}

// sum is the last line of a table.
func (f *findings) sum() string {
	sum := fmt.Sprintf("%d of %d caught in %v", f.caught(), len(f.catches), f.took.Round(time.Second))
	if len(f.controls) == 0 {
		return sum + "; nothing was tried without a bug"
	}
	return fmt.Sprintf("%s; without a bug, %d of %d scenarios pass", sum, len(f.controls)-len(f.disturbed()), len(f.controls))
}

// tell prints what became of the bugs so far.
func (f *findings) tell(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nBUG\tWHERE\tSCENARIO\tMEANT\tCAUGHT\tFIRST AFTER\tBY\tOTHER RULES")
	for _, c := range f.catches {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d of %d\t%s\t%s\t%s\n", c.bug.Name, c.bug.Where, c.bug.Scenario,
			strings.Join(c.bug.Rules, " or "), c.caught, c.runs, c.after(), c.rules(true), c.rules(false))
	}
	for _, line := range append(f.disturbed(), f.sum()) {
		_, _ = fmt.Fprintln(table, line)
	}
	return table.Flush() //nolint:wrapcheck // of the terminal
}

// markdown is the same as a page.
func (f *findings) markdown() string {
	var page strings.Builder
	page.WriteString("# Seeded bugs\n\n| bug | where | what goes wrong | scenario | rule meant | caught | first after | by | other rules |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range f.catches {
		meant := strings.Join(c.bug.Rules, " or ")
		if c.bug.Why != "" {
			meant += ": " + c.bug.Why
		}
		_, _ = fmt.Fprintf(&page, "| `%s` | %s | %s | `%s` | %s | %d of %d | %s | %s | %s |\n", c.bug.Name, c.bug.Where, c.bug.Story, c.bug.Scenario,
			meant, c.caught, c.runs, c.after(), c.rules(true), c.rules(false))
	}
	page.WriteString("\n" + f.sum() + ".\n")
	for _, line := range f.disturbed() {
		page.WriteString("\n" + line + ".\n")
	}
	return page.String()
}
