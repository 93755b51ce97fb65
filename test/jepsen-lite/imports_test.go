package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Nothing here knows the product from inside: what judges it is a second opinion, not
// the same one twice. Package cluster, which starts processes for us, may not either.
func TestNothingImportsTheInsideOfTheProduct(t *testing.T) {
	const product = "github.com/holdfast-dev/holdfast"
	const format = `{{.ImportPath}}: {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`
	list := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-tags", "seeded", "-f"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("go list %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	lines := list(format, "./...") + list(`{{.ImportPath}}: {{join .Imports " "}}`, product+"/test/cluster")
	packages := 0
	for line := range strings.Lines(lines) {
		name, imports, _ := strings.Cut(line, ": ")
		packages++
		for path := range strings.FieldsSeq(imports) {
			if strings.HasPrefix(path, product+"/internal/") {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
	if packages < 8 {
		t.Errorf("only %d packages were looked at:\n%s", packages, lines)
	}
}
