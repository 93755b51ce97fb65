package report_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/measure"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/report"
)

const second = int64(1e9)

func sample() *history.History {
	return &history.History{
		Run: history.Run{
			Scenario: "sample", Seed: 7, Began: 100 * second, Healed: 108 * second, Settled: 109 * second, Ended: 110 * second,
			Servers: []string{"s1", "s2"}, Instances: []string{"i1"},
		},
		Faults: []history.Fault{
			{ID: 1, Name: "kill-leader", Targets: []string{"s1"}, Event: history.FaultBegin, T: 102 * second},
			{ID: 1, Name: "kill-leader", Targets: []string{"s1"}, Event: history.FaultBit, T: 102 * second, Proof: "process 17 <is> gone"},
			{ID: 1, Name: "kill-leader", Targets: []string{"s1"}, Event: history.FaultEnd, T: 104 * second},
			{ID: 2, Name: "clock-back", Event: history.FaultSkipped, T: 102 * second, Proof: "no clocks"},
		},
		Servers: []history.Server{
			{ID: "s1", T: 99 * second, Event: history.ProcessStart},
			{ID: "s1", T: 102 * second, Event: history.ProcessExit, Code: -1},
			{ID: "s1", T: 104 * second, Event: history.ProcessStart},
		},
		Leads: []history.Lead{
			{Server: "s1", T: 99 * second, Term: 2, Leads: true}, {Server: "s1", T: 102 * second}, {Server: "s2", T: 103 * second, Term: 3, Leads: true},
		},
		Ops: []history.Op{
			{Client: "p1.0", F: history.Put, Call: 101 * second, Return: 101*second + 1e6, Outcome: history.OK},
			{Client: "p1.0", F: history.Put, Call: 102 * second, Return: 104 * second, Outcome: history.Unknown, Attempts: 3},
			{Client: "p1.1", F: history.Put, Call: 105 * second, Return: 105*second + 1e6, Outcome: history.OK, Duplicate: true},
		},
		Applied: []history.Applied{
			{Server: "s2", Incarnation: 1, Index: 5},
			{Server: "s2", Incarnation: 1, Index: 9, Restored: true},
			{Server: "s2", Incarnation: 2, Index: 9, Restored: true},
		},
		Peers: []history.Peers{
			{Instance: "i1", Members: []string{"i1", "i2"}}, {Instance: "i1", Members: []string{"i1"}}, {Instance: "i1", Members: []string{"i1", "i2"}},
		},
		Decisions: []history.Decision{{Instance: "i1", T: 101 * second, Until: 109 * second, N: 800, Source: "server"}},
	}
}

// A page shows what happened, escapes what comes from outside, and needs nothing from
// anywhere else.
func TestPage(t *testing.T) {
	h := sample()
	page := &report.Page{
		Dir: t.TempDir(), Run: h.Run, Command: "jepsen-lite run -scenario sample -seed 7", About: "about", Result: check.Fail, History: h, Figures: measure.Of(h),
		Verdicts: []check.Verdict{
			{Rule: "R1", Statement: "nothing | stale", Result: check.Fail, Why: "violated 1 times", Evidence: []string{"<k1> was 2 & became 1"}},
			{Rule: "R2", Result: check.Pass, Why: "1 checked"},
		},
	}
	if err := os.MkdirAll(filepath.Join(page.Dir, "porcupine"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(page.Dir, "porcupine", "k1.html"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := page.Write(); err != nil {
		t.Fatal(err)
	}
	html, plain := read(t, page.Dir, "report.html"), read(t, page.Dir, "report.md")
	for _, want := range []string{
		page.Command, "&lt;k1&gt; was 2 &amp; became 1", "process 17 &lt;is&gt; gone", `class="leads"`, `class="down"`, `class="fault"`,
		"<td>leaders elected</td><td>2</td>", "<td>kill-leader</td><td>1</td><td>1</td>", `class="good"`, `class="bad"`, `class="waiting"`, `href="porcupine/k1.html"`, "no clocks", "kill-leader of s1, 2.00–4.00 s",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the HTML page lacks %q", want)
		}
	}
	for _, want := range []string{page.Command, "<k1> was 2 & became 1", `nothing \| stale`, "| R2 | pass |", "| kill-leader | 1 | 1 | 0 | 0 |"} {
		if !strings.Contains(plain, want) {
			t.Errorf("the Markdown page lacks %q:\n%s", want, plain)
		}
	}
	if found := regexp.MustCompile(`(?i)<script|<link|src=|@import|https?://[^w]`).FindString(html); found != "" {
		t.Errorf("the page wants something from elsewhere: %q", found)
	}
}

// Nothing but passes passes, beside what cannot be done, and not even no run at all.
func TestSummaryPassesIfEverythingPassed(t *testing.T) {
	for _, test := range []struct {
		results []check.Result
		passed  bool
	}{
		{nil, false},
		{[]check.Result{check.Pass, check.Pass}, true},
		{[]check.Result{check.Pass, check.Unknown}, false},
		{[]check.Result{check.Invalid}, false},
		{[]check.Result{check.Pass, check.Skipped}, true},
		{[]check.Result{check.Skipped, check.Skipped}, false},
		{[]check.Result{check.Pass, check.Skipped, check.Invalid}, false},
		{[]check.Result{check.Fail, check.Pass}, false},
	} {
		sum := &report.Summary{Dir: t.TempDir()}
		for _, r := range test.results {
			sum.Lines = append(sum.Lines, report.Line{Scenario: "s", Result: r, Page: "s-1/report.html"})
		}
		if sum.Passed() != test.passed {
			t.Errorf("%v: passed %v, want %v", test.results, sum.Passed(), test.passed)
		}
		if err := sum.Write(); err != nil {
			t.Error(err)
		}
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
