package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"io"
)

// image is a journal's snapshot: its entries, then a SHA-256 over them.
type image []Entry

func (m image) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode([]Entry(m)); err != nil {
		return 0, err
	}
	sum := sha256.Sum256(b.Bytes())
	b.Write(sum[:])
	return b.WriteTo(w)
}

func readImage(r io.Reader) ([]Entry, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	n := len(b) - sha256.Size
	if n < 0 || sha256.Sum256(b[:n]) != [sha256.Size]byte(b[n:]) {
		return nil, errors.New("image does not match its hash")
	}
	var entries []Entry
	return entries, gob.NewDecoder(bytes.NewReader(b[:n])).Decode(&entries)
}
