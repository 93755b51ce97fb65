package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

var (
	// ErrCorrupt is wrapped for a snapshot that is damaged or cut off.
	ErrCorrupt = errors.New("snapshot is corrupt")
	// ErrUnknownFormat is wrapped for what is no snapshot, or one of a newer
	// version.
	ErrUnknownFormat = errors.New("snapshot has an unknown format")
)

// ReadView reads a snapshot or backup to its end. It refuses what is damaged, cut
// off or impossible with an error that wraps ErrCorrupt, and what it does not
// know with one that wraps ErrUnknownFormat. One that holds more than a state may
// is refused with a *Rejection. Other errors are those of r. It holds a record at
// a time in memory besides the view itself, which the limits bound.
func ReadView(r io.Reader) (*View, error) {
	limits := DefaultLimits()
	v, err := readView(r, &limits, Version)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return v, nil
}

// readView reads a backup that a server of the given version can go on from.
func readView(r io.Reader, limits *Limits, version uint32) (*View, error) {
	return read(r, newBuilder(limits, version))
}

func read(r io.Reader, b *builder) (*View, error) {
	s := &snapshotReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	if err := s.magic(); err != nil {
		return nil, err
	}
	for !b.closed {
		record, err := s.next()
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", s.records, err)
		}
		if err := b.add(record, s.records); err != nil {
			return nil, fmt.Errorf("record %d: %w", s.records, err)
		}
		s.records++
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	return b.view()
}

// snapshotReader reads records and sums up what it read.
type snapshotReader struct {
	r       *bufio.Reader
	sum     hash.Hash
	records uint64
	buf     []byte
}

func (s *snapshotReader) magic() error {
	line := make([]byte, len(snapshotMagic))
	if err := s.read(line); err != nil {
		return err
	}
	if string(line) != snapshotMagic {
		return fmt.Errorf("%w: it does not begin as a snapshot", ErrUnknownFormat)
	}
	return nil
}

// read fills b.
func (s *snapshotReader) read(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return cutOff(err)
	}
	_, _ = s.sum.Write(b)
	return nil
}

// cutOff makes the end of a file an error of the file.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", ErrCorrupt)
	}
	return err
}

func (s *snapshotReader) next() (*storagev1.SnapshotRecord, error) {
	length, err := s.length()
	if err != nil {
		return nil, err
	}
	if length > maxRecord {
		return nil, fmt.Errorf("%w: a record of %d bytes", ErrCorrupt, length)
	}
	if uint64(cap(s.buf)) < length {
		s.buf = make([]byte, length)
	}
	s.buf = s.buf[:length]
	if err := s.read(s.buf); err != nil {
		return nil, err
	}
	record := new(storagev1.SnapshotRecord)
	if err := proto.Unmarshal(s.buf, record); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return record, nil
}

// length reads the length of a record.
func (s *snapshotReader) length() (uint64, error) {
	var b [binary.MaxVarintLen64]byte
	for i := range b {
		if err := s.read(b[i : i+1]); err != nil {
			return 0, err
		}
		if b[i] < 0x80 {
			n, _ := binary.Uvarint(b[:i+1])
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: the length of a record has no end", ErrCorrupt)
}

// end checks the sum and that nothing follows it.
func (s *snapshotReader) end() error {
	want := s.sum.Sum(nil)
	have := make([]byte, len(want))
	if err := s.read(have); err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%w: its SHA-256 is wrong", ErrCorrupt)
	}
	switch _, err := s.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: something follows its end", ErrCorrupt)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}
