package run

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/measure"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/report"
)

// Judgement is the file verdicts.json of a run: what a summary of many runs needs.
type Judgement struct {
	Result   check.Result    `json:"result"`
	Trouble  string          `json:"trouble,omitempty"`
	Figures  measure.Figures `json:"figures"`
	Verdicts []check.Verdict `json:"verdicts"`
}

// ReadJudgement reads that of a run in a directory.
func ReadJudgement(dir string) (*Judgement, error) {
	var j Judgement
	return &j, read(filepath.Join(dir, "verdicts.json"), &j)
}

// ReadRecord reads run.json of a run in a directory.
func ReadRecord(dir string) (*Record, error) {
	var r Record
	return &r, read(filepath.Join(dir, "run.json"), &r)
}

// undisturbed tells that the run was to have faults, and that the machine can do none
// of them.
func undisturbed(h *history.History) bool {
	return len(h.Faults) > 0 && !slices.ContainsFunc(h.Faults, func(f history.Fault) bool { return f.Event != history.FaultSkipped })
}

func read(path string, what any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read a run: %w", err)
	}
	if err := json.Unmarshal(data, what); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Judge judges the run in a directory by what lies there, and writes its report.
func Judge(dir string) (*report.Page, error) {
	record, err := ReadRecord(dir)
	if err != nil {
		return nil, err
	}
	page := &report.Page{
		Dir: dir, Run: record.Run, Command: record.Command, About: record.About, Result: check.Invalid,
		Trouble: record.Trouble,
	}
	h, err := history.Load(dir)
	if err != nil {
		page.Trouble = strings.TrimSpace(page.Trouble + "\n" + err.Error())
		h = &history.History{}
	}
	page.History, page.Figures = h, measure.Of(h)
	record.Check.Dir = dir
	idle := undisturbed(h)
	if idle {
		record.Check.Require = nil
	}
	page.Verdicts = check.Judge(h, record.Check)
	switch overall := check.Overall(page.Verdicts); {
	case overall == check.Fail:
		page.Result = check.Fail // a run that was cut short can still prove a bug
	case page.Trouble != "":
	case idle:
		page.Result = check.Skipped
	default:
		page.Result = overall
	}
	judgement := Judgement{Result: page.Result, Trouble: page.Trouble, Figures: page.Figures, Verdicts: page.Verdicts}
	if err := save(filepath.Join(dir, "verdicts.json"), judgement); err != nil {
		return nil, err
	}
	return page, page.Write()
}
