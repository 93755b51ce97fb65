//go:build unix

package docs

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/state"
)

// notLimits are constants that are named like limits and limit nothing that
// anybody could meet.
func notLimits() map[string]string {
	return map[string]string{
		"internal/health.maxPenalty":          "an exponent; max_dwell bounds the pause",
		"internal/health.maxWeight":           "what a vote weighs",
		"internal/node.minSnapshotInterval":   "how often a short log is looked at",
		"internal/api.maxBackoff":             "a pause",
		"internal/api.minBackoff":             "a pause",
		"internal/api.maxCatchUp":             "how long a write that is committed waits for this server",
		"internal/api.maxAnswerTime":          "what is kept of a deadline for the answer",
		"internal/btree.maxItems":             "the width of a tree",
		"internal/btree.maxKids":              "the width of a tree",
		"internal/cli.maxPause":               "a pause",
		"internal/cli.minPause":               "a pause",
		"internal/cli.maxDays":                "what a duration can hold",
		"internal/cli.maxSuggestions":         "a length of hints",
		"internal/consensus.maxAppendBytes":   "the size of a batch; more is sent in several",
		"internal/consensus.maxAppendEntries": "the size of a batch; more is sent in several",
		"internal/consensus.maxPending":       "how far a leader sends ahead of its disk; more waits",
		"internal/consensus.maxPendingBytes":  "how far a leader sends ahead of its disk; more waits",
		"internal/flags.maxKept":              "how much memory is kept for the next evaluation",
		"internal/node.minGrowth":             "how often the memory is collected",
		"internal/node.maxReadyLag":           "a condition of readiness, in docs/operations.md",
		"internal/node.maxTickBytes":          "tells a Tick from other commands",
		"internal/state.maxRecord":            "what a snapshot can hold",
		"internal/state.maxTime":              "what a snapshot can hold",
	}
}

// TestLimits holds docs/limits.md to its promise: each row names a test of the
// refusal, in the form `path/to/package.TestName`, and that test exists; where it
// names constants, in the form `path/to/package.Name`, it shows their values; and
// no constant that is named like a limit is missing.
func TestLimits(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "docs", "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	values := constants(t)
	rows, listed := 0, notLimits()
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| limit") {
			continue
		}
		rows++
		if !regexp.MustCompile("`[a-z0-9/_-]+\\.Test\\w+`").MatchString(line) {
			t.Errorf("no test named in: %s", line)
		}
		cells := strings.Split(line, "|")
		for _, name := range regexp.MustCompile("`((?:internal|pkg|test)/[a-z0-9/_-]+)\\.([\\w.]+)`").FindAllStringSubmatch(line, -1) {
			full := name[1] + "." + name[2]
			if strings.HasPrefix(name[2], "Test") {
				if !declares(t, name[1], name[2]) {
					t.Errorf("there is no %s: %s", full, line)
				}
				continue
			}
			listed[full] = "listed"
			if value, ok := values[full]; !ok {
				t.Errorf("there is no %s: %s", full, line)
			} else if forms := value.forms(); !slices.ContainsFunc(forms, func(f string) bool { return contains(cells[2], f) }) {
				t.Errorf("%s is %s, the page says%s", full, forms[len(forms)-1], cells[2])
			}
		}
	}
	if rows < 10 {
		t.Errorf("read only %d limits", rows)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if values[name].limit && listed[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

// contains finds a value that is not a part of another.
func contains(cell, value string) bool {
	return regexp.MustCompile(`(^|[^\d,.])` + regexp.QuoteMeta(value) + `($|[^\d,.]|[,.](\D|$))`).MatchString(cell)
}

func declares(t *testing.T, pkg, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "func "+test+"(") {
			return true
		}
	}
	return false
}

// value is the value of a constant.
type value struct {
	n        int64
	duration bool
	limit    bool // it is named like one
}

// forms are the ways in which a page may write the value.
func (v value) forms() []string {
	var forms []string
	units := []struct {
		size int64
		name string
	}{{1 << 20, " MiB"}, {1 << 10, " KiB"}, {1, ""}}
	if v.duration {
		units = []struct {
			size int64
			name string
		}{
			{24 * int64(time.Hour), " d"},
			{int64(time.Hour), " h"},
			{int64(time.Minute), " min"},
			{int64(time.Second), " s"},
			{int64(time.Millisecond), " ms"},
		}
	}
	for _, u := range units {
		if v.n%u.size == 0 {
			forms = append(forms, thousands(v.n/u.size)+u.name)
		}
	}
	return forms
}

func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// constants returns the numbers among the constants of the packages, and the fields
// of state.Limits, by path and name.
func constants(t *testing.T) map[string]value {
	t.Helper()
	values := make(map[string]value)
	dirs := make(map[string]bool)
	for _, tree := range []string{"internal", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				dirs[filepath.Dir(path)] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir := range dirs {
		pkg, err := filepath.Rel(root, dir)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range constantsOf(t, dir) {
			values[filepath.ToSlash(pkg)+"."+name] = v
		}
	}
	limits := reflect.ValueOf(state.DefaultLimits())
	for field, f := range limits.Fields() {
		v := value{duration: f.Type() == reflect.TypeFor[time.Duration](), limit: true}
		if f.CanInt() {
			v.n = f.Int()
		} else {
			v.n = int64(f.Uint()) //nolint:gosec // a limit
		}
		values["internal/state.Limits."+field.Name] = v
	}
	return values
}

// constantsOf evaluates the constants of a package that need no other package
// but time.
func constantsOf(t *testing.T, dir string) map[string]value {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	e := evaluator{exprs: make(map[string]ast.Expr)}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			e.collect(decl)
		}
	}
	values := make(map[string]value)
	for name, expr := range e.exprs {
		v, err := e.eval(expr)
		if err != nil || v.Kind() != constant.Int {
			continue
		}
		n, _ := constant.Int64Val(v)
		values[name] = value{n: n, duration: e.ofTime(expr), limit: regexp.MustCompile(`^(min|max|Min|Max)[A-Z]`).MatchString(name)}
	}
	return values
}

// evaluator evaluates constant expressions of one package.
type evaluator struct{ exprs map[string]ast.Expr }

var errNotSimple = errors.New("not a simple constant")

func (e evaluator) collect(decl ast.Decl) {
	d, ok := decl.(*ast.GenDecl)
	if !ok || d.Tok != token.CONST {
		return
	}
	for _, s := range d.Specs {
		if spec, ok := s.(*ast.ValueSpec); ok && len(spec.Names) == len(spec.Values) {
			for i, name := range spec.Names {
				e.exprs[name.Name] = spec.Values[i]
			}
		}
	}
}

func (e evaluator) eval(expr ast.Expr) (constant.Value, error) {
	switch x := expr.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(x.Value, x.Kind, 0), nil
	case *ast.ParenExpr:
		return e.eval(x.X)
	case *ast.Ident:
		if of, ok := e.exprs[x.Name]; ok {
			return e.eval(of)
		}
	case *ast.SelectorExpr:
		units := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}
		if unit, ok := units[x.Sel.Name]; ok && e.ofTime(x) {
			return constant.MakeInt64(int64(unit)), nil
		}
	case *ast.BinaryExpr:
		return e.binary(x)
	}
	return nil, fmt.Errorf("%T: %w", expr, errNotSimple)
}

func (e evaluator) binary(x *ast.BinaryExpr) (constant.Value, error) {
	left, err := e.eval(x.X)
	if err != nil {
		return nil, err
	}
	right, err := e.eval(x.Y)
	if err != nil {
		return nil, err
	}
	if left.Kind() != constant.Int || right.Kind() != constant.Int {
		return nil, errNotSimple
	}
	if x.Op == token.SHL {
		n, _ := constant.Uint64Val(right)
		return constant.Shift(left, x.Op, uint(n)), nil
	}
	return constant.BinaryOp(left, x.Op, right), nil
}

// ofTime tells whether an expression speaks of time's units.
func (e evaluator) ofTime(expr ast.Expr) bool {
	found := false
	ast.Inspect(expr, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			pkg, ok := s.X.(*ast.Ident)
			found = found || ok && pkg.Name == "time"
		}
		return !found
	})
	return found
}
