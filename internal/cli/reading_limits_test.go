package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func TestLargeFileIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, maxFileBytes+1); err != nil { // takes no room on the disk
		t.Fatal(err)
	}
	got := run(inTime(t), t, terminal{}, "", nil, "apply", "-f", name)
	got.want(t, exitUsage, "", "large.yaml is larger than 128.0 MiB", "several files can be given")
}

// TestMultiplyingAliasesAreRefused reads a document of a few lines that would
// expand to millions of values.
func TestMultiplyingAliasesAreRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x]\n")
	for i := 1; i <= 11; i++ {
		n, before := string(rune('a'+i)), string(rune('a'+i-1))
		if i == 1 {
			before = "a0"
		}
		b.WriteString(n + ": &" + n + " [*" + before + ", *" + before + ", *" + before + ", *" + before + "]\n")
	}
	got := run(inTime(t), t, terminal{}, b.String(), nil, "apply", "-f", "-")
	got.want(t, exitUsage, "", "expand to more than 1048576 values")
}

// TestLargeAnswerIsRefused gets an answer that no server of ours would give.
func TestLargeAnswerIsRefused(t *testing.T) {
	f := newFake(t)
	f.resources = []*holdfastv1.Resource{{
		Key:  &holdfastv1.ResourceKey{Namespace: "default", Kind: holdfastv1.Kind_KIND_FLAG, Name: "a"},
		Spec: make([]byte, maxMessageBytes+1),
	}}
	got := run(inTime(t), t, terminal{}, "", nil, "flag", "list", "--addr", f.addr)
	got.want(t, exitRefused, "", "cannot list flags", "larger than max")
}
