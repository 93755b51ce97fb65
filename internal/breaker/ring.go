package breaker

import "sync/atomic"

const (
	slots     = 10 // slices of a window
	countBits = 30
	countMask = 1<<countBits - 1
	// full leaves room for the adders that have looked and not yet added.
	full = 1 << (countBits - 1)
)

// ring counts what happened in each of the last slices of time. A slot is one
// word, [slice:34 | count:30]: a slot whose slice is too old counts for nothing,
// and whoever needs it next takes it over, so that nobody has to clear anything.
// Slices come round after 2^34 of them: five years, in a window of 100 ms.
//
// A writer that sleeps for a whole window between its look and its add counts in
// the slice that has taken the slot over: one result, a window late.
type ring struct {
	slot [slots]atomic.Uint64
	past atomic.Uint64 // what slots held that were taken over
}

// add counts one in a slice. It counts nowhere if its slot already belongs to the
// slice one window later.
func (r *ring) add(slice uint64) {
	slot := &r.slot[slice%slots]
	if n := slot.Load() ^ slice<<countBits; n <= countMask { // the same slice
		if n < full {
			slot.Add(1)
		}
		return
	}
	r.take(slot, slice)
}

// take adds to a slot that belonged to another slice when it was looked at. One of
// two windows ahead or more is not late: the clock has been set back.
func (r *ring) take(slot *atomic.Uint64, slice uint64) {
	for {
		w := slot.Load()
		switch ahead(w, slice) {
		case 0:
			if w&countMask >= full || slot.CompareAndSwap(w, w+1) {
				return
			}
		case slots:
			return
		default:
			if slot.CompareAndSwap(w, slice<<countBits|1) {
				r.past.Add(w & countMask)
				return
			}
		}
	}
}

// ahead tells by how many slices a slot is ahead of slice.
func ahead(w, slice uint64) int64 {
	return int64(w&^countMask-slice<<countBits) >> countBits //nolint:gosec // a difference of tags, modulo their range
}

// sum counts what is in the window that ends with slice. Writers whose time is a
// little ahead of the reader's count as well.
func (r *ring) sum(slice uint64) uint64 { return r.recent(slice, slots) }

// recent counts what is in so many slices of the window, up to slots.
func (r *ring) recent(slice, most uint64) uint64 {
	var n uint64
	for i := range r.slot {
		w := r.slot[i].Load()
		if d := ahead(w, slice); -int64(most) < d && d < slots { //nolint:gosec // up to slots
			n += w & countMask
		}
	}
	return n
}

// total counts everything that ever was.
func (r *ring) total() uint64 {
	n := r.past.Load()
	for i := range r.slot {
		n += r.slot[i].Load() & countMask
	}
	return n
}

// carry starts a ring with what another counts, as if it had all been in slice.
func (r *ring) carry(n, past uint64, slice uint64) {
	r.slot[slice%slots].Store(slice<<countBits | min(n, full))
	r.past.Store(past)
}
