package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Runs and sets of runs can be put together again from what their directories hold,
// whether or not a run came to a verdict.
func TestSummaryOfRecordedRuns(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const outage = `{"run":"failover-1","fault":"failover-kill","target":"s1","at":1,"led":true,"gap":GAP}`
	put("set/a-1/run.json", `{"run":{"scenario":"a","seed":1,"began":1,"ended":2000000001}}`)
	put("set/a-1/verdicts.json", `{"result":"pass","figures":{"outages":[`+strings.ReplaceAll(outage, "GAP", "1500000000")+`],"totals":{"dedup":2}}}`)
	put("set/a-2/run.json", `{"run":{"scenario":"a","seed":2}}`)
	put("set/a-2/verdicts.json", `{"result":"skipped","verdicts":[{"rule":"L3","result":"skipped","why":"there is no fuse"}]}`)
	put("set/bin/server", "")
	put("one/run.json", `{"run":{"scenario":"b","seed":1}}`)
	put("one/verdicts.json", `{"result":"pass","figures":{"outages":[`+strings.ReplaceAll(outage, "GAP", "2500000000")+`],"totals":{"dedup":3}}}`)
	sum := func(dirs ...string) (int, string) {
		args := []string{"-out", filepath.Join(root, "sum")}
		for _, dir := range dirs {
			args = append(args, filepath.Join(root, dir))
		}
		var out strings.Builder
		exit, err := sumUp(&out, args)
		if err != nil {
			t.Fatal(err)
		}
		page, err := os.ReadFile(filepath.Join(root, "sum", "summary.md"))
		if err != nil {
			t.Fatal(err)
		}
		return exit, string(page)
	}
	exit, page := sum("set", "one")
	if exit != exitPassed {
		t.Errorf("exit code %d", exit)
	}
	for _, want := range []string{
		"# 3 runs: 2 pass 1 skipped", "[a](../set/a-1/report.html) | 1 | pass | 2s", "there is no fuse",
		"| kill | who go on to another server at once | 2 | 1.50 s | 1.50 s | 2.50 s | 2.50 s |", "took effect once | 5 |",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the summary lacks %q:\n%s", want, page)
		}
	}
	if exit, _ := sum("set/a-2"); exit != exitNotProven {
		t.Errorf("where nothing could be done the exit code is %d", exit)
	}
	put("set/a-3/run.json", `{"run":{"scenario":"a","seed":3}}`)
	if exit, page := sum("set"); exit != exitNotProven || !strings.Contains(page, "no verdict") {
		t.Errorf("a run without a verdict: exit code %d\n%s", exit, page)
	}
	if _, err := sumUp(os.Stdout, []string{filepath.Join(root, "set", "bin")}); err == nil {
		t.Error("a directory without runs is summed up")
	}
}
