package check_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

func load(t *testing.T, path string) *history.History {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h, err := history.Read(path, file)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// broken are the rules that a history breaks.
func broken(verdicts []check.Verdict) []string {
	var names []string
	for _, v := range verdicts {
		if v.Result == check.Fail || v.Result == check.Invalid {
			names = append(names, v.Rule)
		}
	}
	return names
}

func report(t *testing.T, verdicts []check.Verdict) {
	t.Helper()
	for _, v := range verdicts {
		if v.Result != check.Pass && v.Result != check.Skipped {
			t.Logf("%s %s: %s\n\t%s", v.Rule, v.Result, v.Why, strings.Join(v.Evidence, "\n\t"))
		}
	}
}

// A bad history is named after the rules that it breaks: these, and no others.
func TestBadHistoriesFailByTheirRule(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.jsonl")
	alone := make(map[string]bool)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		rules, _, _ := strings.Cut(name, "-")
		want := strings.Split(rules, "+")
		if len(want) == 1 {
			alone[want[0]] = true
		}
		t.Run(name, func(t *testing.T) {
			verdicts := check.Judge(load(t, file), check.Defaults())
			if got := broken(verdicts); !slices.Equal(got, want) {
				t.Errorf("breaks %v, want %v", got, want)
				report(t, verdicts)
			}
		})
	}
	for _, rule := range check.Rules() {
		if !alone[rule.Name] {
			t.Errorf("no history breaks %s alone", rule.Name)
		}
	}
}

// Good histories pass, and between them every rule finds something to check.
func TestGoodHistoriesPass(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.jsonl")
	passed := make(map[string]bool)
	for _, file := range files {
		verdicts := check.Judge(load(t, file), check.Defaults())
		for _, v := range verdicts {
			switch v.Result {
			case check.Pass:
				passed[v.Rule] = true
			case check.Skipped:
			default:
				t.Errorf("%s: %s %s: %s\n\t%s", file, v.Rule, v.Result, v.Why, strings.Join(v.Evidence, "\n\t"))
			}
		}
	}
	for _, rule := range check.Rules() {
		if !passed[rule.Name] {
			t.Errorf("no good history shows %s", rule.Name)
		}
	}
}
