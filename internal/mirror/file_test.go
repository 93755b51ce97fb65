package mirror

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// cacheFile returns a mirror with every kind of field, and its file.
func cacheFile(tb testing.TB) (*Mirror, []byte) {
	tb.Helper()
	override := flag("storm", `{"level":"read-only","mode":"storefront"}`, 6)
	override.Kind, override.End = document.Override, 1_700_000_000_001
	override.Labels = []document.Label{{Key: "a", Value: "b"}, {Key: "c", Value: ""}}
	override.Reason, override.ActorVerified, override.UpdateTime = "db failover", true, 3
	c := content{}
	d := document.Delta{To: 7}
	for _, r := range []*document.Resource{flag("a", "1", 5), flag("größe", "{}", 6), override} {
		c[r.Key] = r
		d.Puts = append(d.Puts, r)
	}
	d.Root = c.root()
	m, err := New("default", Position{}).Apply(Update{Epoch: epoch(2), Replace: true, Delta: d})
	if err != nil {
		tb.Fatal(err)
	}
	var file bytes.Buffer
	if err := EncodeCache(&file, m, Stamp{Wall: 1_800_000_000_000, State: 1_700_000_000_000}); err != nil {
		tb.Fatal(err)
	}
	return m, file.Bytes()
}

func TestCacheComesBack(t *testing.T) {
	m, data := cacheFile(t)
	got, stamp, err := DecodeCache(data, "default")
	if err != nil {
		t.Fatal(err)
	}
	if got.Position() != m.Position() || got.Floor() != m.Position() || got.Root() != m.Root() || got.Bytes() != m.Bytes() {
		t.Errorf("got %s with root %x, want %s with %x", got.Position(), got.Root(), m.Position(), m.Root())
	}
	if want := (Stamp{1_800_000_000_000, 1_700_000_000_000}); stamp != want {
		t.Errorf("stamp %v, want %v", stamp, want)
	}
	var again bytes.Buffer
	if err := EncodeCache(&again, got, stamp); err != nil || !bytes.Equal(again.Bytes(), data) {
		t.Errorf("written again it is another file, %v", err)
	}
	for i := range data {
		data[i] = 0xff // the mirror shares nothing with it
	}
	again.Reset()
	if err := EncodeCache(&again, got, stamp); err != nil || again.Bytes()[0] != 'h' {
		t.Error(err)
	}
	if _, _, err := DecodeCache(again.Bytes(), "default"); err != nil {
		t.Errorf("the mirror changed with the bytes it was read from: %v", err)
	}
	if u := got.Whole(); !u.Replace || u.Position() != m.Position() || len(u.Delta.Puts) != 3 || u.Delta.Root != m.Root() {
		t.Errorf("the whole is %+v", u)
	}
}

// resealed returns a file whose checksum is right whatever it holds.
func resealed(data []byte) []byte {
	data = data[:len(data)-sha256.Size]
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// TestPoisonIsRefused damages files in every way that a disk or somebody can.
func TestPoisonIsRefused(t *testing.T) {
	_, cache := cacheFile(t)
	mark := EncodeMark("default", Mark{Position: Position{epoch(2), 7}, Stamp: Stamp{1, 2}, Heard: 3})
	decoders := map[string]struct {
		data   []byte
		decode func([]byte) error
	}{
		"cache": {cache, func(b []byte) error { _, _, err := DecodeCache(b, "default"); return err }},
		"mark":  {mark, func(b []byte) error { _, err := DecodeMark(b, "default"); return err }},
	}
	for name, f := range decoders {
		t.Run(name, func(t *testing.T) {
			if err := f.decode(f.data); err != nil {
				t.Fatal(err)
			}
			for n := range f.data {
				if err := f.decode(f.data[:n]); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("cut after %d bytes: %v", n, err)
				}
			}
			for i := range len(f.data) * 8 {
				b := slices.Clone(f.data)
				b[i/8] ^= 1 << (i % 8)
				if err := f.decode(b); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
					t.Fatalf("bit %d flipped: %v", i, err)
				}
			}
			if err := f.decode(append(slices.Clone(f.data), 0)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("a byte more: %v", err)
			}
			// With a checksum that is right, the parts have to fit all the same.
			for n := len(f.data) - sha256.Size - 1; n > 40; n-- {
				if err := f.decode(resealed(slices.Clone(f.data[:n+sha256.Size]))); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("cut after %d bytes and sealed: %v", n, err)
				}
			}
			more := slices.Insert(slices.Clone(f.data), len(f.data)-sha256.Size, 'x')
			if err := f.decode(resealed(more)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("a byte more and sealed: %v", err)
			}
		})
	}
	t.Run("a mark is no cache", func(t *testing.T) {
		if _, _, err := DecodeCache(mark, "default"); !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("another version", func(t *testing.T) {
		b := slices.Clone(cache)
		binary.BigEndian.PutUint16(b[len(cacheMagic):], 2)
		_, _, err := DecodeCache(resealed(b), "default")
		if !errors.Is(err, ErrVersion) || !strings.HasSuffix(err.Error(), "2, and this program reads up to 1") {
			t.Error(err)
		}
	})
	t.Run("another namespace", func(t *testing.T) {
		if _, _, err := DecodeCache(cache, "other"); !errors.Is(err, ErrNamespace) {
			t.Error(err)
		}
		if _, err := DecodeMark(mark, "other"); !errors.Is(err, ErrNamespace) {
			t.Error(err)
		}
	})
	t.Run("another root", func(t *testing.T) {
		b := bytes.Replace(slices.Clone(cache), []byte("db failover"), []byte("db failed  "), 1)
		if _, _, err := DecodeCache(resealed(b), "default"); !errors.Is(err, ErrRoot) || !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("a mark of version 1", func(t *testing.T) {
		was := header(markMagic, 1, "default", Mark{Position: Position{epoch(2), 7}, Stamp: Stamp{1, 2}})
		sum := sha256.Sum256(was)
		m, err := DecodeMark(append(was, sum[:]...), "default")
		if err != nil || m != (Mark{Position: Position{epoch(2), 7}, Stamp: Stamp{1, 2}}) {
			t.Errorf("%+v, %v", m, err)
		}
	})
	t.Run("a time out of range", func(t *testing.T) {
		if _, err := DecodeMark(EncodeMark("default", Mark{Heard: -1}), "default"); !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		for _, s := range []Stamp{{Wall: -1}, {State: -1}, {Wall: latest + 1}, {State: latest + 1}} {
			if _, err := DecodeMark(EncodeMark("default", Mark{Stamp: s}), "default"); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v: %v", s, err)
			}
		}
	})
}

// failing takes n bytes and then no more.
type failing struct{ n int }

func (f *failing) Write(b []byte) (int, error) {
	if f.n -= len(b); f.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestEncodeCacheTellsOfAFullDisk(t *testing.T) {
	m, data := cacheFile(t)
	for n := range len(data) {
		if err := EncodeCache(&failing{n}, m, Stamp{}); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// FuzzDecodeCache reads anything, with a checksum that is right. What is accepted
// can be written and read again.
func FuzzDecodeCache(f *testing.F) {
	_, data := cacheFile(f)
	f.Add(data[len(cacheMagic) : len(data)-sha256.Size])
	f.Fuzz(func(t *testing.T, body []byte) {
		file := resealed(slices.Concat([]byte(cacheMagic), body, make([]byte, sha256.Size)))
		m, stamp, err := DecodeCache(file, "default")
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrNamespace) {
				t.Errorf("an error of its own kind: %v", err)
			}
			return
		}
		var again bytes.Buffer
		if err := EncodeCache(&again, m, stamp); err != nil {
			t.Fatal(err)
		}
		m2, stamp2, err := DecodeCache(again.Bytes(), "default")
		if err != nil || m2.Root() != m.Root() || m2.Position() != m.Position() || stamp2 != stamp {
			t.Errorf("read back: %v", err)
		}
	})
}

// FuzzDecodeMark does the same with marks.
func FuzzDecodeMark(f *testing.F) {
	data := EncodeMark("default", Mark{Position: Position{epoch(2), 7}, Stamp: Stamp{1, 2}, Heard: 3})
	f.Add(data[len(markMagic) : len(data)-sha256.Size])
	f.Fuzz(func(t *testing.T, body []byte) {
		file := resealed(slices.Concat([]byte(markMagic), body, make([]byte, sha256.Size)))
		m, err := DecodeMark(file, "default")
		if err != nil {
			return
		}
		if again, err := DecodeMark(EncodeMark("default", m), "default"); err != nil || again != m {
			t.Errorf("read back %v, %v; want %v", again, err, m)
		}
	})
}
