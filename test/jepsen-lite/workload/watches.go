package workload

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// watcherKind is what a watcher makes hard for servers.
type watcherKind struct {
	name string
	// sitting is for how long it watches before it opens the next stream; 0 for as long
	// as the stream lasts.
	sitting time.Duration
	hops    bool          // the next stream is at the next server
	forgets bool          // the next stream begins without a cursor
	slow    time.Duration // between two messages
}

func watcherKinds() []watcherKind {
	return []watcherKind{
		{name: "steady"},
		{name: "resuming", sitting: 700 * time.Millisecond},
		{name: "hopping", sitting: time.Second, hops: true},
		{name: "fresh", sitting: 3 * time.Second, hops: true, forgets: true},
		{name: "slow", slow: 300 * time.Millisecond},
	}
}

// silentLimit is how long a stream may say nothing, which it promises not to do for
// progressEvery; it is long enough for a server that is paused.
const (
	progressEvery = 500 * time.Millisecond
	silentLimit   = 3 * time.Second
)

// watcher follows all flags and records what it is told.
type watcher struct {
	id     string
	kind   watcherKind
	at     int
	links  *links
	record func(record any)
	random *rand.Rand
	hurry  <-chan struct{} // closed: no more dawdling

	mu    sync.Mutex // guards the fields below
	epoch *holdfastv1.Epoch
	to    uint64
	root  []byte
	cells map[string]history.Cell
}

func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.watch(ctx); err != nil && ctx.Err() == nil {
			w.tell(history.Watch{Event: history.WatchError, Code: explain(err).code})
			w.at = (w.at + 1) % len(w.links.servers)
			pause(ctx, 50*time.Millisecond)
		} else if w.kind.hops {
			w.at = (w.at + 1) % len(w.links.servers)
		}
	}
}

func (w *watcher) tell(m history.Watch) {
	m.Watcher, m.Server, m.T = w.id, w.links.servers[w.at].ID, history.Now()
	w.record(m)
}

// watch is one stream. It returns nil when the watcher has had enough of it.
func (w *watcher) watch(ctx context.Context) error {
	state, conn, err := w.links.state(w.at)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &holdfastv1.WatchRequest{ProgressInterval: durationpb.New(progressEvery)}
	opened := history.Watch{Event: history.WatchOpen}
	w.mu.Lock()
	if w.epoch != nil && !w.kind.forgets {
		request.Cursor = &holdfastv1.Cursor{Epoch: w.epoch, Revision: w.to}
		opened.Cursor, opened.Epoch = w.to, w.epoch.GetCounter()
	}
	w.mu.Unlock()
	w.tell(opened)
	stream, err := state.Watch(ctx, request)
	if err != nil {
		return err //nolint:wrapcheck // explain reads its details
	}
	silent := time.AfterFunc(silentLimit, cancel)
	defer silent.Stop()
	var enough <-chan time.Time
	if w.kind.sitting > 0 {
		enough = time.After(time.Duration((0.5 + w.random.Float64()) * float64(w.kind.sitting)))
	}
	var chunks []*holdfastv1.WatchResponse
	for {
		message, err := stream.Recv()
		if err != nil {
			if !silent.Stop() {
				w.links.renew(w.at, conn)
			}
			return err //nolint:wrapcheck // explain reads its details
		}
		silent.Reset(silentLimit)
		chunks = append(chunks, message)
		if last(message) {
			w.install(chunks)
			chunks = nil
			select {
			case <-enough:
				return nil
			default:
			}
		}
		select {
		case <-w.hurry:
		default:
			pause(ctx, w.kind.slow)
		}
	}
}

// last tells whether a message completes what it is a part of.
func last(m *holdfastv1.WatchResponse) bool {
	switch {
	case m.GetSnapshot() != nil:
		return m.GetSnapshot().GetLast()
	case m.GetDelta() != nil:
		return m.GetDelta().GetLast()
	}
	return true
}

// install takes over what all chunks of a message say, and records it.
func (w *watcher) install(chunks []*holdfastv1.WatchResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := chunks[0]
	m := history.Watch{Epoch: first.GetEpoch().GetCounter()}
	switch {
	case first.GetSnapshot() != nil:
		m.Event, m.To, w.root = history.WatchSnapshot, first.GetSnapshot().GetRevision(), first.GetSnapshot().GetRoot()
		w.cells = make(map[string]history.Cell)
	case first.GetDelta() != nil:
		m.Event, m.From, m.To, w.root = history.WatchDelta, first.GetDelta().GetFrom(), first.GetDelta().GetTo(), first.GetDelta().GetRoot()
	default:
		m.Event, m.To, w.root = history.WatchProgress, first.GetProgress().GetRevision(), first.GetProgress().GetRoot()
	}
	for _, chunk := range chunks {
		for _, r := range append(chunk.GetSnapshot().GetResources(), chunk.GetDelta().GetPuts()...) {
			if r.GetKey().GetKind() == holdfastv1.Kind_KIND_FLAG {
				m.Cells = append(m.Cells, cellOf(r))
			}
		}
		for _, dead := range chunk.GetDelta().GetDeletes() {
			if dead.GetKey().GetKind() == holdfastv1.Kind_KIND_FLAG {
				m.Cells = append(m.Cells, history.Cell{Key: cellKey(dead.GetKey()), Absent: true, Revision: dead.GetRevision()})
			}
		}
	}
	for _, c := range m.Cells {
		if c.Absent {
			delete(w.cells, c.Key)
		} else {
			w.cells[c.Key] = c
		}
	}
	m.Root = hex.EncodeToString(w.root)
	w.epoch, w.to = first.GetEpoch(), m.To
	w.tell(m)
}

// last waits until the watcher has caught up with a place and tells what it has.
func (w *watcher) last(ctx context.Context, newest history.Place) history.End {
	for {
		if end := w.end(); !(history.Place{Epoch: end.Epoch, Revision: end.Revision}).Before(newest) {
			return end
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			end := w.end()
			end.Err = fmt.Sprintf("it did not catch up with revision %d of epoch %d", newest.Revision, newest.Epoch)
			return end
		}
	}
}

func (w *watcher) end() history.End {
	w.mu.Lock()
	defer w.mu.Unlock()
	end := history.End{
		Who: history.WhoWatcher, ID: w.id, T: history.Now(), Epoch: w.epoch.GetCounter(), Revision: w.to,
		Root: hex.EncodeToString(w.root), Complete: true,
	}
	for _, c := range w.cells {
		end.Cells = append(end.Cells, c)
	}
	return end
}
