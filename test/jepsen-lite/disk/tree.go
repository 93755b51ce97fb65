package disk

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// tree is a file system over a directory of plain files.
type tree struct {
	files, mount string
	gate         gate
	server       *fuse.Server

	mu    sync.Mutex // guards the rest, and holds while plain files change
	names names
	dirty map[uint64]*unsynced // by inode
}

func openFUSE(files, mount, graveyard string) (*tree, error) {
	if err := errors.Join(os.RemoveAll(graveyard), os.Mkdir(graveyard, 0o700)); err != nil {
		return nil, fmt.Errorf("make graveyard: %w", err)
	}
	t := &tree{files: files, mount: mount, names: names{graveyard: graveyard}, dirty: make(map[uint64]*unsynced)}
	t.gate.set(Fault{})
	return t, t.serve()
}

// serve mounts the tree, with nothing of it cached.
func (t *tree) serve() error {
	info, err := os.Stat(t.files)
	if err != nil {
		return fmt.Errorf("find files: %w", err)
	}
	root := &fs.LoopbackRoot{Path: t.files, Dev: info.Sys().(*syscall.Stat_t).Dev}
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: root}, tree: t}
	root.RootNode = top
	t.server, err = mountTree(top, t.mount)
	return err
}

func (t *tree) breakDown(f Fault) error { t.gate.set(f); return nil }
func (t *tree) heal() error             { t.gate.set(Fault{}); return nil }
func (t *tree) bites() int              { return int(t.gate.hits.Load()) }

func (t *tree) close() error {
	t.gate.set(Fault{})
	if err := unmountTree(t.server, t.mount); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.forget(), t.names.sync())
}

// powerLoss mounts anew, as the kernel has a copy of what is lost.
func (t *tree) powerLoss(seed uint64, torn bool) (Loss, error) {
	var loss Loss
	if err := unmountTree(t.server, t.mount); err != nil {
		return loss, fmt.Errorf("lose power: %w", err)
	}
	draw := rand.New(rand.NewPCG(seed, 0))
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, inode := range slices.Sorted(maps.Keys(t.dirty)) {
		n, err := t.dirty[inode].lose(draw, torn)
		if loss.Sectors += n; err != nil {
			return loss, err
		}
	}
	n, err := t.names.lose(draw, torn)
	if loss.Names = n; err != nil {
		return loss, err
	}
	return loss, errors.Join(t.forget(), t.serve())
}

// forget the files that are not safe.
func (t *tree) forget() error {
	var all error
	for _, u := range t.dirty {
		all = errors.Join(all, u.file.Close())
	}
	clear(t.dirty)
	if all != nil {
		return fmt.Errorf("close files: %w", all)
	}
	return nil
}

// changing gives what is remembered of a file that is about to change. Hold mu.
func (t *tree) changing(fd uintptr) (*unsynced, error) {
	inode, err := inodeOf(fd)
	if err != nil {
		return nil, err
	}
	u := t.dirty[inode]
	if u == nil {
		if u, err = openUnsynced(fd); err != nil {
			return nil, err
		}
		t.dirty[inode] = u
	}
	if len(u.before) >= enough {
		return u, u.sync(false)
	}
	return u, nil
}

// sync makes a file safe, if it is one, and all names; failed, it makes the file lost.
func (t *tree) sync(fd uintptr, isFile, failed bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if isFile {
		inode, err := inodeOf(fd)
		if err != nil {
			return err
		}
		if u := t.dirty[inode]; u != nil {
			if err := u.sync(failed); err != nil {
				return err
			}
			if len(u.before) == 0 {
				delete(t.dirty, inode)
				if err := u.file.Close(); err != nil {
					return fmt.Errorf("close file: %w", err)
				}
			}
		}
	}
	if failed {
		return nil
	}
	return t.names.sync()
}

func inodeOf(fd uintptr) (uint64, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(fd), &st); err != nil {
		return 0, fmt.Errorf("find inode: %w", err)
	}
	return st.Ino, nil
}
