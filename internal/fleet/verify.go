package fleet

import (
	"errors"
	"time"

	"github.com/holdfast-dev/holdfast/internal/trust"
)

// ErrNotOwn refuses a record that an instance hands in for another one.
var ErrNotOwn = errors.New("the record is of another instance")

// Claim is a record that is said to be an instance's.
type Claim struct {
	// Signers are those whose certificates count, Namespace the one that it has to be
	// of, Now the state time.
	Signers   *trust.Signers
	Namespace string
	Now       time.Time
	// Certificate, Signed and Signature are what was sent.
	Certificate, Signed, Signature []byte
	// Known is the certificate read, where the same bytes have been verified before;
	// nil otherwise.
	Known *trust.Certificate
}

// Verify checks that a certificate is good, and that its instance has signed the
// record. Its errors are those of trust.
func (c *Claim) Verify() (trust.Certificate, error) {
	var by trust.Certificate
	if c.Known == nil {
		var err error
		if by, err = c.Signers.Certificate(c.Namespace, c.Certificate, c.Now); err != nil {
			return trust.Certificate{}, err //nolint:wrapcheck // says everything
		}
	} else if by = *c.Known; by.NotAfter <= c.Now.UnixMilli() {
		return trust.Certificate{}, trust.ErrExpired
	}
	if !by.Verify(evidenceContext, c.Signed, c.Signature) {
		return trust.Certificate{}, trust.ErrSignature
	}
	return by, nil
}

// refusal is what an error of Verify counts as.
func refusal(err error) outcome {
	switch {
	case errors.Is(err, trust.ErrNamespace):
		return foreign
	case errors.Is(err, trust.ErrUnknownSigner):
		return unknown
	case errors.Is(err, trust.ErrExpired):
		return expired
	case errors.Is(err, trust.ErrSignature):
		return forged
	default:
		return malformed
	}
}
