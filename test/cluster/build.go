package cluster

import (
	"context"
	"errors"
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

// Previous is the programs of the previous version: the server, the operators' and
// an instance with its SDK (testdata/instance).
type Previous struct{ Version, Server, CLI, Instance string }

// BuildPrevious compiles the programs of the previous version, the one that
// test/previous-version pins, into dir. It needs git and the history of the
// repository; without them the error is ErrNoHistory.
func BuildPrevious(ctx context.Context, dir string) (Previous, error) {
	root, err := Root(ctx)
	if err != nil {
		return Previous{}, err
	}
	pin, err := os.ReadFile(filepath.Join(root, "test", "previous-version"))
	if err != nil {
		return Previous{}, fmt.Errorf("find the previous version: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(pin)), "\n")
	version, commit, _ := strings.Cut(lines[len(lines)-1], " ")
	sources := filepath.Join(dir, "src")
	if err := os.MkdirAll(sources, 0o700); err != nil {
		return Previous{}, fmt.Errorf("make directory: %w", err)
	}
	archive := filepath.Join(dir, "src.tar")
	cmd := exec.CommandContext(ctx, "git", "archive", "--output", archive, commit)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return Previous{}, fmt.Errorf("%w: %w\n%s", ErrNoHistory, err, out)
	}
	if out, err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", sources).CombinedOutput(); err != nil {
		return Previous{}, fmt.Errorf("unpack %s: %w\n%s", version, err, out)
	}
	if err := os.CopyFS(filepath.Join(sources, "cmd", "instance"), os.DirFS(filepath.Join(root, "test", "cluster", "testdata", "instance"))); err != nil {
		return Previous{}, fmt.Errorf("add an instance to %s: %w", version, err)
	}
	bin := filepath.Join(dir, version) + string(filepath.Separator)
	cmd = exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/controlplane", "./cmd/holdfast", "./cmd/instance")
	cmd.Dir = sources
	if out, err := cmd.CombinedOutput(); err != nil {
		return Previous{}, fmt.Errorf("build %s: %w\n%s", version, err, out)
	}
	return Previous{Version: version, Server: bin + "controlplane", CLI: bin + "holdfast", Instance: bin + "instance"}, nil
}

// ErrNoHistory tells that the repository does not have the commit of the previous
// version.
var ErrNoHistory = errors.New("the previous version is not at hand")

// Root is the directory of the repository.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}
