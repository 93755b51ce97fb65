package fleet

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

const (
	// maxEnvelope bounds a record as it travels: with the names of channel and pool it
	// fits one packet of gossip, and it is what servers take over a session.
	maxEnvelope = 1200
	// eldest is the greatest age that is told; what is older has expired anyway.
	eldest = time.Hour
	// envelopeVersion begins an envelope. Another one is refused.
	envelopeVersion = 1
	// timeSize is that of the state time in what is signed.
	timeSize = 8
	// evidenceContext separates signatures of records from all others.
	evidenceContext = "holdfast evidence v1"
)

var errEnvelope = errors.New("no envelope of a record")

// envelope is a record as it travels:
//
//	version (1 byte) | age in ms (uvarint) | sealed
//	sealed: length (uvarint) | certificate | signed | signature (64 bytes)
//	signed: state time in ms (8 bytes) | record
//
// The age is added by whoever sends it and signed by nobody; a record that is known
// never becomes younger by it. State time, of which everybody has an estimate, is only
// there to refuse what somebody kept and passes on long after everybody has forgotten
// its numbers; 0 means that the instance did not know it.
type envelope struct {
	age         time.Duration
	sealed      []byte // what does not change on the way
	certificate []byte
	signed      []byte
	record      []byte // the rest of signed
	at          int64  // state time
	signature   []byte
}

// Seal signs a record under a certificate of the key, at a state time, which is zero
// where it is not known, and returns what travels. The record is normalized.
func Seal(key *trust.Key, certificate []byte, r *health.Record, at time.Time) ([]byte, error) {
	is, err := trust.ReadCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	sealed, err := sealRecord(key, &credential{certificate, is}, r, at)
	if err != nil {
		return nil, err
	}
	return encode(0, sealed), nil
}

// sealRecord puts certificate, record and signature together.
func sealRecord(key *trust.Key, c *credential, r *health.Record, at time.Time) ([]byte, error) {
	r.Normalize()
	b := make([]byte, 0, maxEnvelope)
	b = binary.AppendUvarint(b, uint64(len(c.bytes)))
	b = append(b, c.bytes...)
	start, ms := len(b), uint64(0)
	if !at.IsZero() {
		ms = uint64(max(at.UnixMilli(), 0)) //nolint:gosec // not negative
	}
	b, err := r.Append(binary.BigEndian.AppendUint64(b, ms))
	if err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	return append(b, c.is.Sign(key, evidenceContext, b[start:])...), nil
}

// encode returns what travels.
func encode(age time.Duration, sealed []byte) []byte {
	b := make([]byte, 0, 1+binary.MaxVarintLen32+len(sealed))
	b = append(b, envelopeVersion)
	b = binary.AppendUvarint(b, uint64(min(max(age, 0), eldest)/time.Millisecond)) //nolint:gosec // not negative
	return append(b, sealed...)
}

// decode reads what travels. The parts point into b. What is sealed has one encoding.
func decode(b []byte) (envelope, error) {
	if len(b) == 0 || b[0] != envelopeVersion {
		return envelope{}, errEnvelope
	}
	age, n := binary.Uvarint(b[1:])
	if n <= 0 || age > uint64(eldest/time.Millisecond) {
		return envelope{}, errEnvelope
	}
	e := envelope{age: time.Duration(age) * time.Millisecond, sealed: b[1+n:]}
	length, n := binary.Uvarint(e.sealed)
	if n <= 0 || n > 1 && e.sealed[n-1] == 0 || length > trust.MaxCertificate || int(length) > len(e.sealed)-n-timeSize-ed25519.SignatureSize { //nolint:gosec // bounded
		return envelope{}, errEnvelope
	}
	start, end := n+int(length), len(e.sealed)-ed25519.SignatureSize //nolint:gosec // bounded
	e.certificate, e.signed, e.signature = e.sealed[n:start], e.sealed[start:end], e.sealed[end:]
	e.at, e.record = int64(binary.BigEndian.Uint64(e.signed)), e.signed[timeSize:] //nolint:gosec // what is out of range is refused by its value
	return e, nil
}
