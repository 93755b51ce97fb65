package sim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

const namespace = "default"

// authority stands for the servers: it certifies instances. It remembers what was
// verified, for all instances of the process, since a thousand of them would verify each
// record a thousand times.
type authority struct {
	key     *trust.Key
	signers *trust.Signers

	mu       sync.Mutex // guards verified
	verified map[[sha256.Size]byte]verification
}

type verification struct {
	certificate trust.Certificate
	err         error
}

// verifiedLimit bounds what is remembered; beyond it everything is forgotten.
const verifiedLimit = 200_000

// key draws a key that a seed decides.
func key(seed, part uint64) (*trust.Key, error) {
	var b [ed25519.SeedSize]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	binary.LittleEndian.PutUint64(b[8:], part)
	return trust.NewKey(bytes.NewReader(b[:]))
}

func newAuthority(seed uint64) (*authority, error) {
	own, err := key(seed, 0)
	if err != nil {
		return nil, fmt.Errorf("the servers' key: %w", err)
	}
	signers, err := trust.NewSigners(own, document.Epoch{}, 1, []trust.Server{{ID: "s1", Key: own.Public()}})
	if err != nil {
		return nil, fmt.Errorf("the servers' keys: %w", err)
	}
	return &authority{key: own, signers: signers, verified: map[[sha256.Size]byte]verification{}}, nil
}

// certify returns a key and its certificate.
func (a *authority) certify(seed, part uint64, id string, at Place) (*trust.Key, []byte, error) {
	own, err := key(seed, part)
	if err != nil {
		return nil, nil, fmt.Errorf("the key of %s: %w", id, err)
	}
	certificate, err := trust.Certify(a.key, trust.Certificate{
		Namespace: namespace, ID: id, Service: service, Host: at.Host, Zone: at.Zone,
		PublicKey: own.Public(), NotAfter: time.Now().Add(trust.CertificateLife).UnixMilli(),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", err)
	}
	return own, certificate, nil
}

// verify verifies a claim, or remembers how that went.
func (a *authority) verify(c *fleet.Claim) (trust.Certificate, error) {
	h := sha256.New()
	for _, part := range [][]byte{c.Certificate, c.Signed, c.Signature} {
		_ = binary.Write(h, binary.LittleEndian, uint64(len(part)))
		_, _ = h.Write(part)
	}
	key := [sha256.Size]byte(h.Sum(nil))
	a.mu.Lock()
	v, ok := a.verified[key]
	a.mu.Unlock()
	if ok {
		return v.certificate, v.err
	}
	v.certificate, v.err = c.Verify()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verified) >= verifiedLimit {
		clear(a.verified)
	}
	a.verified[key] = v
	return v.certificate, v.err
}
