//go:build unix

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/cli"
	"github.com/holdfast-dev/holdfast/internal/node"
	"github.com/holdfast-dev/holdfast/internal/node/command"
)

// page returns a page of docs/.
func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// wantTable checks that a page has exactly this table, below this head.
func wantTable(t *testing.T, name, head, rows string) {
	t.Helper()
	text := page(t, name)
	_, below, ok := strings.Cut(text, "\n"+head+"\n")
	if !ok {
		t.Fatalf("docs/%s has no table that begins with %s", name, head)
	}
	_, below, _ = strings.Cut(below, "\n") // the line of dashes
	table, _, _ := strings.Cut(below+"\n\n", "\n\n")
	if got := table + "\n"; got != rows {
		t.Errorf("docs/%s: the table below %s is not that of the code, which is\n%s", name, head, rows)
	}
}

// TestReasons compares the table of reasons with that of the API.
func TestReasons(t *testing.T) {
	var b strings.Builder
	for _, r := range api.Reasons() {
		retry := "–"
		if r.RetryAfter > 0 {
			retry = strings.Replace(r.RetryAfter.String(), "ms", " ms", 1)
			if r.RetryAfter%time.Second == 0 {
				retry = fmt.Sprintf("%d s", r.RetryAfter/time.Second)
			}
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", r.Reason, code.Code(r.Code), r.Outcome, retry, r.Meaning)
	}
	wantTable(t, "errors.md", "| reason | gRPC code | outcome | retry after | what happened, and what to do |", b.String())
}

// TestExitCodes compares the tables of exit codes with the programs'.
func TestExitCodes(t *testing.T) {
	var b strings.Builder
	for _, c := range cli.ExitCodes() {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", c.Code, c.Name, c.Meaning)
	}
	wantTable(t, "errors.md", "| `holdfast` | name | meaning |", b.String())
	text := page(t, "errors.md")
	for _, want := range []int{command.ExitOK, command.ExitFailed, command.ExitUsage, command.ExitFatal} {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| \w[^|]*\|$`, want)).MatchString(text) {
			t.Errorf("docs/errors.md has no row for the server's exit code %d", want)
		}
	}
}

// TestSettings compares the table of settings with the server's flags.
func TestSettings(t *testing.T) {
	var b strings.Builder
	for row := range strings.SplitSeq(strings.TrimSpace(node.Example()), "\n\n") {
		lines := strings.Split(row, "\n")
		if len(lines) != 2 {
			continue // what the file is about
		}
		name, value, _ := strings.Cut(strings.TrimPrefix(lines[1], "# "), ": ")
		if value == `""` {
			value = ""
		}
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, value, strings.TrimPrefix(lines[0], "# "))
	}
	wantTable(t, "operations.md", "| setting | default | what it is |", b.String())
}
