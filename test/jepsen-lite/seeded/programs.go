package seeded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/run"
)

// Build compiles programs that can be given a bug.
func Build(ctx context.Context, dir string) (run.Programs, error) {
	return run.Build(ctx, dir, "", false, "faults seeded")
}

// Give returns the programs with a bug. They lie in dir.
func Give(programs run.Programs, bug, dir string) (run.Programs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return run.Programs{}, fmt.Errorf("give the programs a bug: %w", err)
	}
	var err error
	if programs.Server, err = give(programs.Server, bug, dir); err != nil {
		return run.Programs{}, err
	}
	programs.Instance, err = give(programs.Instance, bug, dir)
	return programs, err
}

// give writes a script that becomes the program: processes are started without the
// settings of whoever starts them.
func give(program, bug, dir string) (string, error) {
	path := filepath.Join(dir, filepath.Base(program))
	script := fmt.Sprintf("#!/bin/sh\nexport HOLDFAST_BUG=%s\nexec '%s' \"$@\"\n", bug, program)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		return "", fmt.Errorf("give %s a bug: %w", filepath.Base(program), err)
	}
	return path, nil
}
