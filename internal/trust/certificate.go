package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/holdfast-dev/holdfast/internal/document"
)

const (
	// MaxCertificate is how many bytes a certificate may have: with it, a record has
	// to fit into one packet.
	MaxCertificate = 512
	// CertificateLife is how long a certificate is good for. An instance asks for
	// another one at half of that.
	CertificateLife = 24 * time.Hour
)

// Certificate is a server's word that who has a key is an instance. It is a value.
type Certificate struct {
	// Namespace is the only one that the instance may speak in.
	Namespace string
	// ID and Service are what the instance told the server, which takes care that
	// nobody else has the id.
	ID, Service string
	// Host is where the server has seen it come from. Zone is what it says.
	Host, Zone string
	// PublicKey is the instance's.
	PublicKey ed25519.PublicKey
	// NotAfter is when it ends, in state time (milliseconds since 1970).
	NotAfter int64
}

// check says what keeps the certificate from being signed.
func (c *Certificate) check() error {
	for _, field := range [...]struct{ name, value string }{
		{"namespace", c.Namespace}, {"id", c.ID}, {"service", c.Service}, {"host", c.Host}, {"zone", c.Zone},
	} {
		if len(field.value) > document.MaxName || !utf8.ValidString(field.value) {
			return fmt.Errorf("%w: the %s is no text of at most %d bytes", ErrMalformed, field.name, document.MaxName)
		}
	}
	switch {
	case c.Namespace == "" || c.ID == "":
		return fmt.Errorf("%w: it names no namespace, or no instance", ErrMalformed)
	case len(c.PublicKey) != ed25519.PublicKeySize:
		return fmt.Errorf("%w: the public key has %d bytes instead of %d", ErrMalformed, len(c.PublicKey), ed25519.PublicKeySize)
	}
	return nil
}

func (c *Certificate) body() []byte {
	b := make([]byte, 0, 256)
	for _, text := range [...]string{c.Namespace, c.ID, c.Service, c.Host, c.Zone} {
		b = appendText(b, text)
	}
	b = append(b, c.PublicKey...)
	return binary.BigEndian.AppendUint64(b, uint64(c.NotAfter))
}

// Certify signs a certificate with a server's key. It refuses what is too long to
// travel with a record.
func Certify(server *Key, c Certificate) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("certify %q: %w", c.ID, err)
	}
	body := c.body()
	b := slices.Concat(body, server.id[:], server.sign(domainCertificate, body))
	if len(b) > MaxCertificate {
		return nil, fmt.Errorf("certify %q: namespace, id, service, host and zone take %d bytes too many; use shorter ones", c.ID, len(b)-MaxCertificate)
	}
	return b, nil
}

// ReadCertificate reads a certificate without asking who has signed it: for the
// instance's own, and to compare. The result shares no memory with b.
func ReadCertificate(b []byte) (Certificate, error) {
	c, _, _, err := readCertificate(b)
	return c, err
}

func readCertificate(b []byte) (c Certificate, by KeyID, signature []byte, err error) {
	r := reader{b: b, bad: len(b) > MaxCertificate}
	c = Certificate{Namespace: r.text(), ID: r.text(), Service: r.text(), Host: r.text(), Zone: r.text()}
	c.PublicKey = bytes.Clone(r.take(ed25519.PublicKeySize))
	c.NotAfter = int64(r.uint64()) //nolint:gosec // the inverse of the encoding
	copy(by[:], r.take(uint64(len(by))))
	signature = r.take(ed25519.SignatureSize)
	if err := r.end("certificate"); err != nil {
		return Certificate{}, by, nil, err
	}
	if err := c.check(); err != nil {
		return Certificate{}, by, nil, fmt.Errorf("read certificate: %w", err)
	}
	if !bytes.HasPrefix(b, c.body()) {
		return Certificate{}, by, nil, fmt.Errorf("read certificate: %w: not in its one encoding", ErrMalformed)
	}
	return c, by, signature, nil
}

// Certificate reads a certificate and checks that it is of a namespace, that one of
// the signers has signed it, and that it has not ended at a state time. Its errors
// are ErrMalformed, ErrNamespace, ErrUnknownSigner, ErrSignature and ErrExpired. It
// verifies one signature; who sees the same bytes often keeps the result.
func (s *Signers) Certificate(namespace string, b []byte, now time.Time) (Certificate, error) {
	c, by, signature, err := readCertificate(b)
	if err != nil {
		return Certificate{}, err
	}
	if c.Namespace != namespace {
		return Certificate{}, fmt.Errorf("certificate of %q: %w %q", c.ID, ErrNamespace, c.Namespace)
	}
	if c.NotAfter <= now.UnixMilli() {
		return Certificate{}, fmt.Errorf("certificate of %q: %w", c.ID, ErrExpired)
	}
	if err := s.verify(by, domainCertificate, c.body(), signature); err != nil {
		return Certificate{}, fmt.Errorf("certificate of %q: %w", c.ID, err)
	}
	return c, nil
}

// statement is what the signature of an instance covers: in which context and as whom
// it speaks. A server does not ask for a proof that an instance has the key that it
// shows, so that two certificates may name one key; what is said under one of them
// cannot be passed off under the other.
func (c *Certificate) statement(context string, b []byte) []byte {
	body := make([]byte, 0, len(context)+len(c.Namespace)+len(c.ID)+len(b)+8)
	for _, text := range [...]string{context, c.Namespace, c.ID} {
		body = appendText(body, text)
	}
	return append(body, b...)
}

// Sign signs what the instance of the certificate says, with its key. The context
// tells what it is about, as "health record 1": what is signed in one is nothing in
// another one.
func (c *Certificate) Sign(instance *Key, context string, b []byte) []byte {
	return instance.sign(domainStatement, c.statement(context, b))
}

// Verify tells whether the instance of the certificate has said this in that context.
// It does not look at the certificate's end.
func (c *Certificate) Verify(context string, b, signature []byte) bool {
	return verify(c.PublicKey, domainStatement, c.statement(context, b), signature)
}
