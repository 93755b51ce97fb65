package arch

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "record the checksums of protos and generated code (make generate does)")

const sums = "../../proto/generated.sum"

// TestGenerated compares protos, generator settings and generated code with the
// checksums that `make generate` recorded after it had linted the protos, held
// them against the baseline and generated. So a stale or hand-edited file is
// noticed without building any tool.
func TestGenerated(t *testing.T) {
	now := checksums(t)
	if *update {
		if err := os.WriteFile(sums, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	recorded, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Split(string(recorded), "\n")
	for line := range strings.Lines(now) {
		if line = strings.TrimSpace(line); !slices.Contains(known, line) {
			t.Errorf("%s is not what `make generate` left behind: run it", strings.Fields(line)[1])
		}
	}
	if !t.Failed() && string(recorded) != now {
		t.Error("a file that `make generate` left behind is gone: run it")
	}
}

func checksums(t *testing.T) string {
	t.Helper()
	files := []string{"../../buf.yaml", "../../buf.gen.yaml", "../../proto/baseline.binpb", "../../examples/shop/buf.yaml", "../../examples/shop/buf.gen.yaml"}
	for _, dir := range []string{"../../proto", "../../examples/shop/shoppb"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if ext := filepath.Ext(path); err == nil && (ext == ".proto" || ext == ".go") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(files)
	var b strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), strings.TrimPrefix(filepath.ToSlash(file), "../../"))
	}
	return b.String()
}
