package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/filelock"
	"github.com/holdfast-dev/holdfast/internal/mirror"
)

// ErrLocked tells that another process writes the cache.
var ErrLocked = errors.New("another process has locked the cache")

const (
	// maxFileBytes is the largest file that is read. A larger one is refused like a
	// damaged one.
	maxFileBytes = 256 << 20
	// writeInterval is the least time between two writes.
	writeInterval = time.Second
	// idleShare is how often longer than a write took the disk is left alone after
	// it.
	idleShare = 9
	// markInterval is how often the mark is written while nothing changes, for the
	// state time in it.
	markInterval = 30 * time.Second
	// longestWait is the longest pause after writes that failed.
	longestWait = time.Minute
)

// disk is where a namespace outlives the process. Until run is called one goroutine
// uses it, then that of run; failure may be asked by any.
type disk struct {
	dir, base string
	namespace string
	logger    *slog.Logger
	lock      *os.File // nil while it is not held
	locked    bool

	mark mirror.Mark // as on disk
	// cached tells what the cache file holds, as a mark without a stamp; the zero
	// value if there is none.
	cached mirror.Mark
	trust  string // the file of trust as on disk; empty if there is none
	wanted atomic.Pointer[string]
	wake   chan struct{}
	wrong  atomic.Pointer[error]
}

// openDisk makes the directory and takes the lock, if it is free. What goes wrong is
// logged and kept for failure.
func openDisk(dir, namespace string, logger *slog.Logger) *disk {
	name := url.PathEscape(namespace)
	if len(name) > 128 {
		sum := sha256.Sum256([]byte(namespace))
		name = "sha256-" + hex.EncodeToString(sum[:])
	}
	d := &disk{
		dir: dir, base: filepath.Join(dir, "holdfast-"+name), namespace: namespace, logger: logger, wake: make(chan struct{}, 1),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.note(fmt.Errorf("make the cache directory: %w", err))
		return d
	}
	d.note(d.acquire())
	return d
}

func (d *disk) cachePath() string { return d.base + ".cache" }
func (d *disk) markPath() string  { return d.base + ".mark" }
func (d *disk) trustPath() string { return d.base + ".trust" }

// acquire takes the lock. It returns ErrLocked if another process has it.
func (d *disk) acquire() error {
	if d.locked {
		return nil
	}
	if d.lock == nil {
		f, err := os.OpenFile(d.base+".lock", os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return fmt.Errorf("open the lock of the cache: %w", err)
		}
		d.lock = f
	}
	if err := filelock.Try(d.lock); err != nil {
		return fmt.Errorf("%w: %s; it is read, but not written: give each process a directory of its own", ErrLocked, d.lock.Name())
	}
	d.locked = true
	return nil
}

// release gives the lock back.
func (d *disk) release() {
	if d.lock != nil {
		_ = d.lock.Close()
		d.lock, d.locked = nil, false
	}
}

// failure returns what is wrong with the disk; nil if nothing is.
func (d *disk) failure() error {
	if d == nil {
		return nil
	}
	if p := d.wrong.Load(); p != nil {
		return *p
	}
	return nil
}

// note keeps what is wrong, or that nothing is any more, and logs what is new.
func (d *disk) note(err error) {
	before := d.failure()
	if err == nil {
		d.wrong.Store(nil)
		if before != nil {
			d.logger.Info("the cache on disk is written again", "path", d.cachePath())
		}
		return
	}
	d.wrong.Store(&err)
	if before == nil || before.Error() != err.Error() {
		d.logger.Warn("the cache on disk is not written", "path", d.cachePath(), "error", err)
	}
}

// load returns what the disk holds, as an empty mirror with a floor if only the mark
// is usable; the state time at this moment of the wall clock, 0 if it is not known; and
// how long ago a server was heard, by the wall clock. A cache is written when a server
// has told something.
func (d *disk) load(wall int64) (m *mirror.Mirror, state int64, silence time.Duration) {
	d.mark, _ = read(d, d.markPath(), mirror.DecodeMark)
	nothing := mirror.New(d.namespace, d.mark.Position)
	type cache struct {
		*mirror.Mirror
		mirror.Stamp
	}
	c, ok := read(d, d.cachePath(), func(data []byte, namespace string) (c cache, err error) {
		c.Mirror, c.Stamp, err = mirror.DecodeCache(data, namespace)
		return c, err
	})
	if !ok {
		return nothing, 0, 0
	}
	m, err := d.mark.Resume(c.Mirror)
	if err != nil {
		d.setAside(d.cachePath(), fmt.Errorf("it is older than the mark beside it: %w", err))
		return nothing, 0, 0
	}
	d.cached = mirror.Mark{Position: c.Position(), Root: c.Root()}
	now := c.At(wall)
	if d.mark.Position.Epoch == m.Position().Epoch {
		now = max(now, d.mark.Stamp.At(wall))
	}
	silence = time.Duration(max(0, wall-max(c.Wall, d.mark.Heard))) * time.Millisecond
	return m, now, silence
}

// read reads a file. One that cannot be used is logged and moved aside; false is
// returned for that, and where there is none. One that cannot be read, for want of file
// descriptors for example, may be good, and stays.
func read[T any](d *disk, path string, decode func([]byte, string) (T, error)) (value T, ok bool) {
	data, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return value, false
	case err == nil:
		value, err = decode(data, d.namespace)
	case !errors.Is(err, mirror.ErrCorrupt):
		d.logger.Error("a cache file cannot be read", "path", path, "error", err)
		return value, false
	}
	if err != nil {
		d.setAside(path, err)
		var none T
		return none, false
	}
	return value, true
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // names the path
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err //nolint:wrapcheck // names the path
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("%w: it has %d bytes; at most %d are read", mirror.ErrCorrupt, info.Size(), maxFileBytes)
	}
	data := make([]byte, info.Size())
	_, err = io.ReadFull(f, data)
	return data, err //nolint:wrapcheck // names the path
}

// setAside makes room for a file that can be used.
func (d *disk) setAside(path string, reason error) {
	if !d.locked {
		d.logger.Error("a cache file is refused", "path", path, "error", reason)
		return
	}
	aside := path + ".corrupt"
	if err := os.Rename(path, aside); err != nil {
		d.logger.Error("a cache file is refused", "path", path, "error", reason, "move_error", err)
		return
	}
	d.logger.Error("a cache file is refused", "path", path, "error", reason, "moved_to", aside)
}

// changed tells run that there is something to write.
func (d *disk) changed() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run writes what held returns when it has changed, until ctx ends; then once more,
// and gives the lock back.
func (d *disk) run(ctx context.Context, held func() (*mirror.Mirror, mirror.Mark)) {
	defer d.release()
	refresh := time.NewTicker(markInterval)
	defer refresh.Stop()
	write := func() error {
		return contain(func() error {
			m, mark := held()
			return errors.Join(d.save(m, mark), d.saveTrust())
		})
	}
	pause := writeInterval
	for {
		select {
		case <-d.wake:
		case <-refresh.C:
		case <-ctx.Done():
			d.note(write())
			return
		}
		begin := time.Now()
		err := write()
		d.note(err)
		if err != nil {
			d.changed() // to try again
			pause = min(2*pause, longestWait)
		} else {
			pause = max(writeInterval, idleShare*time.Since(begin))
		}
		sleep(ctx, pause)
	}
}

// save writes the mark, and before it the cache if that holds something else.
func (d *disk) save(m *mirror.Mirror, mark mirror.Mark) error {
	if !mark.Position.Set() {
		return nil
	}
	if err := d.own(); err != nil {
		return err
	}
	if err := d.mark.Position.Admits(mark.Position); err != nil && !errors.Is(err, mirror.ErrForeign) {
		return fmt.Errorf("the cache of another process is newer: %w", err)
	}
	if d.cached.Position.Epoch != mark.Position.Epoch || d.cached.Root != mark.Root {
		err := d.replace(d.cachePath(), func(w io.Writer) error { return mirror.EncodeCache(w, m, mark.Stamp) })
		if err != nil {
			return err
		}
		d.cached = mark
	}
	if err := d.replace(d.markPath(), bytesOf(mirror.EncodeMark(d.namespace, mark))); err != nil {
		return err
	}
	d.mark = mark
	return nil
}

// own takes the lock. Where that is new, another process may have written.
func (d *disk) own() error {
	fresh := !d.locked
	if err := d.acquire(); err != nil {
		return err
	}
	if fresh {
		d.mark, _ = read(d, d.markPath(), mirror.DecodeMark)
		d.cached, d.trust = mirror.Mark{}, ""
	}
	return nil
}

// loadTrust returns what the disk holds of it.
func (d *disk) loadTrust() mirror.Trust {
	t, ok := read(d, d.trustPath(), mirror.DecodeTrust)
	if !ok {
		return mirror.Trust{}
	}
	if data, err := mirror.EncodeTrust(d.namespace, t); err == nil {
		d.trust = string(data)
	}
	return t
}

// keepTrust has run write it. It may be called by any goroutine.
func (d *disk) keepTrust(t mirror.Trust) error {
	data, err := mirror.EncodeTrust(d.namespace, t)
	if err != nil {
		return err //nolint:wrapcheck // says what
	}
	d.wanted.Store(new(string(data)))
	d.changed()
	return nil
}

// saveTrust writes what keepTrust was given, where it is not on the disk yet.
func (d *disk) saveTrust() error {
	data := d.wanted.Load()
	if data == nil || *data == d.trust {
		return nil
	}
	if err := d.own(); err != nil {
		return err
	}
	if err := d.replace(d.trustPath(), bytesOf([]byte(*data))); err != nil {
		return err
	}
	d.trust = *data
	return nil
}

func bytesOf(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err //nolint:wrapcheck // replace says what and where
	}
}

// replace writes a file so that there is the old one or the new one, whenever the
// machine stops.
func (d *disk) replace(path string, write func(io.Writer) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(f.Chmod(0o600), write(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(d.dir)
}

// syncDir makes renames last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err //nolint:wrapcheck // names the path
	}
	return errors.Join(f.Sync(), f.Close())
}
