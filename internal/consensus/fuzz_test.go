package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// A header is what snapshotHeader wrote, or it is refused.
func FuzzSnapshotHeader(f *testing.F) {
	f.Add(snapshotHeader(mark{index: 7, term: 3}))
	f.Add(append(snapshotHeader(mark{}), "state"...))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		at, err := readSnapshotHeader(r)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(data, snapshotHeader(at)) || r.Len() != len(data)-snapshotHeaderSize {
			t.Errorf("%x reads as %+v, %d bytes are left", data, at, r.Len())
		}
	})
}

// Whatever seal an entry or a value carries: it is exactly the right one, or it is
// refused.
func FuzzSeals(f *testing.F) {
	l := raft.Log{Index: 7, Term: 3, Data: []byte("data")}
	sealLog(&l)
	f.Add(uint64(7), uint64(3), uint8(0), []byte("data"), l.Extensions)
	f.Add(uint64(7), uint64(3), uint8(0), []byte("data"), []byte{})
	f.Add(uint64(0), uint64(0), uint8(0), sealValue(keyVote, []byte("12345678x")), []byte(keyVote))
	f.Fuzz(func(t *testing.T, index, term uint64, kind uint8, data, seal []byte) {
		sealed := raft.Log{Index: index, Term: term, Type: raft.LogType(kind), Data: data, Extensions: seal}
		right := sealed
		sealLog(&right)
		err := checkLog(&sealed, index)
		if same := bytes.Equal(seal, right.Extensions); same != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("entry with seal %x: %v", seal, err)
		}
		if checkLog(&right, index+1) == nil {
			t.Error("an entry passes for another")
		}
		key := string(seal)
		value, err := openValue(key, data)
		if err == nil && !bytes.Equal(sealValue(key, value), data) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("value %x of %q: %x, %v", data, key, value, err)
		}
		_, _ = uint64Value(value)
	})
}

// A database file in which anything was changed is refused, or can be opened and
// read: bolt would kill the process if it followed a damaged pointer. The changes
// are triples of a position, two bytes, and a byte.
func FuzzDatabaseFile(f *testing.F) {
	whole := smallDatabase(f)
	f.Add([]byte{}, uint32(0))
	f.Add([]byte{0, 16, 0}, uint32(0))                           // magic number
	f.Add([]byte{0x20, 8, 1, 0x30, 10, 0xff}, uint32(0))         // kind and count of a page
	f.Add([]byte{0x40, 0x14, 0xff, 0x40, 0x15, 7}, uint32(0))    // element
	f.Add([]byte{0x20, 12, 0xff, 0x20, 13, 0xff}, uint32(0))     // overflow
	f.Add([]byte{}, uint32(5000))                                // cut off
	f.Add([]byte{0x50, 0, 0, 0x60, 0, 0, 0x70, 9, 2}, uint32(1)) // numbers of pages
	f.Fuzz(func(t *testing.T, changes []byte, cut uint32) {
		file := bytes.Clone(whole)
		for ; len(changes) >= 3; changes = changes[3:] {
			file[int(binary.BigEndian.Uint16(changes))%len(file)] = changes[2]
		}
		file = file[:len(file)-int(cut)%len(file)]
		path := filepath.Join(t.TempDir(), logFile)
		must(t, os.WriteFile(path, file, 0o600))
		if err := checkBolt(path); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if len(file) > 0 {
			readDatabase(t, path)
		}
	})
}

// readDatabase opens a database and reads all that raft might.
func readDatabase(t *testing.T, path string) {
	t.Helper()
	bolt, err := openBolt(path, true)
	if err != nil {
		return
	}
	defer bolt.Close()
	_ = guard(func() error {
		var l raft.Log
		first, _ := bolt.FirstIndex()
		last, _ := bolt.LastIndex()
		for i := first; i <= min(last, first+100); i++ {
			if bolt.GetLog(i, &l) == nil {
				_ = checkLog(&l, i)
			}
		}
		_, _ = bolt.Get([]byte(keyTerm))
		return nil
	})
}

// smallDatabase returns a log of a few pages.
func smallDatabase(tb testing.TB) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), logFile)
	bolt, err := openBolt(path, true)
	must(tb, err)
	must(tb, bolt.Set([]byte(keyTerm), sealValue(keyTerm, []byte("12345678"))))
	for i := range uint64(40) {
		l := raft.Log{Index: i + 1, Term: 1, Data: fmt.Appendf(nil, "%0200d", i)}
		sealLog(&l)
		must(tb, bolt.StoreLog(&l))
	}
	must(tb, bolt.Close())
	whole, err := os.ReadFile(path)
	must(tb, err)
	return whole
}
