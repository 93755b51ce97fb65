package report

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
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
	Page   string
	Took   time.Duration
	Counts Counts
}

// Summary is what came of many runs.
type Summary struct {
	Dir, Command string
	Began        time.Time
	Took         time.Duration
	Lines        []Line
}

// Counts are those of all runs together.
func (s *Summary) Counts() Counts {
	var all Counts
	for _, l := range s.Lines {
		all = all.Add(l.Counts)
	}
	return all
}

// Tally is how many runs ended how.
func (s *Summary) Tally() []Count {
	var tally []Count
	for _, r := range []check.Result{check.Pass, check.Fail, check.Unknown, check.Invalid, check.Skipped} {
		n := 0
		for _, l := range s.Lines {
			if l.Result == r {
				n++
			}
		}
		if n > 0 {
			tally = append(tally, Count{string(r), n})
		}
	}
	return tally
}

// Passed tells whether there were runs and every one passed: what is unknown,
// invalid or skipped did not.
func (s *Summary) Passed() bool {
	return len(s.Lines) > 0 && !slices.ContainsFunc(s.Lines, func(l Line) bool { return l.Result != check.Pass })
}

// Write writes summary.html and summary.md.
func (s *Summary) Write() error {
	return write(filepath.Join(s.Dir, "summary"), s, summaryHTML, summaryMarkdown)
}
