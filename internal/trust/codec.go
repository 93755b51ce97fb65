package trust

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// appendText appends a text after its length.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendEpoch(b []byte, e document.Epoch) []byte {
	b = append(b, e.Lineage[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Counter)
	return binary.BigEndian.AppendUint64(b, e.Nonce)
}

// reader takes fields off bytes; after the first that is missing it returns zero
// values. It does not look for other encodings of a value: who decodes encodes again
// and compares.
type reader struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, which share the memory of the input.
func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) text() string {
	b := r.take(r.uvarint())
	if len(b) > document.MaxName || !utf8.Valid(b) {
		r.bad = true
		return ""
	}
	return string(b)
}

func (r *reader) epoch() (e document.Epoch) {
	copy(e.Lineage[:], r.take(uint64(len(e.Lineage))))
	e.Counter, e.Nonce = r.uint64(), r.uint64()
	return e
}

// end returns an error unless everything has been read.
func (r *reader) end(what string) error {
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("read %s: %w", what, ErrMalformed)
	}
	return nil
}
