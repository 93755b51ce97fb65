package run

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/report"
)

// Judge judges the run in a directory by what lies there, and writes its report.
func Judge(dir string) (*report.Page, error) {
	var record Record
	data, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if err != nil {
		return nil, fmt.Errorf("judge a run: %w", err)
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, fmt.Errorf("judge a run: read %s: %w", filepath.Join(dir, "run.json"), err)
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
	page.History = h
	record.Check.Dir = dir
	page.Verdicts = check.Judge(h, record.Check)
	if page.Trouble == "" {
		page.Result = check.Overall(page.Verdicts)
	} else if check.Overall(page.Verdicts) == check.Fail {
		page.Result = check.Fail // a run that was cut short can still prove a bug
	}
	if err := save(filepath.Join(dir, "verdicts.json"), struct {
		Result   check.Result    `json:"result"`
		Trouble  string          `json:"trouble,omitempty"`
		Counts   report.Counts   `json:"counts"`
		Verdicts []check.Verdict `json:"verdicts"`
	}{page.Result, page.Trouble, page.Counts(), page.Verdicts}); err != nil {
		return nil, err
	}
	return page, page.Write()
}
