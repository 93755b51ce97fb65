package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// The environment that beats the control plane.
const (
	disableEnv = "HOLDFAST_DISABLE"
	localEnv   = "HOLDFAST_LOCAL_OVERRIDES"
)

// localInterval is how often the file of local overrides is looked at, and
// maxLocalBytes how large it may be.
const (
	localInterval = time.Second
	maxLocalBytes = 1 << 20
)

// disabledByEnvironment tells whether HOLDFAST_DISABLE says so. What is neither true
// nor false means true: whoever sets it wants something to stop.
func disabledByEnvironment() bool {
	text := os.Getenv(disableEnv)
	if text == "" {
		return false
	}
	disabled, err := strconv.ParseBool(text)
	return disabled || err != nil
}

// localFile follows the file of local overrides. One goroutine may use it.
type localFile struct {
	path   string
	logger *slog.Logger
	last   []byte // what was read last; nil for no file
	failed string // what was wrong last, so as to say it once
}

// follow lets the holder obey what the file says now. It returns whether that is
// something else than before.
func (f *localFile) follow(h *holder) bool {
	was := f.failed
	l, changed := f.look()
	if changed {
		h.decideLocally(l, f.path)
	} else if f.failed != was {
		h.localFailed(f.path, f.failed)
	}
	return changed || f.failed != was
}

// look returns the local overrides and whether they are others than before. A file
// that cannot be read, or makes no sense, changes nothing.
func (f *localFile) look() (*flags.Local, bool) {
	text, err := readLocal(f.path)
	if err == nil && (text == nil) == (f.last == nil) && bytes.Equal(text, f.last) {
		f.failed = ""
		return nil, false
	}
	var l *flags.Local
	if err == nil && text != nil {
		if l, err = flags.ParseLocal(text); err != nil {
			err = fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if err != nil {
		if f.failed != err.Error() {
			f.failed = err.Error()
			f.logger.Error("local overrides are not obeyed; those before them stay", "error", err)
		}
		return nil, false
	}
	f.last, f.failed = text, ""
	if l != nil {
		f.logger.Warn("local overrides beat the control plane", "file", f.path, "flags", len(l.Flags), "modes", len(l.Modes), "breakers", len(l.Breakers), "disable", l.Disable)
	} else {
		f.logger.Info("local overrides are gone", "file", f.path)
	}
	return l, true
}

// readLocal returns the content of a file; nil if there is none.
func readLocal(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for somebody to write
		return nil, fmt.Errorf("%s: is no regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, maxLocalBytes+1))
	if err == nil && len(text) > maxLocalBytes {
		err = fmt.Errorf("%s: is larger than %d bytes", path, maxLocalBytes)
	}
	if text == nil {
		text = []byte{}
	}
	return text, err //nolint:wrapcheck // it names the file
}
