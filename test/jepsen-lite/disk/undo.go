package disk

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

const sectorSize = 512

// unsynced is how a file was at its last fsync, where that differs from how it is.
type unsynced struct {
	file *os.File
	size int64
	// before has the content of each sector that was written since; content is nil for
	// those beyond the end.
	before map[int64]before
}

type before struct {
	content []byte
	// doomed sectors were in an fsync that failed: they count as written now, never were,
	// and no later fsync tries again.
	doomed bool
}

// enough sectors to remember of one file; at more of them a kernel, too, would have
// written the data back.
const enough = 1 << 17

// openUnsynced begins with what an open descriptor has now.
func openUnsynced(fd uintptr) (*unsynced, error) {
	file, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(fd)), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open file again: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &unsynced{file: file, size: info.Size(), before: make(map[int64]before)}, nil
}

// overwrite is called before the bytes from off to end change.
func (u *unsynced) overwrite(off, end int64) error {
	for s := off / sectorSize; s*sectorSize < end; s++ {
		was, known := u.before[s]
		if !known && s*sectorSize < u.size {
			was.content = make([]byte, min(sectorSize, u.size-s*sectorSize))
			if n, err := u.file.ReadAt(was.content, s*sectorSize); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("remember sector: %w", err)
			} else if n < len(was.content) {
				clear(was.content[n:])
			}
		}
		was.doomed = false
		u.before[s] = was
	}
	return nil
}

// truncate is called before the file gets another size.
func (u *unsynced) truncate(size int64) error {
	if size >= u.size {
		return nil
	}
	return u.overwrite(size, u.size)
}

// sync makes safe what is there now; failed, it makes it lost for good.
func (u *unsynced) sync(failed bool) error {
	if failed {
		for s, was := range u.before {
			was.doomed = true
			u.before[s] = was
		}
		return nil
	}
	for s, was := range u.before {
		if !was.doomed {
			delete(u.before, s)
		}
	}
	info, err := u.file.Stat()
	if err != nil {
		return fmt.Errorf("measure file: %w", err)
	}
	u.size = info.Size()
	return nil
}

// lose makes the file what is safe of it. If torn, each sector and the size may be
// safe without an fsync.
func (u *unsynced) lose(draw *rand.Rand, torn bool) (sectors int, err error) {
	info, err := u.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("measure file: %w", err)
	}
	now, size := info.Size(), u.size
	if torn && draw.IntN(2) == 0 {
		size = now
	}
	if err := u.file.Truncate(size); err != nil {
		return 0, fmt.Errorf("shorten file: %w", err)
	}
	for _, s := range slices.Sorted(maps.Keys(u.before)) {
		was, from := u.before[s], s*sectorSize
		gone := from >= now // cut off, and back with the size
		if torn && !was.doomed && !gone && draw.IntN(2) == 0 {
			continue
		}
		sectors++
		content := make([]byte, sectorSize)
		copy(content, was.content)
		if room := size - from; room <= 0 {
			continue
		} else if room < sectorSize {
			content = content[:room]
		}
		if _, err := u.file.WriteAt(content, from); err != nil {
			return sectors, fmt.Errorf("restore sector: %w", err)
		}
	}
	return sectors, nil
}

// names is what has happened to directories since the last fsync of anything, oldest
// first, and how to undo it.
type names struct {
	graveyard string // keeps what was removed
	steps     []step
	buried    int
}

type step struct {
	undo  func() error
	grave string // to be forgotten with the step, or empty
}

// grave is a place for a file that is about to lose its name.
func (n *names) grave() string {
	n.buried++
	return filepath.Join(n.graveyard, strconv.Itoa(n.buried))
}

func (n *names) made(path string) {
	n.steps = append(n.steps, step{undo: func() error { return os.Remove(path) }})
}

func (n *names) removed(path, grave string) {
	n.steps = append(n.steps, step{grave: grave, undo: func() error { return os.Rename(grave, path) }})
}

func (n *names) removedDir(path string, mode os.FileMode) {
	n.steps = append(n.steps, step{undo: func() error { return os.Mkdir(path, mode) }})
}

// moved also knows where the file is that was at the new name, if there was one.
func (n *names) moved(from, to, grave string) {
	n.steps = append(n.steps, step{grave: grave, undo: func() error {
		if err := os.Rename(to, from); err != nil || grave == "" {
			return err
		}
		return os.Rename(grave, to)
	}})
}

// sync makes everything that has happened safe.
func (n *names) sync() error {
	var all error
	for _, s := range n.steps {
		if s.grave != "" {
			all = errors.Join(all, os.RemoveAll(s.grave))
		}
	}
	n.steps = nil
	if all != nil {
		return fmt.Errorf("bury files: %w", all)
	}
	return nil
}

// lose undoes all, or if torn, all after an arbitrary point.
func (n *names) lose(draw *rand.Rand, torn bool) (lost int, err error) {
	keep := 0
	if torn {
		keep = draw.IntN(len(n.steps) + 1)
	}
	for len(n.steps) > keep {
		last := n.steps[len(n.steps)-1]
		if err := last.undo(); err != nil {
			return lost, fmt.Errorf("undo change of a directory: %w", err)
		}
		n.steps, lost = n.steps[:len(n.steps)-1], lost+1
	}
	return lost, n.sync()
}
