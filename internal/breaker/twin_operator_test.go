package breaker

import (
	"time"
)

func (t *twin) force(now int64, open bool) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := ForcedClosed
	if open {
		to = ForcedOpen
	}
	if t.state == to {
		return nil
	}
	return t.change(now, Forced, func() { t.begin(now, to) })
}

func (t *twin) release(now int64) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state {
	case ForcedOpen:
		return t.change(now, Released, func() {
			t.begin(now, Open)
			t.until, t.own = now, now
			t.opened, t.openedBy, t.probed = Counts{}, Released, NoProbe
		})
	case ForcedClosed:
		return t.change(now, Released, func() {
			results, neutral, overload, rejected := t.results, t.neutral, t.overload, t.rejected
			t.begin(now, Closed)
			t.results, t.neutral, t.overload, t.rejected = results, neutral, overload, rejected
		})
	default:
		return nil
	}
}

func (t *twin) openFor(now int64, generation uint64, lease uint32, pause time.Duration) *Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, held := t.leases[lease]; generation != t.generation || t.state == HalfOpen && !held {
		t.stale++
		return nil
	}
	t.results = append(t.results, twinResult{at: now, failed: true})
	if t.state == ForcedClosed {
		return nil
	}
	return t.change(now, Ordered, func() {
		t.opening(now, now+int64(min(pause, t.s.MaxTimeout)), Ordered)
		t.ordered = true
	})
}

func (t *twin) configure(now int64, s Settings) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Window != t.s.Window {
		in := len(t.inWindow(now))
		for i := range t.results {
			if i < len(t.results)-in {
				t.results[i].gone = true
			} else {
				t.results[i].at = now
			}
		}
	}
	t.s = s
}
