package mirror

import (
	"errors"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/seam"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

var (
	// ErrNoEpoch refuses what a server tells that has no lineage: it has not caught
	// up at all.
	ErrNoEpoch = errors.New("the server has no epoch yet")
	// ErrForeign refuses what comes from another cluster: its revisions mean nothing
	// here.
	ErrForeign = errors.New("another cluster")
	// ErrOlderEpoch refuses what is from before a restore or recovery.
	ErrOlderEpoch = errors.New("an older epoch")
	// ErrForked refuses an epoch with the number of the own one and another history.
	// It needs an operator.
	ErrForked = errors.New("a forked epoch")
	// ErrBehind refuses a revision before the own one.
	ErrBehind = errors.New("an older revision")
)

// Position is a place in the history of a namespace. The zero value is that of who
// holds nothing.
type Position struct {
	Epoch    document.Epoch
	Revision uint64
}

// Set tells whether there is something at all.
func (p Position) Set() bool { return p.Epoch.Lineage != [16]byte{} }

// String returns the position as "revision 7 of lineage/counter".
func (p Position) String() string {
	if !p.Set() {
		return "nothing"
	}
	return fmt.Sprintf("revision %d of %s", p.Revision, p.Epoch)
}

// Proto returns the wire form; nil if the position is not set.
func (p Position) Proto() *holdfastv1.Cursor {
	if !p.Set() {
		return nil
	}
	return &holdfastv1.Cursor{Epoch: p.Epoch.Proto(), Revision: p.Revision}
}

// Admits tells whether who has been at p may go to next: to the same place, a later
// revision, or a later epoch of the lineage at any revision. The errors are
// ErrNoEpoch, ErrForeign, ErrOlderEpoch, ErrForked and ErrBehind, with both places.
func (p Position) Admits(next Position) error {
	var reason error
	switch have, told := p.Epoch, next.Epoch; {
	case !next.Set():
		return ErrNoEpoch
	case !p.Set():
		return nil
	case have.Lineage != told.Lineage:
		reason = ErrForeign
	case have.Counter > told.Counter:
		reason = ErrOlderEpoch
	case have.Counter < told.Counter:
		return nil
	case have.Nonce != told.Nonce:
		reason = ErrForked
	case p.Revision > next.Revision && !seam.Bug(seam.OlderAdmitted):
		reason = ErrBehind
	default:
		return nil
	}
	return fmt.Errorf("%w: %s was told, but %s is known", reason, next, p)
}
