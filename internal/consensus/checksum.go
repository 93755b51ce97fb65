package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// crc32c returns the table of CRC32C, which processors compute in hardware; it is
// built once.
func crc32c() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// seal is what Log.Extensions holds: a version and the checksum.
const (
	sealVersion = 1
	sealSize    = 5
)

// checksum covers everything of an entry that decides anything. AppendedAt is
// left out: it is informational and does not survive its encoding unchanged.
func checksum(l *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Checksum(head[:], crc32c()), crc32c(), l.Data)
}

// sealLog gives an entry its checksum. The seal travels to the followers with
// the entry, so that it covers memory and network of both ends too.
func sealLog(l *raft.Log) {
	seal := make([]byte, sealSize)
	seal[0] = sealVersion
	binary.BigEndian.PutUint32(seal[1:], checksum(l))
	l.Extensions = seal
}

// checkLog verifies that an entry is the one of that index, and as it was sealed.
func checkLog(l *raft.Log, index uint64) error {
	switch {
	case l.Index != index:
		return fmt.Errorf("entry %d is stored at index %d: %w", l.Index, index, ErrCorrupt)
	case len(l.Extensions) != sealSize || l.Extensions[0] != sealVersion:
		return fmt.Errorf("entry %d has no checksum: %w", index, ErrCorrupt)
	case binary.BigEndian.Uint32(l.Extensions[1:]) != checksum(l):
		return fmt.Errorf("entry %d does not match its checksum: %w", index, ErrCorrupt)
	}
	return nil
}

// sealValue appends a checksum over key and value to the value.
func sealValue(key string, value []byte) []byte {
	sealed := append(make([]byte, 0, len(value)+4), value...)
	return binary.BigEndian.AppendUint32(sealed, valueSum(key, value))
}

// openValue undoes sealValue.
func openValue(key string, sealed []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != valueSum(key, sealed[:n]) {
		return nil, fmt.Errorf("value %q does not match its checksum: %w", key, ErrCorrupt)
	}
	return sealed[:n], nil
}

func valueSum(key string, value []byte) uint32 {
	sum := crc32.Checksum([]byte(key), crc32c())
	return crc32.Update(sum, crc32c(), value)
}

// uint64Value decodes a value of eight bytes.
func uint64Value(value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, errors.New("value is not a number")
	}
	return binary.BigEndian.Uint64(value), nil
}
