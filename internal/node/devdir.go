package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/filelock"
)

const (
	// devPrefix begins the name of a throw-away server's directory; digits follow.
	devPrefix = "holdfast-dev-"
	// fileDev marks a data directory that this program has made for a throw-away
	// server, and so may remove.
	fileDev = "throw-away"
	// devStale is how old a throw-away directory is before another server takes it
	// for left behind: long past the moment between making and locking it.
	devStale = time.Hour
)

// makeDevDir makes the data directory of a throw-away server in temp.
func makeDevDir(temp string) (string, error) {
	path, err := os.MkdirTemp(temp, devPrefix+"*")
	if err != nil {
		return "", fmt.Errorf("make temporary data directory: %w", err)
	}
	if err := writeDurably(path, fileDev, nil); err != nil {
		return "", fmt.Errorf("mark temporary data directory %s: %w", path, errors.Join(err, os.RemoveAll(path)))
	}
	return path, nil
}

// sweepDevDirs removes from temp the directories of throw-away servers that were
// killed. What is locked, young, a link, or not marked as such a directory stays.
func sweepDevDirs(temp string, now time.Time, log *slog.Logger) {
	if !filelock.Works {
		return // nothing tells whether a directory is in use
	}
	root, err := os.OpenRoot(temp)
	if err != nil {
		return // making the server's own directory there tells why
	}
	defer func() { _ = root.Close() }() // only read
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return
	}
	removed := 0
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), devPrefix)
		if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" || !e.IsDir() {
			continue
		}
		if err := removeDevDir(root, e.Name(), now); err != nil {
			log.Debug("what a throw-away server may have left stays", "dir", e.Name(), "error", err)
			continue
		}
		removed++
	}
	if removed > 0 {
		log.Info("removed what killed throw-away servers had left", "directories", removed)
	}
}

// removeDevDir removes a directory that a throw-away server left, while holding its
// lock, or says why it stays.
func removeDevDir(root *os.Root, name string, now time.Time) error {
	for _, part := range []string{name, name + "/" + fileDev, name + "/" + fileLock} {
		info, err := root.Lstat(part)
		switch {
		case err != nil:
			return fmt.Errorf("look at %s: %w", part, err)
		case part == name && !info.IsDir(), part != name && !info.Mode().IsRegular():
			return fmt.Errorf("%s is of another kind: %s", part, info.Mode().Type())
		case now.Sub(info.ModTime()) < devStale:
			return fmt.Errorf("%s is of %s", part, info.ModTime())
		}
	}
	lock, err := root.OpenFile(name+"/"+fileLock, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	defer func() { _ = lock.Close() }() // it is being removed
	if err := filelock.Try(lock); err != nil {
		return ErrDataDirInUse
	}
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("remove it: %w", err)
	}
	return nil
}
