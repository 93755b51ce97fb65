package bulkhead

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Why there was no place.
var (
	// ErrFull says that all places are taken and no more calls may wait, or that a
	// waiting call had to make room for a more important one.
	ErrFull = errors.New("the bulkhead is full")
	// ErrTimeout says that no place became free within max_wait.
	ErrTimeout = errors.New("the bulkhead had no place in time")
)

// Bulkhead is a number of places; calls take some and give them back. Calls that
// find too few wait in a bounded queue for a bounded time, the most important first,
// among equals the first. A nil Bulkhead and one whose MaxConcurrent is 0 have places
// without end. Its methods may be called at the same time.
//
// A call that needs more places than there are takes them all: it runs alone.
type Bulkhead struct {
	// What each call reads, apart from what it writes.
	limit    atomic.Int64
	adaptive atomic.Bool
	queues   atomic.Bool
	_        [48]byte

	// state is one word, [waiting calls:24 | places taken:40]. Who gives places back
	// sees in the same instant whether somebody waits for them, and nobody passes
	// those who wait.
	state atomic.Int64
	_     [56]byte

	full   atomic.Uint64 // calls that did not come into the queue
	sample sample

	mu       sync.Mutex
	settings policy.Bulkhead
	adapted  policy.AdaptiveLimit
	queue    queue
	use      Use // what is counted under mu
}

const (
	useBits = 40
	useMask = 1<<useBits - 1
	waiting = 1 << useBits // one call that waits
)

// Use is what a bulkhead has seen: the places there are now (0 for no bound) and
// those taken; the calls that wait now; and since it was made, the calls that Acquire
// rejected because it was full or because they waited too long, those that gave up
// waiting, and those that got their place after waiting, with the time that they
// waited in all.
type Use struct {
	Limit, InUse, Queued         int
	Full, TimedOut, Gone, Waited uint64
	WaitTime                     time.Duration
}

// New returns a bulkhead with MaxConcurrent places, a queue of MaxQueue and a wait
// of up to MaxWait. An Adaptive one begins with fewer places. The other settings are
// not its own.
func New(p policy.Bulkhead) *Bulkhead {
	b := new(Bulkhead)
	b.Configure(p)
	return b
}

// Configure exchanges the settings. Calls that have places keep them; calls that
// wait keep their time, and those beyond a shorter queue get ErrFull, the least
// important and newest first.
func (b *Bulkhead) Configure(p policy.Bulkhead) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if was := b.settings; p.Adaptive && (!was.Adaptive || was.MinConcurrent != p.MinConcurrent || was.MaxConcurrent != p.MaxConcurrent) {
		b.adapted = p.StartLimit()
	}
	b.settings = p
	b.adaptive.Store(p.Adaptive && p.MaxConcurrent > 0)
	b.queues.Store(p.MaxQueue > 0 && p.MaxWait > 0)
	for b.queue.len() > max(p.MaxQueue, 0) {
		b.leave(b.queue.last(), ErrFull, &b.use.Full)
	}
	b.setLimit()
}

// setLimit makes the settings' limit, or the adapted one, hold.
func (b *Bulkhead) setLimit() {
	limit := int64(b.settings.MaxConcurrent)
	switch {
	case limit <= 0:
		limit = math.MaxInt64
	case b.settings.Adaptive:
		limit = int64(b.adapted.Limit)
	}
	b.limit.Store(limit)
	b.grant()
}

// fits tells whether so many more may be taken.
func (b *Bulkhead) fits(taken, weight int64) bool {
	return taken+weight <= b.limit.Load() || taken == 0
}

// places returns how many places a call takes: any number that is one.
func places(weight int) int64 {
	const most = 1 << 20 // so that sums stay within useBits
	return int64(min(max(weight, 1), most))
}

// TryAcquire takes places, at least one, if so many are free and nobody waits. Each
// success needs one Release of as many. What it refuses is counted nowhere: an
// Acquire may follow.
func (b *Bulkhead) TryAcquire(weight int) bool { return b == nil || b.take(places(weight)) }

func (b *Bulkhead) take(weight int64) bool {
	for {
		state := b.state.Load()
		if !b.fits(state, weight) { // with calls that wait it is beyond any limit
			return false
		}
		if b.state.CompareAndSwap(state, state+weight) {
			return true
		}
	}
}

// Acquire takes places, and waits for them if the queue has room. The error is nil,
// ErrFull, ErrTimeout or that of the context, at which it looks only to wait. nil
// needs one Release of as many places.
func (b *Bulkhead) Acquire(ctx context.Context, weight int, p Priority) error {
	if b.TryAcquire(weight) {
		return nil
	}
	if b.queues.Load() {
		if w, patience := b.join(places(weight), p); w != nil {
			return b.wait(ctx, w, patience)
		}
	}
	b.full.Add(1)
	return ErrFull
}

// join puts a call at the end of its class of the queue, if need be in place of a
// less important one; it returns nil if it may not wait.
func (b *Bulkhead) join(weight int64, p Priority) (w *waiter, patience time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.queue.len() >= b.settings.MaxQueue {
		last := b.queue.last()
		if last == nil || last.rank >= p.rank() {
			return nil, 0
		}
		b.leave(last, ErrFull, &b.use.Full)
	}
	w = b.queue.push(weight, p.rank(), time.Now())
	b.state.Add(waiting)
	b.grant()
	return w, b.settings.MaxWait
}

func (b *Bulkhead) wait(ctx context.Context, w *waiter, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-w.told:
		return err
	case <-ctx.Done():
		return b.giveUp(w, ctx.Err(), &b.use.Gone)
	case <-timer.C:
		return b.giveUp(w, ErrTimeout, &b.use.TimedOut)
	}
}

// giveUp ends the wait of a call, with err unless it was just told something else.
func (b *Bulkhead) giveUp(w *waiter, err error, count *uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.in != nil {
		b.leave(w, err, count)
		b.grant() // it may have stood before some that fit
	}
	return <-w.told
}

// leave takes a call that waits out of the queue, without a place.
func (b *Bulkhead) leave(w *waiter, err error, count *uint64) {
	b.queue.remove(w)
	b.state.Add(-waiting)
	*count++
	w.told <- err
}

// grant gives free places to those who wait, in their order.
func (b *Bulkhead) grant() {
	for w := b.queue.first(); w != nil; {
		state := b.state.Load()
		if !b.fits(state&useMask, w.weight) {
			return
		}
		if b.state.CompareAndSwap(state, state+w.weight-waiting) {
			b.queue.remove(w)
			b.use.Waited++
			b.use.WaitTime += time.Since(w.since)
			w.told <- nil
			w = b.queue.first()
		}
	}
}

// Release gives places back.
func (b *Bulkhead) Release(weight int) {
	if b == nil {
		return
	}
	if b.state.Add(-places(weight)) > useMask {
		b.mu.Lock()
		b.grant()
		b.mu.Unlock()
	}
}

// Use returns what the bulkhead has seen.
func (b *Bulkhead) Use() Use {
	if b == nil {
		return Use{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	use := b.use
	use.InUse, use.Queued = int(b.state.Load()&useMask), b.queue.len()
	use.Full += b.full.Load()
	if limit := b.limit.Load(); limit != math.MaxInt64 {
		use.Limit = int(limit)
	}
	return use
}
