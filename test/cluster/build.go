package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/holdfast-dev/holdfast"

// BuildServer compiles cmd/controlplane into dir and returns the program's path.
// Extra arguments go to go build, such as "-tags", "faults". It works from any
// module that can resolve this one.
func BuildServer(ctx context.Context, dir string, extra ...string) (string, error) {
	if os.Getenv("HOLDFAST_CLUSTER_RACE") == "1" {
		extra = append(extra, "-race")
	}
	return build(ctx, dir, "controlplane", extra...)
}

// BuildCLI compiles cmd/holdfast into dir and returns the program's path.
func BuildCLI(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "holdfast")
}

func build(ctx context.Context, dir, program string, extra ...string) (string, error) {
	if ready := os.Getenv("HOLDFAST_CLUSTER_BIN"); ready != "" && len(extra) == 0 {
		return filepath.Join(ready, program), nil
	}
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	path := filepath.Join(dir, program)
	args := append([]string{"build", "-o", path}, extra...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/"+program)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", program, err, out)
	}
	return path, nil
}

// Root is the directory of the repository.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}
