// Package disk is a directory for the data of one process, and what breaks it: errors,
// a full, slow or hung device, an fsync that lies, the loss of power.
//
// Inside of namespaces (see package fabric), where /dev/fuse may be opened, the
// directory is a file system of this process, which remembers how everything was at
// the last fsync. Reads and writes go to plain files in a directory beside it, which
// outlive the run. Where /dev/fuse may not be opened, the directory is a tmpfs that
// can become full and nothing else; outside of namespaces it is a plain directory.
//
// A loss of power takes everything that no fsync has confirmed: data by the sector,
// and, as on a journalling file system, every name that was made, moved or removed
// since the last fsync of any file. Nothing is written back by itself, so that it takes
// the most that a loss of power may take.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

// Kind is what is wrong with a disk.
type Kind string

// The kinds of faults.
const (
	EIO  Kind = "eio"  // operations fail; what a failed fsync should have kept is lost, as by Linux
	Full Kind = "full" // there is Room for so many bytes more
	Slow Kind = "slow" // operations take Delay more
	Hang Kind = "hang" // operations take until Heal, or until the process is killed
	Lie  Kind = "lie"  // fsync succeeds and does nothing
)

// Op is a set of operations.
type Op uint8

// The operations. Names are creating, renaming and removing.
const (
	Read Op = 1 << iota
	Write
	Fsync
	Names
	All = Read | Write | Fsync | Names
)

// Fault is how a disk breaks.
type Fault struct {
	Kind Kind
	Ops  Op            // which operations; Full is about Write, Lie about Fsync, whatever this says
	Over int           // so many operations more succeed first
	Wait time.Duration // of Slow
	Room int64         // of Full
}

// Caps is what can be done to this disk. What it cannot is refused with
// ErrUnsupported.
type Caps struct {
	Full, Errors, Slow, Hang, Lie, PowerLoss bool
	Why                                      string // what is missing and what would help
}

// Loss is what a loss of power took.
type Loss struct {
	Sectors int // of 512 bytes, written and not kept
	Names   int // made, moved or removed, and that undone
}

// ErrUnsupported tells that this disk cannot break in that way.
var ErrUnsupported = errors.New("this disk cannot break like that")

// Disk is a directory that can break. Its methods may be called concurrently.
type Disk struct {
	dir    string
	caps   Caps
	driver driver
}

// driver is what stands behind a directory.
type driver interface {
	breakDown(Fault) error
	heal() error
	bites() int
	powerLoss(seed uint64, torn bool) (Loss, error)
	close() error
}

// Open makes dir a place for the data of one process. What is in it already, from a
// former Open, is there again.
func Open(dir string) (*Disk, error) {
	files, mount := filepath.Join(dir, "files"), filepath.Join(dir, "disk")
	for _, d := range []string{files, mount} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open disk: %w", err)
		}
	}
	if !fabric.Entered() {
		return &Disk{dir: files, driver: plain{}, caps: Caps{Why: "outside of namespaces disks stay whole: run where fabric.Enter succeeds"}}, nil
	}
	if device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		ram, err2 := openRAM(files, mount)
		if err2 != nil {
			return nil, fmt.Errorf("open disk: %w", err2)
		}
		why := fmt.Sprintf("disks can only become full: %v: let this user read and write /dev/fuse, or run as root", err)
		return &Disk{dir: mount, driver: ram, caps: Caps{Full: true, Why: why}}, nil
	} else if err := device.Close(); err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	f, err := openFUSE(files, mount, filepath.Join(dir, "undo"))
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	return &Disk{dir: mount, driver: f, caps: Caps{Full: true, Errors: true, Slow: true, Hang: true, Lie: true, PowerLoss: true}}, nil
}

// Dir is where the process keeps its data.
func (d *Disk) Dir() string { return d.dir }

// Caps is what can be done to it.
func (d *Disk) Caps() Caps { return d.caps }

// Break breaks it, in place of how it was broken before.
func (d *Disk) Break(f Fault) error {
	if can := map[Kind]bool{EIO: d.caps.Errors, Full: d.caps.Full, Slow: d.caps.Slow, Hang: d.caps.Hang, Lie: d.caps.Lie}; !can[f.Kind] {
		return fmt.Errorf("%w: %s: %s", ErrUnsupported, f.Kind, d.caps.Why)
	}
	if f.Kind == Full {
		f.Ops = Write
	}
	if f.Kind == Lie {
		f.Ops = Fsync
	}
	if f.Ops == 0 {
		return fmt.Errorf("disk fault %s: no operations given", f.Kind)
	}
	return d.driver.breakDown(f)
}

// Heal mends it, and lets go on what hangs.
func (d *Disk) Heal() error { return d.driver.heal() }

// Bites counts the operations that the last fault has hit. A tmpfs cannot tell whom
// it refused: it begins with room for a page at least, and this is 1 as soon as that is
// used up.
func (d *Disk) Bites() int { return d.driver.bites() }

// PowerLoss takes what was not yet safe. No process may have anything open in Dir. If
// torn, an arbitrary part of it is kept: any of the sectors, and the oldest of the
// names.
func (d *Disk) PowerLoss(seed uint64, torn bool) (Loss, error) {
	if !d.caps.PowerLoss {
		return Loss{}, fmt.Errorf("%w: power loss: %s", ErrUnsupported, d.caps.Why)
	}
	return d.driver.powerLoss(seed, torn)
}

// Close mends and releases it. The data stays below the directory given to Open.
func (d *Disk) Close() error { return d.driver.close() }

// plain is a directory that cannot break.
type plain struct{}

func (plain) breakDown(Fault) error                { return ErrUnsupported }
func (plain) heal() error                          { return nil }
func (plain) bites() int                           { return 0 }
func (plain) powerLoss(uint64, bool) (Loss, error) { return Loss{}, ErrUnsupported }
func (plain) close() error                         { return nil }

// ram is a tmpfs that a ballast can fill.
type ram struct {
	plain
	files, mount string
}

const ballast = ".ballast"

func openRAM(files, mount string) (*ram, error) {
	if err := unix.Mount("tmpfs", mount, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=512m,mode=0700"); err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	r := &ram{files: files, mount: mount}
	if err := os.CopyFS(mount, os.DirFS(files)); err != nil {
		return nil, errors.Join(err, unix.Unmount(mount, 0))
	}
	return r, nil
}

func (r *ram) breakDown(f Fault) error {
	if err := r.heal(); err != nil {
		return err
	}
	free, err := r.free()
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(r.mount, ballast))
	if err != nil {
		return fmt.Errorf("fill tmpfs: %w", err)
	}
	defer func() { _ = file.Close() }()
	if size := free - max(f.Room, int64(os.Getpagesize())); size > 0 {
		if err := unix.Fallocate(int(file.Fd()), 0, 0, size); err != nil {
			return fmt.Errorf("fill tmpfs: %w", err)
		}
	}
	return nil
}

func (r *ram) free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(r.mount, &s); err != nil {
		return 0, fmt.Errorf("measure tmpfs: %w", err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

func (r *ram) heal() error {
	if err := os.Remove(filepath.Join(r.mount, ballast)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("empty tmpfs: %w", err)
	}
	return nil
}

func (r *ram) bites() int {
	_, broken := os.Stat(filepath.Join(r.mount, ballast))
	if free, err := r.free(); broken != nil || err != nil || free > 0 {
		return 0
	}
	return 1
}

// close keeps the data for whoever looks at the run later.
func (r *ram) close() error {
	if err := r.heal(); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(r.files), os.CopyFS(r.files, os.DirFS(r.mount))); err != nil {
		return fmt.Errorf("keep data of tmpfs: %w", err)
	}
	if err := unix.Unmount(r.mount, 0); err != nil {
		return fmt.Errorf("unmount tmpfs: %w", err)
	}
	return nil
}
