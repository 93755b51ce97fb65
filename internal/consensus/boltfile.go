package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// openStore opens the log of a data directory, or begins one if none was ever
// there. See usedFile for what happens to a log that is gone.
func openStore(cfg Config, c *counters, silence func(bool), fail func(error)) (*store, error) {
	path := cfg.logPath()
	evidence, err := evidenceOfUse(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	if err := refuseLost(path, evidence); err != nil {
		return nil, fmt.Errorf("open raft log %s: %w; %s", path, err, adviceRejoin)
	}
	bolt, err := openBolt(path, cfg.seams.noSync)
	if err != nil {
		return nil, err
	}
	var inner innerStore = bolt
	if cfg.seams.store != nil {
		inner = cfg.seams.store(inner)
	}
	s := &store{inner: inner, path: path, fail: fail, counters: c}
	s.dog = &watchdog{stall: cfg.Timing.Stall, fatal: cfg.Timing.StallFatal}
	s.dog.silence = func(on bool) {
		if on {
			c.stalls.Add(1)
			cfg.Logger.Warn("a write to disk hangs; this node is silent until it returns", "path", path, "after", cfg.Timing.Stall)
		}
		silence(on)
	}
	s.dog.fail = func(err error) {
		s.failed.Store(true)
		fail(err)
	}
	if err := s.verify(evidence != ""); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := markUsed(cfg.DataDir); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log %s: %w", path, err), s.close())
	}
	return s, nil
}

// close closes the file. Nothing may use the store any more.
func (s *store) close() error {
	if err := guard(s.inner.Close); err != nil {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	return nil
}

// lockTimeout is how long another process may take to let go of the file.
const lockTimeout = time.Second

// openBolt opens the database without ever letting it map a damaged file. noSync
// is for tests alone, which do not outlive the kernel.
func openBolt(path string, noSync bool) (*raftboltdb.BoltStore, error) {
	var bolt *raftboltdb.BoltStore
	err := guard(func() (err error) {
		if err = checkBolt(path); err != nil {
			return err
		}
		bolt, err = raftboltdb.New(raftboltdb.Options{Path: path, NoSync: noSync || seam.Bug(seam.UnsyncedLog), BoltOptions: &bbolt.Options{
			Timeout:        lockTimeout,
			NoFreelistSync: true, // else a long list is written with every append
			FreelistType:   bbolt.FreelistMapType,
		}})
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open raft log %s: %w; stop it first", path, ErrLocked)
	case errors.Is(err, ErrCorrupt):
		return nil, fmt.Errorf("open raft log %s: %w; %s", path, err, adviceRejoin)
	case err != nil:
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return bolt, nil
}

// syncDir makes the name of a new file durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync data directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// The layout of a bolt meta page: a page header of 16 bytes, then the fields up
// to and including the checksum.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	boltHeaderSize = 16
	boltMetaSize   = 64
)

// boltMeta is what a meta page says.
type boltMeta struct {
	pageSize int64
	pages    int64 // high-water mark: the file has at least so many pages
	root     int64 // page of the root bucket
	tx       uint64
}

// checkBolt verifies a database file before it is mapped into memory: access
// beyond the end of a truncated file kills the process. A file that is missing
// or empty passes: it will be made, and refuseLost has found that it may be.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	meta, err := readMeta(f)
	if err != nil {
		return err
	}
	// The size is read after the meta pages: a file in use only grows.
	if info, err = f.Stat(); err != nil {
		return err
	}
	if need := meta.pages * meta.pageSize; info.Size() < need {
		return fmt.Errorf("%w: the file is truncated: %d bytes, at least %d are expected", ErrCorrupt, info.Size(), need)
	}
	// The tree is read under a lock: while another process writes, it seems
	// damaged. To map the file and read its meta pages is safe by now.
	lock, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if meta, err = readMeta(f); err != nil {
		return err
	}
	return (&boltCheck{file: f, meta: meta}).check()
}

// readMeta returns the newer meta page. Both must be whole: bolt would go on with
// the older one alone, which may lack the last entry that was acknowledged.
func readMeta(r io.ReaderAt) (boltMeta, error) {
	first, err := readMetaAt(r, 0)
	if err != nil {
		return first, err
	}
	second, err := readMetaAt(r, first.pageSize)
	if err != nil {
		return second, err
	}
	if second.tx > first.tx {
		return second, nil
	}
	return first, nil
}

func readMetaAt(r io.ReaderAt, offset int64) (boltMeta, error) {
	var page [boltHeaderSize + boltMetaSize]byte
	if _, err := r.ReadAt(page[:], offset); err != nil {
		return boltMeta{}, fmt.Errorf("%w: read meta page at %d: %w", ErrCorrupt, offset, err)
	}
	b := page[boltHeaderSize:]
	order := binary.NativeEndian // bolt writes structs as they are in memory
	sum := fnv.New64a()
	_, _ = sum.Write(b[:boltMetaSize-8])
	meta := boltMeta{
		pageSize: int64(order.Uint32(b[8:])),
		root:     int64(order.Uint64(b[16:])),
		pages:    int64(order.Uint64(b[40:])),
		tx:       order.Uint64(b[48:]),
	}
	switch {
	case order.Uint32(b) != boltMagic || order.Uint32(b[4:]) != boltVersion:
		return meta, fmt.Errorf("%w: meta page at %d is not of a database of this version", ErrCorrupt, offset)
	case order.Uint64(b[56:]) != sum.Sum64():
		return meta, fmt.Errorf("%w: meta page at %d does not match its checksum", ErrCorrupt, offset)
	case meta.pageSize < 512 || meta.pageSize > 1<<24 || meta.pages < 3 || meta.pages > 1<<50/meta.pageSize:
		return meta, fmt.Errorf("%w: meta page at %d makes no sense", ErrCorrupt, offset)
	}
	return meta, nil
}
