package consensus

import (
	"fmt"
	"sync"
	"time"
)

// watchdog looks after writes that do not come back. A leader whose disk hangs
// would lead for ever: raft sends heartbeats from goroutines of their own while
// its main goroutine waits for the disk.
type watchdog struct {
	stall, fatal time.Duration
	silence      func(bool)  // true: another write hangs; false: it came back
	fail         func(error) // a write hangs for longer than fatal
}

// watched is one write under way.
type watched struct {
	dog  *watchdog
	what string

	mu       sync.Mutex // guards the fields below
	timer    *time.Timer
	ended    bool
	silenced bool
}

// watch begins a write; the caller calls end on what it returns.
func (d *watchdog) watch(what string) *watched {
	w := &watched{dog: d, what: what}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(d.stall, w.stalled)
	return w
}

func (w *watched) stalled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.silenced = true
	w.dog.silence(true)
	w.timer = time.AfterFunc(w.dog.fatal-w.dog.stall, w.lost)
}

func (w *watched) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.dog.fail(fmt.Errorf("%s: %w for %v", w.what, ErrStalled, w.dog.fatal))
	}
}

// end tells that the write came back, well or not.
func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	if w.silenced {
		w.dog.silence(false)
	}
}
