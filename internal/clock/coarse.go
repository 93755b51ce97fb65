package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	tick = time.Millisecond
	// busyReads in a row, each within a tick of the one before, start the ticker;
	// idleTicks more ticks that nobody read in than ticks that somebody did, stop it.
	busyReads = 16
	idleTicks = 16
)

// Coarse tells the time of a Clock cheaply: while it is read often, a goroutine
// notes the time each millisecond, and Now is a load from memory. While it is read
// rarely there is no goroutine, and Now is exact.
//
// A goroutine gets no more than what the scheduler gives it, so on a busy process
// the note is late. Exact renews it as well; whoever calls that now and then, such
// as each 64th time and wherever the time matters, bounds how often a late note is
// believed. Its methods may be called at the same time.
type Coarse struct {
	clock *Clock
	_     [120]byte    // apart from what is written
	note  atomic.Int64 // 0 while the ticker does not run
	read  atomic.Bool  // since the last tick
	_     [112]byte
	last  atomic.Int64 // the last reading while the ticker did not run
	row   atomic.Int32 // how many of them came within a tick of the one before

	mu     sync.Mutex
	closed bool
	stop   chan struct{}
	ticker sync.WaitGroup
}

// NewCoarse returns a coarse clock. It has to be closed. One over a manual clock is
// exact.
func NewCoarse(c *Clock) *Coarse { return &Coarse{clock: c, stop: make(chan struct{})} }

// Now returns about the nanoseconds since the Clock was made.
func (c *Coarse) Now() int64 {
	now := c.note.Load()
	if now == 0 {
		return c.slow()
	}
	if !c.read.Load() {
		c.read.Store(true)
	}
	return now
}

// Exact returns what the Clock tells, and notes it for Now.
func (c *Coarse) Exact() int64 {
	now := c.clock.Now()
	c.renew(now)
	return now
}

// renew notes the time if that is later than what is noted. It does nothing while
// there is no ticker, or the note would stay.
func (c *Coarse) renew(now int64) {
	for {
		was := c.note.Load()
		if was == 0 || was >= now || c.note.CompareAndSwap(was, now) {
			return
		}
	}
}

// slow reads the clock, and starts the ticker where that happens often.
func (c *Coarse) slow() int64 {
	now := c.clock.Now()
	if now-c.last.Swap(now) > int64(tick) {
		c.row.Store(0)
	} else if c.row.Add(1) >= busyReads && c.clock.manual == nil {
		c.row.Store(0)
		c.start(now)
	}
	return now
}

func (c *Coarse) start(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || now <= 0 || !c.note.CompareAndSwap(0, now) {
		return
	}
	c.ticker.Go(c.run)
}

// run notes the time until nobody asks for it any more.
func (c *Coarse) run() {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	for left := idleTicks; left > 0; {
		select {
		case <-c.stop:
			left = 0
			continue
		case <-ticks.C:
		}
		if c.read.Swap(false) {
			left = min(left+1, idleTicks)
		} else {
			left--
		}
		c.renew(c.clock.Now())
	}
	c.note.Store(0)
}

// Close stops the ticker and waits for it. Afterwards Now is exact.
func (c *Coarse) Close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.stop)
	}
	c.mu.Unlock()
	c.ticker.Wait()
}
