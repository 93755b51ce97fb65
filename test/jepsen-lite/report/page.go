package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"
	text "text/template"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/measure"
)

// The pages, which need nothing from elsewhere.
var (
	//go:embed page.html
	pageHTML string
	//go:embed page.md
	pageMarkdown string
	//go:embed summary.html
	summaryHTML string
	//go:embed summary.md
	summaryMarkdown string
)

// Page is what is shown of a run.
type Page struct {
	Dir            string
	Run            history.Run
	Command, About string
	Result         check.Result
	// Trouble is what kept the run from its end.
	Trouble  string
	Verdicts []check.Verdict
	History  *history.History
	Figures  measure.Figures
}

// Write writes report.html and report.md into the run's directory.
func (p *Page) Write() error {
	return write(filepath.Join(p.Dir, "report"), p, pageHTML, pageMarkdown)
}

// Counts are how often things happened.
func (p *Page) Counts() []measure.Count { return p.Figures.Totals.Named() }

// Tables are the run's figures.
func (p *Page) Tables() []measure.Table { return p.Figures.Tables() }

// Timeline draws the run.
func (p *Page) Timeline() template.HTML { return Timeline(p.History, &p.Run) }

// Faults are the steps of all faults, in the order of time.
func (p *Page) Faults() []history.Fault { return p.History.Faults }

// At is a time of the run in seconds since its begin.
func (p *Page) At(t int64) string { return fmt.Sprintf("%.2f s", float64(t-p.Run.Began)/1e9) }

// Drawings are the files with the operations on single registers.
func (p *Page) Drawings() []string {
	found, _ := filepath.Glob(filepath.Join(p.Dir, "porcupine", "*.html")) // the pattern is fine
	for i, path := range found {
		found[i] = "porcupine/" + filepath.Base(path)
	}
	return found
}

// write fills both templates and writes base.html and base.md.
func write(base string, data any, asHTML, asMarkdown string) error {
	page, err := template.New("html").Parse(asHTML)
	if err != nil {
		return fmt.Errorf("write a report: %w", err)
	}
	plain, err := text.New("markdown").Funcs(text.FuncMap{"cell": cell}).Parse(asMarkdown)
	if err != nil {
		return fmt.Errorf("write a report: %w", err)
	}
	for path, execute := range map[string]func(io.Writer, any) error{base + ".html": page.Execute, base + ".md": plain.Execute} {
		var out bytes.Buffer
		if err := execute(&out, data); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}

// cell keeps a text within a cell of a Markdown table.
func cell(s string) string { return strings.NewReplacer("\n", " ", "|", `\|`).Replace(s) }
