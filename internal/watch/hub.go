package watch

import (
	"sync"
	"sync/atomic"

	"github.com/holdfast-dev/holdfast/internal/seam"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// Hub shows views to subscribers. One goroutine publishes; any number subscribe.
//
// Lock order: Hub.mu, then space.mu.
type Hub struct {
	view atomic.Pointer[state.View]
	// late rings at each publication. Those listen whose cursor is ahead of the
	// view: any next view may be the one that they wait for.
	late *bell

	mu     sync.Mutex // guards spaces and the number of subscribers in each
	spaces map[string]*space

	counters counters
}

// NewHub returns a hub that shows v.
func NewHub(v *state.View) *Hub {
	h := &Hub{late: newBell(), spaces: make(map[string]*space)}
	h.view.Store(v)
	return h
}

// View returns the view that was published last.
func (h *Hub) View() *state.View { return h.view.Load() }

// Publish shows a newer view and wakes the subscribers of the namespaces that
// were touched, all of them when the epoch is another one, and those whose cursor
// is ahead in any case. It never waits for a subscriber and takes time in the
// number of namespaces, not of subscribers. Only the applying goroutine may call
// it.
func (h *Hub) Publish(v *state.View, touched []string) {
	old := h.view.Swap(v)
	h.counters.published.Add(1)
	h.late.ring()
	h.mu.Lock()
	defer h.mu.Unlock()
	if old.Epoch() != v.Epoch() {
		for _, s := range h.spaces {
			s.bell.ring()
		}
		return
	}
	for _, name := range touched {
		if s, ok := h.spaces[name]; ok {
			s.bell.ring()
		}
	}
}

// Subscribe opens a subscription to a namespace from a cursor on. It refuses a
// cursor with ErrForeignLineage or ErrForkedEpoch. The subscription must be
// closed.
func (h *Hub) Subscribe(namespace string, c Cursor) (*Sub, error) {
	v := h.view.Load()
	if _, err := c.compare(v, false); err != nil {
		h.counters.refused(err)
		return nil, err
	}
	if seam.Bug(seam.ResumesFromNow) && c.Epoch == v.Epoch() {
		c.Revision = max(c.Revision, v.Revision())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.spaces[namespace]
	if !ok {
		s = newSpace(namespace)
		h.spaces[namespace] = s
	}
	s.subscribers++
	h.counters.watchers.Add(1)
	native := c.Set && c.Epoch.Lineage == v.Epoch().Lineage
	return &Sub{hub: h, space: s, cursor: c, native: native}, nil
}

// leave ends a subscription.
func (h *Hub) leave(s *space) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counters.watchers.Add(-1)
	if s.subscribers--; s.subscribers == 0 {
		delete(h.spaces, s.name)
	}
}

// Watchers returns the number of open subscriptions.
func (h *Hub) Watchers() int { return int(h.counters.watchers.Load()) }
