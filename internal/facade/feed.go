package facade

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/watch"
)

// feeds are the selections that streams follow.
type feeds struct {
	views   *views
	hub     *watch.Hub
	limit   int
	encode  func(selector, *flags.View) (*shared, error)
	running sync.WaitGroup

	mu   sync.Mutex // guards open and the number of followers of each
	open map[selector]*feed
}

// feed is one selection with those who follow it. It keeps no queue: a follower
// that is slow finds only the latest moment.
type feed struct {
	feeds     *feeds
	selector  selector
	followers int // guarded by feeds.mu
	stop      context.CancelFunc
	current   atomic.Pointer[moment]
}

// moment is what is selected from a change on. All followers share it.
type moment struct {
	view    *flags.View
	version version
	// serial counts the moments of a feed; changes are those since the one before.
	serial  uint64
	changes []change
	over    chan struct{} // closed when there is a newer one

	document func() (*shared, error)
	events   func() []*structpb.Struct
}

// follow returns the feed of a selector. The caller calls leave in the end.
func (f *feeds) follow(s selector) (*feed, error) {
	now := f.views.at(s.namespace) // which may take a while
	f.mu.Lock()
	defer f.mu.Unlock()
	have, ok := f.open[s]
	if !ok {
		if len(f.open) >= f.limit {
			return nil, failf(codes.ResourceExhausted, "the streams of this server have %d different selectors, which is its limit; use another server", f.limit)
		}
		have = f.start(s, now)
		f.open[s] = have
	}
	have.followers++
	return have, nil
}

// start begins a feed. The caller holds the lock.
func (f *feeds) start(s selector, now *compiled) *feed {
	ctx, stop := context.WithCancel(context.Background())
	started := &feed{feeds: f, selector: s, stop: stop}
	started.current.Store(started.moment(now, nil, 1))
	f.running.Go(func() { started.run(ctx) })
	return started
}

// leave ends the following. The last one ends the feed.
func (f *feed) leave() {
	f.feeds.mu.Lock()
	defer f.feeds.mu.Unlock()
	if f.followers--; f.followers == 0 {
		delete(f.feeds.open, f.selector)
		f.stop()
	}
}

// now returns the latest moment.
func (f *feed) now() *moment { return f.current.Load() }

// run publishes what changes until ctx ends: the first change at once, those that
// come right after it together.
func (f *feed) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		f.watch(ctx, timer)
		// The server turned out to have another history than before.
		pause(ctx, timer, coalescing)
	}
}

func (f *feed) watch(ctx context.Context, timer *time.Timer) {
	sub, err := f.feeds.hub.Subscribe(f.selector.namespace, watch.Cursor{})
	if err != nil {
		return
	}
	defer sub.Close()
	end := time.NewTimer(time.Hour) // of the override that ends first
	defer end.Stop()
	for {
		end.Reset(f.untilEnd())
		if _, err := sub.Next(ctx, end.C); err != nil {
			return
		}
		if f.publish() {
			pause(ctx, timer, coalescing)
		}
	}
}

// untilEnd returns the time until an override ends that nobody may be there to end.
func (f *feed) untilEnd() time.Duration {
	end := f.feeds.views.at(f.selector.namespace).NextEnd()
	if end == 0 {
		return time.Hour
	}
	// A little late: whoever leads ends it at its time.
	return max(0, time.UnixMilli(end).Sub(f.feeds.views.clock())) + coalescing
}

func pause(ctx context.Context, timer *time.Timer, d time.Duration) {
	timer.Reset(d)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// publish makes a new moment, and returns true, if anything that is selected is
// not what it was.
func (f *feed) publish() bool {
	now, was := f.feeds.views.at(f.selector.namespace), f.now()
	changes := f.selector.changes(now.View, was.view)
	if len(changes) == 0 {
		return false
	}
	f.current.Store(f.moment(now, changes, was.serial+1))
	close(was.over)
	return true
}

func (f *feed) moment(now *compiled, changes []change, serial uint64) *moment {
	view := now.View
	return &moment{
		view: view, version: now.version(), serial: serial, changes: changes, over: make(chan struct{}),
		document: sync.OnceValues(func() (*shared, error) { return f.feeds.encode(f.selector, view) }),
		events:   sync.OnceValue(func() []*structpb.Struct { return eventsOf(changes) }),
	}
}

// since returns the events that lead from an earlier moment to m. Who has seen
// the moment before gets those that all share.
func (m *moment) since(s selector, seen *moment) []*structpb.Struct {
	if seen.serial+1 == m.serial {
		return m.events()
	}
	return eventsOf(s.changes(m.view, seen.view))
}

// change is what happened to a flag: "write", "update" or "delete".
type change struct{ key, kind string }

// changes are the differences between two views, by key.
func (s selector) changes(now, was *flags.View) []change {
	var list []change
	for before, after := range now.Changes(was) {
		switch had, has := s.has(before), s.has(after); {
		case !had && has:
			list = append(list, change{after.Key(), "write"})
		case had && !has:
			list = append(list, change{before.Key(), "delete"})
		case had && has && !bytes.Equal(before.Definition(), after.Definition()):
			// After a restore everything is new, though little has changed.
			list = append(list, change{after.Key(), "update"})
		}
	}
	return list
}

// eventsOf returns the data of the events that tell of changes.
func eventsOf(changes []change) []*structpb.Struct {
	var events []*structpb.Struct
	for part := range slices.Chunk(changes, eventKeys) {
		keys := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(part))}
		for _, c := range part {
			keys.Fields[c.key] = structpb.NewStructValue(&structpb.Struct{
				Fields: map[string]*structpb.Value{"type": structpb.NewStringValue(c.kind)},
			})
		}
		events = append(events, &structpb.Struct{Fields: map[string]*structpb.Value{"flags": structpb.NewStructValue(keys)}})
	}
	return events
}
