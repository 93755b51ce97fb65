package disk

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mountTree mounts a file system, as its library would, with one difference: no
// process that is started meanwhile inherits the device. One that did would keep the
// file system from ending with us, and if it waits for an answer from there, could
// never be killed.
func mountTree(root fs.InodeEmbedder, mount string) (*fuse.Server, error) {
	const largest = 1 << 20
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d", device, unix.S_IFDIR, os.Geteuid(), os.Getegid(), largest)
	if err := unix.Mount("holdfast", mount, "fuse.holdfast", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", mount, err), unix.Close(device))
	}
	// The server owns the device from here on.
	server, err := fs.Mount(fmt.Sprintf("/dev/fd/%d", device), root, &fs.Options{MountOptions: fuse.MountOptions{
		DisableXAttrs: true, MaxWrite: largest, Logger: log.New(io.Discard, "", 0),
	}})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve %s: %w", mount, err), unix.Unmount(mount, unix.MNT_DETACH))
	}
	if err := settlePolling(mount); err != nil {
		return nil, errors.Join(err, unmountTree(server, mount))
	}
	return server, nil
}

// settlePolling asks the file system once whether files can be polled, and so for the
// last time. Later the runtime would ask, for a file that this process opens itself,
// and could have no thread left for the answer.
func settlePolling(mount string) error {
	// The library answers for this name.
	fd, err := unix.Open(filepath.Join(mount, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("settle polling of %s: %w", mount, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		return fmt.Errorf("settle polling of %s: %w", mount, err)
	}
	return nil
}

// unmountTree waits a moment for files that the kernel is about to close, and then
// until every operation has been answered.
func unmountTree(server *fuse.Server, mount string) error {
	const patience, pause = 2 * time.Second, 5 * time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		err := unix.Unmount(mount, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	server.Wait()
	return nil
}
