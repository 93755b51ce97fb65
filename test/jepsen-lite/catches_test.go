package main

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/seeded"
)

// A hunt has succeeded if every bug was caught by a rule that is meant for it, in any
// of its runs, and everything passes without a bug.
func TestWhatCountsAsCaught(t *testing.T) {
	type outcome struct {
		failed []string
		result check.Result
	}
	good := control{scenario: "calm", result: check.Pass}
	for name, c := range map[string]struct {
		runs     []outcome
		controls []control
		exit     int
		row      string
	}{
		"at once":              {[]outcome{{[]string{"R1", "W4"}, check.Fail}}, []control{good}, exitPassed, "| 1 of 1 | 10 s | R1 | W4 |"},
		"at the second run":    {[]outcome{{nil, check.Pass}, {[]string{"R2"}, check.Fail}}, []control{good}, exitPassed, "| 1 of 2 | 20 s | R2 (1 of 2) |  |"},
		"in all runs":          {[]outcome{{[]string{"R1"}, check.Fail}, {[]string{"R1"}, check.Fail}}, []control{good}, exitPassed, "| 2 of 2 | 10 s | R1 |  |"},
		"by another rule only": {[]outcome{{[]string{"W4"}, check.Fail}}, []control{good}, exitFailed, "| 0 of 1 | not caught |  | W4 |"},
		"never":                {[]outcome{{nil, check.Pass}}, []control{good}, exitFailed, "| 0 of 1 | not caught |  |  |"},
		"proves nothing":       {[]outcome{{nil, check.Invalid}}, []control{good}, exitFailed, "| 0 of 1 | not caught run 1 is invalid |  |  |"},
		"also without the bug": {
			[]outcome{{[]string{"R1"}, check.Fail}},
			[]control{good, {scenario: "pause", result: check.Fail, failed: []string{"R1"}}},
			exitNotProven,
			"without a bug, pause is fail R1.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			caught := catch{bug: seeded.Bug{Name: "some", Witness: seeded.Witness{Rules: []string{"R1", "R2"}}}}
			for i, o := range c.runs {
				caught.add(o.failed, o.result, time.Duration(i+1)*10*time.Second)
			}
			f := &findings{controls: c.controls, catches: []catch{caught}}
			if got := f.exit(); got != c.exit {
				t.Errorf("exit code %d, want %d", got, c.exit)
			}
			if page := f.markdown(); !strings.Contains(page, c.row) {
				t.Errorf("no %q in\n%s", c.row, page)
			}
		})
	}
}
