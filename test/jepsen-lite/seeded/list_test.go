package seeded_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/check"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/run"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/seeded"
)

func TestBugsAreThoseOfTheProduct(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../../internal/seam/bug.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	ast.Inspect(file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			name, _ := strconv.Unquote(l.Value)
			there = append(there, name)
		}
		return true
	})
	var listed []string
	for _, b := range seeded.Bugs() {
		listed = append(listed, b.Name)
	}
	slices.Sort(there)
	slices.Sort(listed)
	if !slices.Equal(there, listed) {
		t.Errorf("the product knows %q, the list %q", there, listed)
	}
}

func TestBugsHaveRulesAndScenarios(t *testing.T) {
	var rules []string
	for _, r := range check.Rules() {
		rules = append(rules, r.Name)
	}
	for _, b := range seeded.Bugs() {
		if len(b.Rules) == 0 {
			t.Errorf("%s: no rule has to find it", b.Name)
		}
		if len(b.Rules) > 1 && b.Why == "" {
			t.Errorf("%s: not said why one rule is not enough", b.Name)
		}
		for _, r := range b.Rules {
			if !slices.Contains(rules, r) {
				t.Errorf("%s: there is no rule %s", b.Name, r)
			}
		}
		if _, err := run.Find(b.Scenario); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}
