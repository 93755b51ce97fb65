package fleet

import (
	"maps"
	"sync/atomic"
)

// StoreMetrics are totals since a store was made, but for Records.
type StoreMetrics struct {
	// Records are held now.
	Records int
	// Merged were news. Stale ones were known or older than what is known; Late ones
	// had expired on the way; Fast ones came faster than one instance may tell.
	Merged, Stale, Late, Fast uint64
	// Malformed could not be read, Oversize were too large, Foreign were of another
	// namespace or, from a session, of another instance; Forged had a signature that is
	// not right, Unknown a certificate of a signer that is not known, Expired one whose
	// time is up; Full found no room among the records held.
	Malformed, Oversize, Foreign, Forged, Unknown, Expired, Full uint64
	// Busy ones came when more were to be verified than there is time for.
	Busy uint64
}

// outcome is what became of a record that was handed in.
type outcome uint8

const (
	merged outcome = iota
	stale
	late
	fast
	malformed
	oversize
	foreign
	forged
	unknown
	expired
	full
	busy
	outcomes
)

type tally [outcomes]atomic.Uint64

func (t *tally) metrics(records int) StoreMetrics {
	n := func(o outcome) uint64 { return t[o].Load() }
	return StoreMetrics{
		Records: records, Merged: n(merged), Stale: n(stale), Late: n(late), Fast: n(fast),
		Malformed: n(malformed), Oversize: n(oversize), Foreign: n(foreign), Forged: n(forged), Unknown: n(unknown), Expired: n(expired),
		Full: n(full), Busy: n(busy),
	}
}

// Refused returns the totals of what was not let in, by why, in words. What was known
// already is not among it.
func (m *StoreMetrics) Refused() map[string]uint64 {
	all := map[string]uint64{
		"late": m.Late, "fast": m.Fast, "malformed": m.Malformed, "oversize": m.Oversize, "foreign": m.Foreign,
		"forged": m.Forged, "unknown signer": m.Unknown, "expired": m.Expired, "full": m.Full, "busy": m.Busy,
	}
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all
}
