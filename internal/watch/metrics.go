package watch

import (
	"errors"
	"sync/atomic"
)

// Metrics are plain counters since the hub was made, and the open subscriptions.
type Metrics struct {
	Watchers  int64
	Published uint64
	// Snapshots, Deltas and Progress count events; Encoded counts the deltas
	// that were encoded, which is less where subscribers share them.
	Snapshots, Deltas, Progress, Encoded uint64
	// Foreign and Forked count refused cursors. A forked epoch needs an operator.
	Foreign, Forked uint64
}

// counters are the hub's own, changed by any goroutine.
type counters struct {
	watchers                             atomic.Int64
	published                            atomic.Uint64
	snapshots, deltas, progress, encoded atomic.Uint64
	foreign, forked                      atomic.Uint64
}

func (c *counters) refused(err error) {
	switch {
	case errors.Is(err, ErrForeignLineage):
		c.foreign.Add(1)
	case errors.Is(err, ErrForkedEpoch):
		c.forked.Add(1)
	}
}

// Metrics returns the hub's figures.
func (h *Hub) Metrics() Metrics {
	c := &h.counters
	return Metrics{
		Watchers:  c.watchers.Load(),
		Published: c.published.Load(),
		Snapshots: c.snapshots.Load(),
		Deltas:    c.deltas.Load(),
		Progress:  c.progress.Load(),
		Encoded:   c.encoded.Load(),
		Foreign:   c.foreign.Load(),
		Forked:    c.forked.Load(),
	}
}
