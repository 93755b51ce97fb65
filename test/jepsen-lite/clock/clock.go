// Package clock makes the wall clock of single processes jump. Programs that are to
// have such a clock are built with an overlay of the standard library, in which
// time.Now adds an offset that a file holds. Monotonic readings, and with them timers
// and durations, are untouched, as they are when somebody sets a machine's clock.
package clock

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fileEnv names the file of a process; overlay.go.txt knows it too.
const fileEnv = "JEPSEN_CLOCK"

// added becomes a file of package time.
//
//go:embed overlay.go.txt
var added []byte

// Overlay writes, into dir, what `go build -overlay` wants, and returns the path of
// it. Programs that are built with it and started without a Clock's Env keep time like
// any other.
func Overlay(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read the standard library: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	const line = "\tsec, nsec, mono := runtimeNow()\n"
	head, rest, found := bytes.Cut(source, []byte("\nfunc Now() Time {\n"))
	body, rest, ends := bytes.Cut(rest, []byte("\n}\n"))
	if !found || !ends || bytes.Count(body, []byte(line)) != 1 {
		return "", errors.New("write overlay: time.Now is not as this package knows it: adapt it to this version of Go")
	}
	patched := bytes.Join([][]byte{
		head, []byte("\nfunc Now() Time {\n"),
		bytes.Replace(body, []byte(line), []byte(line+"\tsec, nsec = shifted(sec, nsec)\n"), 1), []byte("\n}\n"), rest,
	}, nil)
	replace := map[string]string{
		filepath.Join(library, "time.go"):    filepath.Join(dir, "time.go"),
		filepath.Join(library, "shifted.go"): filepath.Join(dir, "shifted.go"),
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	for path, data := range map[string][]byte{
		filepath.Join(dir, "time.go"): patched, filepath.Join(dir, "shifted.go"): added, overlay: list,
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
	}
	return overlay, nil
}

// Clock is the wall clock of one process, and of those that take its place. Its
// methods may be called concurrently.
type Clock struct {
	path string
	data []byte
	page *page
}

// page is what the file holds, in the byte order of this machine. The process writes
// down which offset it has last told the time by, and how often it was asked with an
// offset other than zero.
type page struct {
	offset, seen atomic.Int64
	shifted      atomic.Int64
}

// New is a clock that is right, held by a file at path.
func New(path string) (*Clock, error) {
	size := os.Getpagesize()
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		return nil, fmt.Errorf("make clock: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("make clock: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("make clock: map %s: %w", path, err)
	}
	return &Clock{path: path, data: data, page: (*page)(unsafe.Pointer(&data[0]))}, nil //nolint:gosec // a page, aligned and large enough
}

// Env is what the process needs in its environment.
func (c *Clock) Env() string { return fileEnv + "=" + c.path }

// Jump moves the clock on, or back, from where it is.
func (c *Clock) Jump(d time.Duration) { c.page.offset.Add(int64(d)) }

// Set makes it differ by so much from the right time; 0 heals it.
func (c *Clock) Set(d time.Duration) { c.page.offset.Store(int64(d)) }

// Offset is by how much it differs.
func (c *Clock) Offset() time.Duration { return time.Duration(c.page.offset.Load()) }

// Now is what the process would be told.
func (c *Clock) Now() time.Time { return time.Now().Add(c.Offset()) }

// Seen is by which offset the process was last told the time, and how often it was
// told a wrong one in all.
func (c *Clock) Seen() (offset time.Duration, wrong int64) {
	return time.Duration(c.page.seen.Load()), c.page.shifted.Load()
}

// Close lets go of the file; it must not be used afterwards.
func (c *Clock) Close() error {
	if err := unix.Munmap(c.data); err != nil {
		return fmt.Errorf("release clock: %w", err)
	}
	return nil
}
