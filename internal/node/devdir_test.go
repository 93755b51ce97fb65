package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/filelock"
)

// Only what a throw-away server left is removed: nothing else in the directory for
// temporary files looks like it in every respect.
func TestWhatKilledDevServersLeftIsRemoved(t *testing.T) {
	if !filelock.Works {
		t.Skip("nothing tells whether a directory is in use")
	}
	temp, outside := t.TempDir(), t.TempDir()
	path := func(name string) string { return filepath.Join(temp, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	left := func(name string) string {
		made, err := makeDevDir(temp)
		must(err)
		dir, err := openDataDir(made)
		must(err)
		must(os.MkdirAll(filepath.Join(made, dirRaft), 0o700))
		must(os.WriteFile(filepath.Join(made, dirRaft, "log"), nil, 0o600))
		must(dir.close())
		must(os.Rename(made, path(name)))
		return path(name)
	}
	precious := filepath.Join(outside, "precious")
	must(os.WriteFile(precious, nil, 0o600))

	stale := left("holdfast-dev-1")
	must(os.Symlink(outside, filepath.Join(stale, "link")))
	used := left("holdfast-dev-2")
	dir, err := openDataDir(used)
	must(err)
	defer func() { must(dir.close()) }()
	for _, name := range []string{fileDev, fileLock} {
		must(os.Remove(filepath.Join(left("holdfast-dev-3"+map[bool]string{true: "0", false: "1"}[name == fileDev]), name)))
	}
	left("holdfast-dev-notes")
	left("holdfast-dev-")
	left("other-4")
	moved := filepath.Join(outside, "moved")
	must(os.Rename(left("holdfast-dev-5"), moved))
	must(os.Symlink(moved, path("holdfast-dev-5")))
	linked := left("holdfast-dev-6")
	must(os.Remove(filepath.Join(linked, fileLock)))
	must(os.Symlink(fileID, filepath.Join(linked, fileLock)))
	must(os.WriteFile(filepath.Join(linked, fileID), nil, 0o600))
	must(os.WriteFile(path("holdfast-dev-7"), nil, 0o600))

	log := slog.New(slog.DiscardHandler)
	sweepDevDirs(temp, time.Now().Add(devStale-time.Minute), log)
	if _, err := os.Stat(stale); err != nil {
		t.Errorf("a young one is gone: %v", err)
	}
	sweepDevDirs(temp, time.Now().Add(devStale+time.Minute), log)
	if _, err := os.Lstat(stale); !os.IsNotExist(err) {
		t.Errorf("the one that was left is still there: %v", err)
	}
	for _, name := range []string{
		used, path("holdfast-dev-30"), path("holdfast-dev-31"), path("holdfast-dev-notes"), path("holdfast-dev-"), path("other-4"),
		path("holdfast-dev-5"), filepath.Join(moved, dirRaft, "log"), linked, path("holdfast-dev-7"), precious,
	} {
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("it is gone: %v", err)
		}
	}
	sweepDevDirs(path("nowhere"), time.Now(), log)
}
