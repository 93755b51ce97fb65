package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// FuzzApply applies any bytes as two entries after a few good ones. A machine
// may refuse them or stop at them, but what it then holds can be written and
// read, and another machine comes to the same.
func FuzzApply(f *testing.F) {
	ttl := put("a", document.Override, "o", "1")
	for _, cmd := range []*storagev1.Command{
		tick(), expire(), epochOf(1, 2), transaction(requestOf(9), put("a", document.Flag, "x", "{}"), del("b", document.Mode, "m")),
		transaction(requestOf(10), expecting(ttl, 0)),
		restoring(1, []byte("0123456789"), 4, 1)[0], restoring(1, []byte("0123456789"), 4, 1)[1], restoring(1, []byte("0"), 4, 1)[2],
	} {
		f.Add(marshal(f, cmd), marshal(f, expire()), int64(1))
	}
	f.Fuzz(func(t *testing.T, one, two []byte, term int64) {
		limits := tiny()
		run := func() *View {
			h := newHarness(t, limits)
			h.apply(epochOf(1, 1))
			h.must(put("a", document.Flag, "x", "1"), put("b", document.Mode, "m", "1"), put("a", document.Override, "o", "1"))
			_, err := h.Apply([]Entry{{Index: 8, Term: 1, Data: one}, {Index: 9, Term: uint64(term), Data: two}})
			if err != nil && !errors.Is(err, ErrUndecodable) && !errors.Is(err, ErrUnknownCommand) {
				t.Fatalf("apply: %v", err)
			}
			return h.View()
		}
		v := run()
		if v.Hash() != run().Hash() {
			t.Fatal("two machines differ")
		}
		requireSelfConsistent(t, v)
	})
}

// FuzzReadView reads any bytes, as they are and with a right sum behind them.
// Nothing makes it panic, and nothing is accepted that does not describe itself.
func FuzzReadView(f *testing.F) {
	h := newHarness(f, tiny())
	h.apply(epochOf(1, 1))
	h.must(put("a", document.Flag, "x", "1"), put("a", document.Override, "o", "1"))
	h.must(del("a", document.Flag, "x"))
	for _, v := range []*View{h.View(), sample(f), New().View()} {
		file := written(f, v)
		f.Add(file)
		f.Add(file[:len(file)-sha256.Size])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		sum := sha256.Sum256(file)
		for _, data := range [][]byte{file, append(bytes.Clone(file), sum[:]...)} {
			v, err := ReadView(bytes.NewReader(data))
			if err != nil {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknownFormat) {
					t.Fatalf("read: %v", err)
				}
				continue
			}
			again, err := ReadView(bytes.NewReader(written(t, v)))
			if err != nil || again.Hash() != v.Hash() {
				t.Fatalf("what was accepted cannot be read again: %v", err)
			}
			m := New()
			if err := m.Restore(bytes.NewReader(data)); err != nil {
				t.Fatalf("restore: %v", err)
			}
			if _, err := m.Apply([]Entry{{Index: 1, Term: 1, Data: marshal(t, expire())}}); err != nil {
				t.Fatalf("apply: %v", err)
			}
		}
	})
}

// FuzzReadRecord puts any bytes in the place of a record of a good snapshot and
// seals it again, which gets deeper than FuzzReadView does.
func FuzzReadRecord(f *testing.F) {
	good := recordsOf(f, written(f, sample(f)))
	for i, record := range good {
		f.Add(uint8(i), record)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		records := slices.Clone(good)
		records[int(which)%len(records)] = data
		file := sealed(records)
		v, err := ReadView(bytes.NewReader(file))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknownFormat) {
				t.Fatalf("read: %v", err)
			}
			return
		}
		requireSelfConsistent(t, v)
	})
}
