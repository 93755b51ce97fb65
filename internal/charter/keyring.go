package charter

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/document"
)

const (
	// MaxKeys is how many keys a pool may have; a further one is refused with ErrFull.
	MaxKeys = 8
	// keyBytes is the length of a key: AES-256.
	keyBytes = 32
	// poolDomain begins what the first keys are derived for, and idDomain what their
	// ids are hashes of.
	poolDomain = "holdfast/pool/1\x00"
	idDomain   = "holdfast/pool-key/1\x00"
)

var (
	// ErrFull tells that there is no room for another key, or for another namespace's.
	ErrFull = errors.New("there are as many keys as there may be")
	// ErrNoKey tells that a pool has no such key.
	ErrNoKey = errors.New("the pool has no such key")
	// ErrPrimary refuses to remove the key that encrypts.
	ErrPrimary = errors.New("the key encrypts")
	// ErrPlaintext tells that the servers' own pool has no key, so that others cannot be
	// told any.
	ErrPlaintext = errors.New("the servers' pool is plaintext")
	// ErrOvertaken tells that the charter is of a later term than the one who changes it.
	ErrOvertaken = errors.New("another leader has changed it")

	errMalformed = errors.New("malformed record")
)

// Key is an AES key of a pool. Its value is shown nowhere.
type Key struct {
	// ID is the beginning of a hash of the value, in hex.
	ID string
	// Created is when it was drawn, in state time (milliseconds since 1970); 0 of one
	// that was derived from the servers' own.
	Created int64

	value [keyBytes]byte
}

// Value returns the key, which belongs to the caller.
func (k Key) Value() []byte { return bytes.Clone(k.value[:]) }

// String returns the id, so that the value is not printed.
func (k Key) String() string { return "pool key " + k.ID }

// Format implements fmt.Formatter: whatever the verb, the value is not printed.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

func newKey(value []byte, created int64) Key {
	h := sha256.Sum256(append([]byte(idDomain), value...))
	return Key{ID: hex.EncodeToString(h[:8]), Created: created, value: [keyBytes]byte(value)}
}

// derived returns the keys of a namespace's pool that follow from the servers' own, in
// the same order: what encrypts there encrypts here, and a rotation of the servers'
// key by restarts rotates these as well. Who knows one of them knows nothing of the
// servers' or of another namespace's.
func derived(servers [][]byte, namespace string) []Key {
	keys := make([]Key, 0, len(servers))
	for _, secret := range servers {
		value, err := hkdf.Key(sha256.New, secret, nil, poolDomain+namespace, keyBytes)
		if err != nil {
			continue // only a length that SHA-256 cannot fill
		}
		keys = append(keys, newKey(value, 0))
	}
	return keys
}

// ring is the keys of one namespace's pool, the one that encrypts first. It is
// immutable.
type ring struct {
	lineage   [16]byte
	version   uint64
	namespace string
	keys      []Key
	encoded   []byte
}

func newRing(lineage [16]byte, version uint64, namespace string, keys []Key) *ring {
	r := &ring{lineage: lineage, version: version, namespace: namespace, keys: keys}
	b := append([]byte{tagRing}, lineage[:]...)
	b = binary.BigEndian.AppendUint64(b, version)
	b = append(binary.AppendUvarint(b, uint64(len(namespace))), namespace...)
	for _, k := range keys {
		b = append(b, k.value[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(k.Created))
	}
	r.encoded = b
	return r
}

// decodeRing reads a ring after its tag. There is one encoding for each.
func decodeRing(b []byte) (*ring, error) {
	const fixed, perKey = 16 + 8, keyBytes + 8
	if len(b) < fixed {
		return nil, errMalformed
	}
	lineage, version := [16]byte(b), binary.BigEndian.Uint64(b[16:])
	rest := b[fixed:]
	length, n := binary.Uvarint(rest)
	if n <= 0 || length > document.MaxName || length > uint64(len(rest)-n) {
		return nil, errMalformed
	}
	namespace, rest := string(rest[n:n+int(length)]), rest[n+int(length):]
	if document.CheckName(namespace) != nil || len(rest) == 0 || len(rest)%perKey != 0 || len(rest)/perKey > MaxKeys {
		return nil, errMalformed
	}
	var keys []Key
	for ; len(rest) > 0; rest = rest[perKey:] {
		k := newKey(rest[:keyBytes], int64(binary.BigEndian.Uint64(rest[keyBytes:]))) //nolint:gosec // the inverse of the encoding
		if slices.ContainsFunc(keys, func(other Key) bool { return other.ID == k.ID }) {
			return nil, errMalformed
		}
		keys = append(keys, k)
	}
	r := newRing(lineage, version, namespace, keys)
	if !bytes.Equal(r.encoded[1:], b) {
		return nil, errMalformed
	}
	return r, nil
}
