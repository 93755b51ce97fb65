package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/holdfast-dev/holdfast/test/cluster"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/clock"
)

// Programs are what a run starts, besides this program itself.
type Programs struct {
	// Server is of this version, with seams.
	Server string
	// Instance is this program again, with the seams of the SDK.
	Instance string
	// Previous is the server of the previous version, empty if its sources are not at
	// hand; WithoutPrevious says why.
	Previous, PreviousVersion, WithoutPrevious string
}

// Tags are the build tags of programs under test.
const Tags = "faults"

// Build compiles them into dir; the server only if there is none yet, and the previous
// version only if it is wanted. Tags are those of go build, Tags for a plain run. It needs the
// sources and what they depend on, so it is done before a run goes where there is no
// network.
func Build(ctx context.Context, dir, server string, previous bool, tags string) (_ Programs, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Programs{}, fmt.Errorf("build the programs: %w", err)
	}
	if server == "" {
		if server, err = buildServer(ctx, filepath.Join(dir, "this"), tags); err != nil {
			return Programs{}, fmt.Errorf("build the programs: %w", err)
		}
	}
	instance := filepath.Join(dir, "instance")
	build := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-o", instance, "github.com/holdfast-dev/holdfast/test/jepsen-lite")
	if out, err := build.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("build the program of instances (run this in test/jepsen-lite): %w\n%s", err, out)
	}
	p := Programs{Server: server, Instance: instance, WithoutPrevious: "no scenario asked for it"}
	if !previous {
		return p, nil
	}
	old, err := cluster.BuildPrevious(ctx, filepath.Join(dir, "previous"))
	if errors.Is(err, cluster.ErrNoHistory) {
		p.WithoutPrevious = err.Error()
		return p, nil
	}
	if err != nil {
		return Programs{}, fmt.Errorf("build the previous version: %w", err)
	}
	p.Previous, p.PreviousVersion, p.WithoutPrevious = old.Server, old.Version, ""
	return p, nil
}

// buildServer builds the server with seams and with a wall clock that can be set.
func buildServer(ctx context.Context, dir, tags string) (string, error) {
	// go caches by the path of the overlay, so it stays the same from run to run.
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = dir
	}
	cache = filepath.Join(cache, "jepsen-lite", runtime.Version())
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("find a place for the overlay: %w", err)
	}
	overlay, err := clock.Overlay(ctx, cache)
	if err != nil {
		return "", err
	}
	return cluster.BuildServer(ctx, dir, "-tags", tags, "-overlay", overlay)
}
