package node

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/filelock"
)

// Files of a data directory, beside the Raft directory.
const (
	fileLock      = "lock"
	fileID        = "node-id"
	filePromise   = "promise.json"
	fileRecovered = "recovered.json"
	fileRemoved   = "removed"
	dirRaft       = "raft"

	// Secrets: readable by this user alone.
	fileSigningKey = "signing-key"
	fileCharter    = "charter"
)

var (
	// ErrDataDirInUse tells that another process works on the directory.
	ErrDataDirInUse = errors.New("data directory is used by another process")
	// ErrRemoved tells that the cluster has removed this server.
	ErrRemoved = errors.New("this server was removed from the cluster")
	// ErrDamaged tells that what is on disk cannot be trusted; the error says what
	// to do about it.
	ErrDamaged = errors.New("a damaged data directory")
)

// dataDir is an open data directory: the process holds its lock.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory where there is none and locks it.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	name := filepath.Join(path, fileLock)
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := filelock.Try(lock); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock %s: %w", name, ErrDataDirInUse)
	}
	return &dataDir{path: path, lock: lock}, nil
}

// close releases the lock. The file stays: removing it would let two processes
// hold locks on two files of one name.
func (d *dataDir) close() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// nodeID returns the identity of this directory, drawn at its first use. The
// identity goes with the data: a server whose disk was wiped gets a new one,
// because one that forgot its vote must not vote under its old name.
func (d *dataDir) nodeID(wanted string) (string, error) {
	data, err := os.ReadFile(d.file(fileID))
	switch {
	case err == nil:
		id := strings.TrimSpace(string(data))
		if id == "" {
			return "", fmt.Errorf("read %s: it is empty", d.file(fileID))
		}
		if wanted != "" && wanted != id {
			return "", fmt.Errorf("node-id %q: this data directory belongs to %q; use another directory or drop node-id", wanted, id)
		}
		return id, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read node id: %w", err)
	}
	id := wanted
	if id == "" {
		id = drawID()
	}
	return id, d.write(fileID, []byte(id+"\n"))
}

// drawID returns 16 letters and digits: 80 random bits.
func drawID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // crypto/rand never returns an error
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// removed tells whether the cluster has removed this server for good.
func (d *dataDir) removed() error {
	if _, err := os.Stat(d.file(fileRemoved)); err != nil {
		return nil //nolint:nilerr // no such file is the usual case
	}
	return fmt.Errorf("%w; delete %s to let it join as a new one", ErrRemoved, d.path)
}

// write replaces a file at once and durably: after a crash it is the old one or
// the new one.
func (d *dataDir) write(name string, data []byte) error {
	if err := writeDurably(d.path, name, data); err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return nil
}

func writeDurably(dir, name string, data []byte) error {
	temp, err := os.CreateTemp(dir, name+".*") // mode 0600
	if err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return syncDir(dir)
}

// remove deletes a file durably; a missing one is fine.
func (d *dataDir) remove(name string) error {
	if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", d.file(name), err)
	}
	return syncDir(d.path)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

// readJSON reads a small file; found is false when there is none.
func (d *dataDir) readJSON(name string, into any) (found bool, err error) {
	data, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("read %s: %w", d.file(name), err)
	}
	return true, nil
}

func (d *dataDir) writeJSON(name string, from any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return d.write(name, append(data, '\n'))
}
