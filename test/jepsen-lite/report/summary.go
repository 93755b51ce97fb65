package report

import (
	"path/filepath"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/measure"
)

// Line is a run in a summary.
type Line struct {
	Scenario string
	Seed     uint64
	Result   check.Result
	// Why names the rules that did not pass, or what kept the run from its end.
	Why     string
	Command string
	// Page is the run's report, relative to the summary.
	Page    string
	Took    time.Duration
	Figures measure.Figures
}

// Faults are those of the run.
func (l *Line) Faults() measure.Injected { return l.Figures.Totals.AllFaults() }

// Operations are those of the run.
func (l *Line) Operations() measure.Outcomes { return l.Figures.Totals.AllOperations() }

// Summary is what came of many runs.
type Summary struct {
	Dir, Command string
	Began        time.Time
	Took         time.Duration
	Lines        []Line
}

// Figures are those of all runs together.
func (s *Summary) Figures() *measure.Figures {
	var all measure.Figures
	for i := range s.Lines {
		all.Add(&s.Lines[i].Figures)
	}
	return &all
}

// Tally is how many runs ended how.
func (s *Summary) Tally() []measure.Count {
	var tally []measure.Count
	for _, r := range []check.Result{check.Pass, check.Fail, check.Unknown, check.Invalid, check.Skipped} {
		n := 0
		for _, l := range s.Lines {
			if l.Result == r {
				n++
			}
		}
		if n > 0 {
			tally = append(tally, measure.Count{Name: string(r), N: n})
		}
	}
	return tally
}

// Passed tells whether runs passed, and all of them but those that the machine cannot
// do: what is unknown or invalid did not.
func (s *Summary) Passed() bool {
	passed := 0
	for i := range s.Lines {
		switch s.Lines[i].Result {
		case check.Pass:
			passed++
		case check.Skipped:
		case check.Fail, check.Unknown, check.Invalid:
			return false
		}
	}
	return passed > 0
}

// Write writes summary.html and summary.md.
func (s *Summary) Write() error {
	return write(filepath.Join(s.Dir, "summary"), s, summaryHTML, summaryMarkdown)
}
