package arch

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestPreviousVersion holds the pinned commit of the previous version: it is that
// of a release in the changelog, and where the history is at hand, an ancestor.
func TestPreviousVersion(t *testing.T) {
	pin, err := os.ReadFile("../previous-version")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^(\d+\.\d+\.\d+) ([0-9a-f]{40})$`).FindStringSubmatch(string(pin))
	if m == nil {
		t.Fatalf("test/previous-version holds no line \"VERSION COMMIT\":\n%s", pin)
	}
	changes, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(changes), "\n## "+m[1]+" / ") {
		t.Errorf("CHANGELOG.md has no version %s", m[1])
	}
	if exec.Command("git", "rev-parse", "--is-shallow-repository").Run() != nil || exec.Command("git", "cat-file", "-e", m[2]+"^{commit}").Run() != nil {
		t.Skip("the history is not at hand")
	}
	if err := exec.Command("git", "merge-base", "--is-ancestor", m[2], "HEAD").Run(); err != nil {
		t.Errorf("%s is not an ancestor of HEAD", m[2])
	}
}
