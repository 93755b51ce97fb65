package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// usedFile lies beside the log from the moment on when the log has been created
// and holds its first vote. A log that is missing or empty begins anew, with
// nothing in it: its node would have forgotten its votes, and could vote again in
// a term in which it has voted. So where this file is, the log must be too.
const usedFile = "raft.db.used"

// usedText is for whoever finds the file.
const usedText = "A Raft log was created in this directory. If it is gone, so are the votes of this member,\n" +
	"which must then not come back under its id: remove it from the cluster and join it as a new one.\n"

// evidenceOfUse returns the name of what shows that the directory once held a
// log; empty if nothing does. Directories from before usedFile have snapshots.
func evidenceOfUse(dir string) (string, error) {
	switch _, err := os.Lstat(filepath.Join(dir, usedFile)); {
	case err == nil:
		return usedFile, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	entries, err := os.ReadDir(filepath.Join(dir, snapshotDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, entry := range entries {
		if _, ok := snapshotIndex(entry); ok {
			return filepath.Join(snapshotDir, entry.Name()), nil
		}
	}
	return "", nil
}

// refuseLost refuses a log that is missing or empty if it was there once.
func refuseLost(path, evidence string) error {
	if evidence == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the file is missing, and %s shows that it was there", ErrCorrupt, evidence)
	case err != nil:
		return err
	case info.Size() == 0:
		return fmt.Errorf("%w: the file is empty, and %s shows that it was not", ErrCorrupt, evidence)
	}
	return nil
}

// markUsed creates usedFile durably, unless it is there. A crash before that
// leaves a log without it, which gets it at the next start.
func markUsed(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, usedFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark data directory: %w", err)
	}
	_, err = f.WriteString(usedText)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("mark data directory: %w", err)
	}
	return syncDir(dir)
}
