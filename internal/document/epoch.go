package document

import (
	"encoding/hex"
	"fmt"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Epoch tells one history of revisions from another. The zero value is that of
// who has no lineage yet.
type Epoch struct {
	// Lineage is drawn once per cluster and kept by backups.
	Lineage [16]byte
	// Counter is raised by every restore and every recovery of a lost quorum.
	Counter uint64
	// Nonce is drawn anew whenever the counter is raised.
	Nonce uint64
}

// HasLineage tells whether the epoch belongs to a cluster at all.
func (e Epoch) HasLineage() bool { return e.Lineage != [16]byte{} }

// String returns the epoch as "lineage/counter".
func (e Epoch) String() string {
	return fmt.Sprintf("%s/%d", hex.EncodeToString(e.Lineage[:4]), e.Counter)
}

// Proto returns the wire form.
func (e Epoch) Proto() *holdfastv1.Epoch {
	p := &holdfastv1.Epoch{Counter: e.Counter, Nonce: e.Nonce}
	if e.HasLineage() {
		p.Lineage = e.Lineage[:]
	}
	return p
}

// EpochFromProto reads an epoch from its wire form; unset is the zero value.
func EpochFromProto(p *holdfastv1.Epoch) (Epoch, error) {
	e := Epoch{Counter: p.GetCounter(), Nonce: p.GetNonce()}
	switch len(p.GetLineage()) {
	case 0:
	case len(e.Lineage):
		copy(e.Lineage[:], p.GetLineage())
	default:
		return Epoch{}, fmt.Errorf("read epoch: lineage has %d bytes instead of %d", len(p.GetLineage()), len(e.Lineage))
	}
	return e, nil
}
