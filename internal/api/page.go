package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// pageToken says where a page begins. Clients see it as an opaque text.
type pageToken struct {
	// filter is a hash of what the list was asked for: a token is good for the
	// same question only.
	filter [8]byte
	// after is the last resource of the page before; only for resources. For
	// instances its name is their place.
	after document.Key
	// below is the revision of the last record of the page before; only for the
	// audit.
	below uint64
}

// tokenVersion is the first byte of a token. Another one is refused, so that a
// newer server's token is not misread in the middle of an upgrade.
const tokenVersion = 1

// filterOf hashes what a list was asked for.
func filterOf(parts ...string) (f [8]byte) {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		_, _ = h.Write(n[:])
		_, _ = h.Write([]byte(p))
	}
	copy(f[:], h.Sum(nil))
	return f
}

// String returns the token's text: base64 of version, filter, revision, kind and
// name, and a checksum that notices what was cut or mistyped.
func (t pageToken) String() string {
	b := append([]byte{tokenVersion}, t.filter[:]...)
	b = binary.BigEndian.AppendUint64(b, t.below)
	b = append(b, byte(t.after.Kind))
	b = append(b, t.after.Name...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

// parsePageToken reads a token. An empty text is the token of the first page.
func parsePageToken(text string, filter [8]byte) (t pageToken, err error) {
	const fixed = 1 + 8 + 8 + 1 + 4
	t.filter = filter
	if text == "" {
		return t, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < fixed || len(b) > fixed+2*document.MaxName+1 {
		return t, Errorf(ReasonInvalidPageToken, "the page token is not one of this service")
	}
	b, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	switch {
	case crc32.ChecksumIEEE(b) != sum:
		return t, Errorf(ReasonInvalidPageToken, "the page token is damaged")
	case b[0] != tokenVersion:
		return t, Errorf(ReasonInvalidPageToken, "the page token is of version %d, which this server does not know; begin again", b[0])
	case !bytes.Equal(b[1:9], filter[:]):
		return t, Errorf(ReasonInvalidPageToken, "the page token belongs to another request; only page_size and read may differ between pages")
	}
	t.below = binary.BigEndian.Uint64(b[9:17])
	t.after = document.Key{Kind: document.Kind(b[17]), Name: string(b[18:])}
	return t, nil
}

// checkPage checks a page's size and returns it, or the default one.
func (v *violations) checkPage(size int32) int {
	switch {
	case size == 0:
		return DefaultPageSize
	case size < 0 || size > MaxPageSize:
		v.addf("page_size", "is %d; it must be between 1 and %d", size, MaxPageSize)
	}
	return int(size)
}
