package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

func verdict(t *testing.T, verdicts []check.Verdict, rule string) check.Verdict {
	t.Helper()
	for _, v := range verdicts {
		if v.Rule == rule {
			return v
		}
	}
	t.Fatalf("no verdict on %s", rule)
	return check.Verdict{}
}

func TestAnEmptyHistoryPassesNothing(t *testing.T) {
	verdicts := check.Judge(&history.History{}, check.Defaults())
	if len(verdicts) != len(check.Rules()) {
		t.Errorf("%d verdicts on %d rules", len(verdicts), len(check.Rules()))
	}
	for _, v := range verdicts {
		if v.Result != check.Skipped || v.Why == "" || v.Statement == "" {
			t.Errorf("%+v", v)
		}
	}
	if got := check.Overall(verdicts); got != check.Skipped {
		t.Errorf("overall %s", got)
	}
}

func TestARequiredRuleMustNotBeSkipped(t *testing.T) {
	o := check.Defaults()
	o.Require = []string{"W4", "R1"}
	verdicts := check.Judge(load(t, "testdata/good/registers.jsonl"), o)
	if v := verdict(t, verdicts, "W4"); v.Result != check.Invalid {
		t.Errorf("W4 %s: %s", v.Result, v.Why)
	}
	if v := verdict(t, verdicts, "R1"); v.Result != check.Pass {
		t.Errorf("R1 %s: %s", v.Result, v.Why)
	}
	if got := check.Overall(verdicts); got != check.Invalid {
		t.Errorf("overall %s", got)
	}
}

func TestOverallIsTheWorst(t *testing.T) {
	results := func(results ...check.Result) []check.Verdict {
		var verdicts []check.Verdict
		for _, r := range results {
			verdicts = append(verdicts, check.Verdict{Result: r})
		}
		return verdicts
	}
	for _, c := range []struct {
		want     check.Result
		verdicts []check.Verdict
	}{
		{check.Skipped, nil},
		{check.Pass, results(check.Skipped, check.Pass, check.Skipped)},
		{check.Unknown, results(check.Pass, check.Unknown, check.Pass, check.Skipped)},
		{check.Invalid, results(check.Invalid, check.Unknown, check.Pass)},
		{check.Fail, results(check.Pass, check.Fail, check.Invalid)},
	} {
		if got := check.Overall(c.verdicts); got != c.want {
			t.Errorf("%v is %s, want %s", c.verdicts, got, c.want)
		}
	}
}

// hard is a history that porcupine cannot decide in a moment: many writes at once,
// and a read of a value that was overwritten.
func hard() *history.History {
	h := &history.History{}
	for i := range 60 {
		h.Ops = append(h.Ops, history.Op{
			Client: fmt.Sprint("c", i), F: history.Put, Call: int64(i + 1), Return: int64(1000 + i), Outcome: history.Unknown,
			Cells: []history.Cell{{Key: "a", Value: fmt.Sprint("v", i)}},
		})
	}
	read := func(call int64, value string, revision uint64) history.Op {
		return history.Op{
			Client: "reader", F: history.Get, Call: call, Return: call + 1, Outcome: history.OK, Store: 99,
			Cells: []history.Cell{{Key: "a", Value: value, Revision: revision}},
		}
	}
	h.Ops = append(h.Ops, read(2000, "v1", 70), read(2010, "v2", 60))
	return h
}

func TestWhatPorcupineCannotDecideIsUnknown(t *testing.T) {
	for why, allowed := range map[string]time.Duration{"could not be decided": 20 * time.Millisecond, "no time was left": time.Nanosecond} {
		o := check.Defaults()
		o.Porcupine = allowed
		v := verdict(t, check.Judge(hard(), o), "R2")
		if v.Result != check.Unknown || !strings.Contains(v.Evidence[0], why) {
			t.Errorf("R2 %s: %q, want %q", v.Result, v.Evidence, why)
		}
	}
}

func TestRegistersAreDrawnWithTheFaults(t *testing.T) {
	for name, want := range map[string]string{"bad/R2-lost-update": "a.html", "good/faults": "a.html"} {
		o := check.Defaults()
		o.Dir = t.TempDir()
		h := load(t, "testdata/"+name+".jsonl")
		h.Faults = append(h.Faults, history.Fault{ID: 9, Name: "net-isolate", Targets: []string{"s1"}, Event: history.FaultBegin, T: 3})
		v := verdict(t, check.Judge(h, o), "R2")
		page, err := os.ReadFile(filepath.Join(o.Dir, "porcupine", want))
		if err != nil || !strings.Contains(string(page), "net-isolate") {
			t.Errorf("%s: %v, %d bytes, %s", name, err, len(page), v.Why)
		}
		if v.Result == check.Fail && !strings.Contains(v.Evidence[0], filepath.Join("porcupine", want)) {
			t.Errorf("%s: %v names no drawing", name, v.Evidence)
		}
	}
}

// Every branch that leads to "unknown" must not be a pass.
func TestWhatIsNotKnownIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		rule  string
		lines string
	}{
		"a watcher that did not come to the end": {"W10", `
{"kind":"op","client":"c1","f":"put","call":1,"return":2,"outcome":"ok","cells":[{"key":"a","value":"x"}],"revision":5,"store":5}
{"kind":"end","who":"watcher","id":"w1","t":9,"revision":4}`},
		"servers asked at several revisions": {"D5", `
{"kind":"end","who":"server","id":"s1","t":9,"revision":4,"root":"aa"}
{"kind":"end","who":"server","id":"s2","t":9,"revision":5,"root":"bb"}`},
		"a restore that is not recorded": {"C2", `
{"kind":"op","client":"c1","f":"put","call":1,"return":2,"outcome":"ok","cells":[{"key":"a","value":"x"}],"revision":5,"store":5,"epoch":1}
{"kind":"op","client":"c1","f":"put","call":3,"return":4,"outcome":"ok","cells":[{"key":"b","value":"y"}],"revision":7,"store":7,"epoch":2}
{"kind":"decision","instance":"i1","t":9,"until":9,"n":1,"key":"a","value":"z","revision":7,"epoch":2,"source":"server"}`},
		"a server that was asked early": {"D1", `
{"kind":"op","client":"c1","f":"put","call":1,"return":2,"outcome":"ok","cells":[{"key":"a","value":"x"}],"revision":5,"store":5}
{"kind":"end","who":"server","id":"s1","t":9,"revision":4,"complete":true}`},
		"what a restore made of a register": {"D1", `
{"kind":"op","client":"c1","f":"put","call":1,"return":2,"outcome":"ok","cells":[{"key":"a","value":"x"}],"revision":5,"store":5,"epoch":1}
{"kind":"op","client":"c1","f":"put","call":3,"return":4,"outcome":"ok","cells":[{"key":"b","value":"y"}],"revision":7,"store":7,"epoch":2}
{"kind":"end","who":"server","id":"s1","t":9,"revision":7,"epoch":2,"complete":true,"cells":[{"key":"b","value":"y","revision":7}]}`},
		"a read while a write is open": {"C6", `
{"kind":"op","client":"c1","f":"put","call":1,"return":2,"outcome":"ok","cells":[{"key":"a","value":"x"}],"revision":5,"store":5}
{"kind":"op","client":"c2","f":"put","call":3,"return":4,"outcome":"unknown","cells":[{"key":"a","value":"y"}]}
{"kind":"op","client":"c3","f":"get","call":5,"return":6,"outcome":"ok","cells":[{"key":"a","absent":true}],"store":6,"local":true}`},
		"an instance that was asked early": {"L1", `
{"kind":"run","healed":1,"settled":5}
{"kind":"op","client":"c1","f":"put","call":1,"return":2,"outcome":"ok","cells":[{"key":"a","value":"x"}],"revision":5,"store":5}
{"kind":"end","who":"instance","id":"i1","t":4,"revision":4}`},
		"a watcher that does not answer": {"W10", `
{"kind":"end","who":"watcher","id":"w1","t":9,"err":"gone"}`},
		"a write that may have deleted it": {"D1", `
{"kind":"op","client":"c1","f":"put","call":1,"return":2,"outcome":"ok","cells":[{"key":"a","value":"x"}],"revision":5,"store":5}
{"kind":"op","client":"c2","f":"delete","call":3,"return":4,"outcome":"unknown","cells":[{"key":"a","absent":true}]}
{"kind":"end","who":"server","id":"s1","t":9,"revision":6,"complete":true,"cells":[{"key":"b","value":"y","revision":1}]}`},
	} {
		h, err := history.Read(name, strings.NewReader(strings.TrimSpace(c.lines)+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if v := verdict(t, check.Judge(h, check.Defaults()), c.rule); v.Result != check.Unknown {
			t.Errorf("%s: %s %s: %s %q", name, c.rule, v.Result, v.Why, v.Evidence)
		}
	}
}

func TestAnInstanceSaysThatItIsStale(t *testing.T) {
	o := check.Defaults()
	o.StaleAfter = 5 * time.Second
	h := &history.History{Decisions: []history.Decision{{
		Instance: "i1", T: 1, Until: 2, N: 1, Key: "x", Value: "v", Revision: 3, Source: "disk", Age: int64(time.Minute),
	}}}
	if v := verdict(t, check.Judge(h, o), "C4"); v.Result != check.Fail {
		t.Errorf("C4 %s: %s", v.Result, v.Why)
	}
	h.Decisions[0].Stale = true
	if v := verdict(t, check.Judge(h, o), "C4"); v.Result != check.Pass {
		t.Errorf("C4 %s: %s", v.Result, v.Why)
	}
}

func TestADrawingThatCannotBeWrittenIsNoPass(t *testing.T) {
	o := check.Defaults()
	o.Dir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(o.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := verdict(t, check.Judge(load(t, "testdata/good/registers.jsonl"), o), "R2"); v.Result != check.Unknown {
		t.Errorf("R2 %s: %s", v.Result, v.Why)
	}
}

// A pause lets everything overlap: what was open when it began returns when it ends.
// Revisions tell in which order it happened all the same.
func TestWhatOverlapsInAPauseIsDecided(t *testing.T) {
	h := &history.History{}
	add := func(client string, op history.Op) {
		op.Client, op.Call, op.Return = client, int64(100+len(h.Ops)), int64(5000-len(h.Ops))
		h.Ops = append(h.Ops, op)
	}
	value := func(revision int) history.Cell {
		return history.Cell{Key: "a", Value: fmt.Sprint("v", revision), Revision: uint64(revision)}
	}
	for i := 20; i > 0; i-- { // the later ones are called first
		for j := range 3 {
			add(fmt.Sprint("reader", i, j), history.Op{F: history.Get, Outcome: history.OK, Cells: []history.Cell{value(i)}, Store: uint64(i)})
		}
		add(fmt.Sprint("late", i), history.Op{
			F: history.CAS, Outcome: history.Failed, Code: history.CodeMismatch,
			Cells: []history.Cell{{Key: "a", Value: fmt.Sprint("w", i), Expects: true, Expect: uint64(i + 1000)}},
		})
		cell := value(i)
		cell.Revision = 0
		add(fmt.Sprint("writer", i), history.Op{F: history.Put, Outcome: history.OK, Cells: []history.Cell{cell}, Revision: uint64(i), Store: uint64(i)})
	}
	o := check.Defaults()
	o.Porcupine = 5 * time.Second
	if v := verdict(t, check.Judge(h, o), "R2"); v.Result != check.Pass {
		t.Errorf("R2 %s: %s %q", v.Result, v.Why, v.Evidence)
	}
}
