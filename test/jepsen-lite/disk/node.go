package disk

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or directory. What it does not define goes straight to the plain
// file.
type node struct {
	fs.LoopbackNode
	tree *tree
}

// WrapChild makes every child a node as well.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, tree: n.tree}
}

func (n *node) path(name string) string {
	return filepath.Join(n.RootData.Path, n.Path(n.Root()), name)
}

// naming passes the gate for an operation on names and holds the tree.
func (n *node) naming(ctx context.Context) (release func(), errno syscall.Errno) {
	if _, errno := n.tree.gate.enter(ctx, Names); errno != 0 {
		return nil, errno
	}
	n.tree.mu.Lock()
	return n.tree.mu.Unlock, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	release, errno := n.naming(ctx)
	if errno != 0 {
		return nil, errno
	}
	defer release()
	if n.tree.gate.room(1) < 1 {
		return nil, syscall.ENOSPC
	}
	child, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	if errno == 0 {
		n.tree.names.made(n.path(name))
	}
	return child, errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	release, errno := n.naming(ctx)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	defer release()
	if n.tree.gate.room(1) < 1 {
		return nil, nil, 0, syscall.ENOSPC
	}
	child, handle, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	n.tree.names.made(n.path(name))
	return child, &file{inner: handle.(*fs.LoopbackFile), tree: n.tree}, fuseFlags, 0
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	release, errno := n.naming(ctx)
	if errno != 0 {
		return errno
	}
	defer release()
	grave := n.tree.names.grave()
	if err := os.Rename(n.path(name), grave); err != nil {
		return fs.ToErrno(err)
	}
	n.tree.names.removed(n.path(name), grave)
	return 0
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	release, errno := n.naming(ctx)
	if errno != 0 {
		return errno
	}
	defer release()
	info, err := os.Stat(n.path(name))
	if err != nil {
		return fs.ToErrno(err)
	}
	if errno = n.LoopbackNode.Rmdir(ctx, name); errno == 0 {
		n.tree.names.removedDir(n.path(name), info.Mode().Perm())
	}
	return errno
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*node)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	release, errno := n.naming(ctx)
	if errno != 0 {
		return errno
	}
	defer release()
	grave, from, target := "", n.path(name), to.path(newName)
	if info, err := os.Lstat(target); err == nil {
		grave = n.tree.names.grave()
		// A second name keeps the file that the rename replaces; a directory can have no
		// second one.
		keep := os.Link
		if info.IsDir() {
			keep = os.Rename
		}
		if err := keep(target, grave); err != nil {
			return fs.ToErrno(err)
		}
	}
	if err := os.Rename(from, target); err != nil {
		return fs.ToErrno(err)
	}
	n.tree.names.moved(from, target, grave)
	return 0
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	handle, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &file{inner: handle.(*fs.LoopbackFile), tree: n.tree}, fuseFlags, 0
}

// OpendirHandle gives a handle without an fsync of its own: Fsync is for directories
// too.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	stream, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &struct {
		fs.FileReaddirenter
		fs.FileSeekdirer
		fs.FileReleasedirer
	}{stream.(fs.FileReaddirenter), stream.(fs.FileSeekdirer), stream.(fs.FileReleasedirer)}, fuseFlags, 0
}

func (n *node) Fsync(ctx context.Context, handle fs.FileHandle, _ uint32) syscall.Errno {
	kind, errno := n.tree.gate.enter(ctx, Fsync)
	if kind == Lie || (errno != 0 && kind != EIO) {
		return errno
	}
	f, isFile := handle.(*file)
	var fd uintptr
	if isFile {
		fd = f.fd()
	}
	if err := n.tree.sync(fd, isFile, kind == EIO); err != nil {
		return fs.ToErrno(err)
	}
	return errno
}

func (n *node) Setattr(ctx context.Context, handle fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f, _ := handle.(*file)
	if size, ok := in.GetSize(); ok {
		if _, errno := n.tree.gate.enter(ctx, Write); errno != 0 {
			return errno
		}
		if err := n.truncate(f, int64(size)); err != nil {
			return fs.ToErrno(err)
		}
		in.Valid &^= fuse.FATTR_SIZE
	}
	if f == nil {
		return n.LoopbackNode.Setattr(ctx, nil, in, out)
	}
	return n.LoopbackNode.Setattr(ctx, f.inner, in, out)
}

func (n *node) truncate(f *file, size int64) error {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	var fd uintptr
	if f != nil {
		fd = f.fd()
	} else {
		own, err := os.OpenFile(n.path(""), os.O_RDWR, 0)
		if err != nil {
			return err //nolint:wrapcheck // becomes an errno
		}
		defer func() { _ = own.Close() }()
		fd = own.Fd()
	}
	u, err := n.tree.changing(fd)
	if err == nil {
		err = u.truncate(size)
	}
	if err != nil {
		return err
	}
	return syscall.Ftruncate(int(fd), size) //nolint:wrapcheck // becomes an errno
}

// Hard links, symbolic ones, devices and files without a name would not be undone.

func (n *node) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

func (n *node) Symlink(context.Context, string, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

func (n *node) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.ENOTSUP
}

// file is an open file. It does not embed the plain one, which would offer itself to
// the kernel as a way around us.
type file struct {
	inner *fs.LoopbackFile
	tree  *tree
}

// fd is valid until Release.
func (f *file) fd() uintptr {
	fd, _ := f.inner.PassthroughFd()
	return uintptr(fd)
}

func (f *file) Read(ctx context.Context, buffer []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if _, errno := f.tree.gate.enter(ctx, Read); errno != 0 {
		return nil, errno
	}
	return f.inner.Read(ctx, buffer, off)
}

func (f *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if _, errno := f.tree.gate.enter(ctx, Write); errno != 0 {
		return 0, errno
	}
	// As on a file system that copies on write, also what is written in place needs room.
	fits := f.tree.gate.room(int64(len(data)))
	if fits == 0 && len(data) > 0 {
		return 0, syscall.ENOSPC
	}
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	u, err := f.tree.changing(f.fd())
	if err == nil {
		err = u.overwrite(off, off+fits)
	}
	if err != nil {
		return 0, fs.ToErrno(err)
	}
	return f.inner.Write(ctx, data[:fits], off)
}

func (f *file) Getattr(ctx context.Context, out *fuse.AttrOut) syscall.Errno {
	return f.inner.Getattr(ctx, out)
}

func (f *file) Release(ctx context.Context) syscall.Errno { return f.inner.Release(ctx) }
