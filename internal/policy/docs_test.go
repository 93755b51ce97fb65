package policy

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const page = "../../docs/policies.md"

// TestTable holds the table of docs/policies.md against the declarations: the
// same keys in the same order, with their types, units, defaults and ranges.
func TestTable(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, below, ok := strings.Cut(string(data), "\n| key | type | unit | default | range | meaning |\n|---|---|---|---|---|---|\n")
	if !ok {
		t.Fatal("docs/policies.md has no table of keys")
	}
	table, _, _ := strings.Cut(below, "\n\n")
	var got []string
	for line := range strings.SplitSeq(table, "\n") {
		cells := strings.SplitAfterN(line, " |", 6)
		if len(cells) != 6 || len(strings.Trim(cells[5], " |")) < 10 {
			t.Fatalf("not a row with a meaning: %s", line)
		}
		got = append(got, strings.Join(cells[:5], ""))
	}
	p := Default()
	want := rows(p.settings(), "")
	for _, row := range want {
		if !slices.Contains(got, row) {
			t.Errorf("missing: %s", row)
		}
	}
	for _, row := range got {
		if !slices.Contains(want, row) {
			t.Errorf("not in the code: %s", row)
		}
	}
	if !t.Failed() && !slices.Equal(got, want) {
		t.Errorf("the rows are in another order than\n%s", strings.Join(want, "\n"))
	}
}

// rows returns the rows of the table without their meanings.
func rows(settings []setting, path string) []string {
	var all []string
	for _, s := range settings {
		name := s.name
		if name == "" {
			name = "NAME"
		}
		if s.parts != nil {
			all = append(all, rows(s.parts(), join(path, name))...)
			continue
		}
		all = append(all, fmt.Sprintf("| `%s` | %s | %s | %s | %s |", join(path, name), s.kind, dash(s.unit), byDefault(s), dash(s.span)))
	}
	return all
}

// byDefault returns what is in a setting's place.
func byDefault(s setting) string {
	if s.value == nil || s.name == "" {
		return "–"
	}
	return dash(strings.Join(strings.Fields(strings.Trim(fmt.Sprint(s.value()), "[]")), ", "))
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// TestExamples holds the examples of docs/policies.md and of the repository to be
// right.
func TestExamples(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var examples [][]byte
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(data, -1) {
		examples = append(examples, block[1])
	}
	file, err := os.ReadFile("../../examples/storefront/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, example := range append(examples, file) {
		var of struct {
			Kind string
			Spec map[string]any
		}
		readYAML(t, example, &of)
		if got := wrong(toJSON(t, of.Spec), Check); got != nil || of.Kind != "Policy" {
			t.Errorf("%s\n%s", example, strings.Join(got, "\n"))
		}
	}
	if len(examples) == 0 {
		t.Error("docs/policies.md has no example")
	}
}
