package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// What begins the bytes that are signed or hashed. A change of an encoding changes
// its text.
const (
	domainKey         = "holdfast/key/1\x00"
	domainCertificate = "holdfast/certificate/1\x00"
	domainSigners     = "holdfast/signers/1\x00"
	domainHead        = "holdfast/head/1\x00"
	domainTimestamp   = "holdfast/timestamp/1\x00"
	domainStatement   = "holdfast/statement/1\x00"
)

var (
	// ErrMalformed tells that bytes are not what they should be, or not in their one
	// encoding.
	ErrMalformed = errors.New("malformed")
	// ErrUnknownSigner tells that none of the keys held has signed.
	ErrUnknownSigner = errors.New("signed by an unknown key")
	// ErrSignature tells that a signature does not fit what it is under.
	ErrSignature = errors.New("the signature is wrong")
	// ErrExpired tells that a certificate has ended.
	ErrExpired = errors.New("the certificate has expired")
	// ErrNamespace tells that something belongs to another namespace.
	ErrNamespace = errors.New("of another namespace")
	// ErrStale tells that a signer set is not newer than the one held, or of another
	// cluster.
	ErrStale = errors.New("not newer than what is held")
)

// KeyID names a public key: the beginning of a hash of it.
type KeyID [8]byte

// IDOf returns the id of a public key.
func IDOf(public ed25519.PublicKey) KeyID {
	h := sha256.Sum256(append([]byte(domainKey), public...))
	return KeyID(h[:len(KeyID{})])
}

// String returns the id in hex.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// parseKeyID is the inverse of String.
func parseKeyID(text string) (id KeyID, ok bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != text {
		return KeyID{}, false
	}
	return KeyID(b), true
}

// Key is a private Ed25519 key. It is immutable and safe for concurrent use.
type Key struct {
	private ed25519.PrivateKey
	id      KeyID
}

// NewKey draws a key.
func NewKey(random io.Reader) (*Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("draw key: %w", err)
	}
	return ParseKey(seed)
}

// ParseKey makes a key of its seed of 32 bytes.
func ParseKey(seed []byte) (*Key, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("read key: %w: %d bytes instead of %d", ErrMalformed, len(seed), ed25519.SeedSize)
	}
	private := ed25519.NewKeyFromSeed(seed)
	k := &Key{private: private}
	k.id = IDOf(k.Public())
	return k, nil
}

// Seed returns the secret, for a file that nobody else can read.
func (k *Key) Seed() []byte { return k.private.Seed() }

// Public returns the public key.
func (k *Key) Public() ed25519.PublicKey {
	return ed25519.PublicKey(k.private[ed25519.SeedSize:])
}

// ID returns the id of the public key.
func (k *Key) ID() KeyID { return k.id }

// String implements fmt.Stringer, and keeps the secret out of what is printed.
func (k *Key) String() string { return "key " + k.id.String() }

// GoString implements fmt.GoStringer.
func (k *Key) GoString() string { return k.String() }

// Format implements fmt.Formatter: whatever the verb, the secret is not printed.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue implements slog.LogValuer.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText implements encoding.TextMarshaler.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// sign signs a body under a domain.
func (k *Key) sign(domain string, body []byte) []byte {
	return ed25519.Sign(k.private, signed(domain, body))
}

// verify tells whether a public key has signed a body under a domain.
func verify(public ed25519.PublicKey, domain string, body, signature []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, signed(domain, body), signature)
}

func signed(domain string, body []byte) []byte {
	return append(append(make([]byte, 0, len(domain)+len(body)), domain...), body...)
}
