package seam_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// names are those of all bugs.
func names(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "bug.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ast.Inspect(file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			name, _ := strconv.Unquote(l.Value)
			all = append(all, name)
		}
		return true
	})
	return all
}

// build compiles a program and returns it.
func build(t *testing.T, tags, pkg string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", out, pkg)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func TestBugsAreInSeededBuildsOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	server := build(t, "seeded", "../../cmd/controlplane")
	there := 0
	for _, name := range names(t) {
		if bytes.Contains(server, []byte(name)) {
			there++
		}
	}
	if there < 15 {
		t.Errorf("a seeded server has the names of %d bugs: either it has none, or they are not found this way", there)
	}
	for _, tags := range []string{"", "faults"} {
		for _, pkg := range []string{"../../cmd/controlplane", "../../examples/shop"} {
			program := build(t, tags, pkg)
			for _, name := range names(t) {
				if bytes.Contains(program, []byte(name)) {
					t.Errorf("%s with the tags %q has the bug %s", pkg, tags, name)
				}
			}
			if bytes.Contains(program, []byte("internal/seam.Bug")) {
				t.Errorf("%s with the tags %q asks for bugs", pkg, tags)
			}
		}
	}
}
