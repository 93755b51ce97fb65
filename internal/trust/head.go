package trust

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Head is a server's word that a namespace had a content: whoever holds bytes with
// this root holds what the cluster decided, wherever the bytes came from.
type Head struct {
	Namespace string
	Epoch     document.Epoch
	// Revision is one at which the namespace had the root; it may have had it before,
	// and keep it after.
	Revision uint64
	Root     document.Root
	// StateTime is the state time of that revision or later, in milliseconds since
	// 1970.
	StateTime int64
}

// Timestamp is a server's word that a revision was the cluster's newest at a state
// time. A server without quorum has none that is fresh.
type Timestamp struct {
	Epoch     document.Epoch
	Revision  uint64
	StateTime int64 // milliseconds since 1970
}

func (h *Head) body() []byte {
	b := appendText(make([]byte, 0, 128), h.Namespace)
	b = binary.BigEndian.AppendUint64(appendEpoch(b, h.Epoch), h.Revision)
	b = append(b, h.Root[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(h.StateTime))
}

func (t *Timestamp) body() []byte {
	b := binary.BigEndian.AppendUint64(appendEpoch(make([]byte, 0, 64), t.Epoch), t.Revision)
	return binary.BigEndian.AppendUint64(b, uint64(t.StateTime))
}

// SignHead signs a head with a server's key.
func SignHead(server *Key, h Head) *holdfastv1.SignedHead {
	return server.signHead(domainHead, h.body())
}

// SignTimestamp signs a timestamp with a server's key.
func SignTimestamp(server *Key, t Timestamp) *holdfastv1.SignedHead {
	return server.signHead(domainTimestamp, t.body())
}

func (k *Key) signHead(domain string, body []byte) *holdfastv1.SignedHead {
	return &holdfastv1.SignedHead{Head: body, Signature: k.sign(domain, body), KeyId: k.id.String()}
}

// Head reads a head and checks that it is of a namespace and that one of the signers
// has signed it. Its errors are ErrMalformed, ErrNamespace, ErrUnknownSigner and
// ErrSignature. Whether it is newer than what is held, and of the same history, the
// caller decides.
func (s *Signers) Head(namespace string, p *holdfastv1.SignedHead) (Head, error) {
	r := reader{b: p.GetHead()}
	h := Head{Namespace: r.text(), Epoch: r.epoch(), Revision: r.uint64()}
	copy(h.Root[:], r.take(uint64(len(h.Root))))
	h.StateTime = int64(r.uint64()) //nolint:gosec // the inverse of the encoding
	if err := r.end("head"); err != nil {
		return Head{}, err
	}
	if err := s.verifyHead("head", domainHead, h.body(), p); err != nil {
		return Head{}, err
	}
	if h.Namespace != namespace {
		return Head{}, fmt.Errorf("head of %q: %w", h.Namespace, ErrNamespace)
	}
	return h, nil
}

// Timestamp reads a timestamp and checks that one of the signers has signed it. Its
// errors are ErrMalformed, ErrUnknownSigner and ErrSignature.
func (s *Signers) Timestamp(p *holdfastv1.SignedHead) (Timestamp, error) {
	r := reader{b: p.GetHead()}
	t := Timestamp{Epoch: r.epoch(), Revision: r.uint64()}
	t.StateTime = int64(r.uint64()) //nolint:gosec // the inverse of the encoding
	if err := r.end("timestamp"); err != nil {
		return Timestamp{}, err
	}
	return t, s.verifyHead("timestamp", domainTimestamp, t.body(), p)
}

func (s *Signers) verifyHead(what, domain string, body []byte, p *holdfastv1.SignedHead) error {
	by, ok := parseKeyID(p.GetKeyId())
	if !ok || !bytes.Equal(body, p.GetHead()) {
		return fmt.Errorf("read %s: %w", what, ErrMalformed)
	}
	if err := s.verify(by, domain, body, p.GetSignature()); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}
