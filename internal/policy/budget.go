package policy

import (
	"math"
	"sync/atomic"
)

// budgetSlices are the slices of time in a window. What is counted is as exact as
// one of them.
const budgetSlices = 20

// RetryBudget bounds the retries of a dependency, all its methods together: when one
// is given, the retries of the Window that ends there are at most Ratio × its calls
// plus MinPerSecond × Window, rounded down. Calls count up to a slice, a twentieth of
// Window, too short and retries up to one too long, so never more.
//
// Its methods may be called at the same time and wait for nobody; now is in
// nanoseconds, not negative, of any clock that does not go back.
type RetryBudget struct {
	book    atomic.Pointer[retryBook]
	refused atomic.Uint64
}

// BudgetUse is what a budget has seen: the Calls and Retries of the window as it
// counts them and the retries that it Allowed in it, and since the budget was made,
// the retries that it gave and refused.
type BudgetUse struct {
	Calls, Retries, Allowed uint64
	Taken, Refused          uint64
}

// retryBook is an immutable account of the retries given, beside the calls, which are
// counted in place. Each retry makes a new one, in a single compare-and-swap, so that
// nobody overdraws.
type retryBook struct {
	Budget
	width   int64 // of a slice, in ns
	calls   *tallies
	newest  int64                    // the slice that retries ends with
	retries [budgetSlices + 1]uint32 // of slice s at s % len
	taken   uint64
}

func newRetryBook(b Budget) *retryBook {
	return &retryBook{Budget: b, width: max(int64(b.Window)/budgetSlices, 1), calls: new(tallies)}
}

// NewRetryBudget returns a budget of which nothing is used.
func NewRetryBudget(b Budget) *RetryBudget {
	r := new(RetryBudget)
	r.book.Store(newRetryBook(b))
	return r
}

// Configure exchanges the settings and keeps what was seen. Where the window
// changes, that counts as new, since how old it is gets lost, and of a longer window
// only in proportion; calls that are counted in the same instant may be lost.
func (r *RetryBudget) Configure(now int64, b Budget) {
	for {
		old := r.book.Load()
		next := newRetryBook(b)
		next.taken = old.taken
		if next.width == old.width {
			next.calls, next.newest, next.retries = old.calls, old.newest, old.retries
		} else {
			keep := min(float64(next.width)/float64(old.width), 1)
			next.newest = now / next.width
			next.calls[0].set(next.newest, uint64(keep*float64(old.calls.sum(now/old.width))))
			*next.slot(next.newest) = uint32(math.Ceil(keep * float64(old.sum(now/old.width))))
		}
		if r.book.CompareAndSwap(old, next) {
			return
		}
	}
}

// Call counts a call: once for each, not for its retries and hedges. Callers on
// different cores do not wait for each other if they come with different hints, any
// numbers.
func (r *RetryBudget) Call(now int64, hint uint64) {
	book := r.book.Load()
	book.calls[hint%budgetStripes].add(now / book.width)
}

// Take asks for one more attempt, a retry or a hedge, and counts it if it is given.
func (r *RetryBudget) Take(now int64) bool {
	for {
		book := r.book.Load()
		slice := now / book.width
		if book.sum(slice) >= book.allowed(slice) {
			r.refused.Add(1)
			return false
		}
		if r.book.CompareAndSwap(book, book.with(slice)) {
			return true
		}
	}
}

// Use returns what the budget has seen.
func (r *RetryBudget) Use(now int64) BudgetUse {
	book := r.book.Load()
	slice := now / book.width
	return BudgetUse{
		Calls: book.calls.sum(slice), Retries: book.sum(slice), Allowed: book.allowed(slice),
		Taken: book.taken, Refused: r.refused.Load(),
	}
}

func (b *retryBook) slot(slice int64) *uint32 { return &b.retries[slice%int64(len(b.retries))] }

// sum counts the retries of a window that ends within slice, and of a little more.
func (b *retryBook) sum(slice int64) uint64 {
	var n uint64
	for s := max(slice-budgetSlices, b.newest-budgetSlices, 0); s <= b.newest; s++ {
		n += uint64(*b.slot(s))
	}
	return n
}

func (b *retryBook) allowed(slice int64) uint64 {
	const rounding = 1e-9 // 0.29 × 100 is 29
	return uint64(b.Ratio*float64(b.calls.sum(slice)) + b.MinPerSecond*b.Window.Seconds() + rounding)
}

// with returns the book with one more retry. One that comes late counts as new.
func (b *retryBook) with(slice int64) *retryBook {
	next := *b
	for s := max(b.newest+1, slice-budgetSlices); s <= slice; s++ {
		*next.slot(s) = 0
	}
	next.newest = max(b.newest, slice)
	*next.slot(next.newest)++
	next.taken++
	return &next
}

// tallies are what all callers count. Each call is in one of them, so that a sum is
// never more than what was counted.
type tallies [budgetStripes]struct {
	tally
	_ [128 - budgetSlices*8%128]byte // a line and its neighbour
}

const budgetStripes = 8

func (t *tallies) sum(slice int64) uint64 {
	var n uint64
	for i := range t {
		n += t[i].sum(slice)
	}
	return n
}

// tally counts calls by slices of time. A slot is one word, [slice:34 | count:30]:
// what is left there of an older slice counts for nothing, and who needs the slot
// takes it over. A writer that sleeps for a whole window between its look and its
// add counts late.
type tally struct {
	slot [budgetSlices]atomic.Uint64
}

const (
	tallyBits = 30
	tallyMask = 1<<tallyBits - 1
	// tallyFull leaves room for the adders that have looked and not yet added.
	tallyFull = 1 << (tallyBits - 1)
)

func (t *tally) at(slice int64) (slot *atomic.Uint64, tag uint64) {
	s := uint64(slice) //nolint:gosec // time is not negative
	return &t.slot[s%budgetSlices], s << tallyBits
}

// add counts one, unless its slot belongs to a later slice.
func (t *tally) add(slice int64) {
	slot, tag := t.at(slice)
	for {
		word := slot.Load()
		switch {
		case word-tag < tallyFull:
			slot.Add(1)
			return
		case word >= tag: // full, or of a later slice
			return
		case slot.CompareAndSwap(word, tag|1):
			return
		}
	}
}

// set makes n what was counted in a slice.
func (t *tally) set(slice int64, n uint64) {
	slot, tag := t.at(slice)
	slot.Store(tag | min(n, tallyFull))
}

// sum counts what is in the window that ends within slice, which is a little
// shorter than a whole one.
func (t *tally) sum(slice int64) uint64 {
	var n uint64
	for i := range t.slot {
		word := t.slot[i].Load()
		if int64(word>>tallyBits) > slice-budgetSlices { //nolint:gosec // 34 bits
			n += word & tallyMask
		}
	}
	return n
}
