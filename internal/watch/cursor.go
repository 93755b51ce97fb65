package watch

import (
	"errors"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
)

var (
	// ErrForeignLineage refuses a cursor of another cluster: its revisions mean
	// nothing here.
	ErrForeignLineage = errors.New("cursor of another cluster")
	// ErrForkedEpoch refuses a cursor of the same epoch with another history: two
	// servers have begun the epoch independently. It needs an operator.
	ErrForkedEpoch = errors.New("cursor of a forked epoch")
)

// ForeignLineageError is ErrForeignLineage with the epoch of this server.
type ForeignLineageError struct{ Here document.Epoch }

// Error implements error.
func (e *ForeignLineageError) Error() string {
	return fmt.Sprintf("%s: this one is %s", ErrForeignLineage, e.Here)
}

// Unwrap returns ErrForeignLineage.
func (e *ForeignLineageError) Unwrap() error { return ErrForeignLineage }

// Cursor is a place in the history of a namespace. The zero value is that of a
// subscriber that has nothing.
type Cursor struct {
	Epoch    document.Epoch
	Revision uint64
	// Set is false when the subscriber has nothing.
	Set bool
}

// standing is how a cursor compares with a view.
type standing int

const (
	level  standing = iota // same epoch, and the view is not behind
	behind                 // the view is of a later epoch, or the cursor has nothing
	ahead                  // the view is still behind the cursor
)

// compare compares the cursor with a view. Native tells that the cursor was of
// this cluster before: a change of the lineage is a restore then, not a stranger.
func (c *Cursor) compare(v *state.View, native bool) (standing, error) {
	if !c.Set {
		return behind, nil
	}
	have, here := c.Epoch, v.Epoch()
	switch {
	case have == here && c.Revision > v.Revision():
		return ahead, nil
	case have == here:
		return level, nil
	case !here.HasLineage(): // a server that has not caught up at all
		return ahead, nil
	case !have.HasLineage():
		return behind, nil
	case have.Lineage != here.Lineage && native:
		return behind, nil
	case have.Lineage != here.Lineage:
		return 0, &ForeignLineageError{here}
	case have.Counter > here.Counter:
		return ahead, nil
	case have.Counter < here.Counter:
		return behind, nil
	default:
		return 0, ErrForkedEpoch
	}
}
