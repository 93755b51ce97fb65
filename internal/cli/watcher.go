package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// progressInterval is how often a server says that nothing changed.
	progressInterval = 2 * time.Second
	// silence is how long a stream may say nothing before another server is asked.
	silence = 4 * progressInterval
)

// event is one change that watch prints.
type event struct {
	// change is created, updated, deleted or ended; present for what there is at
	// the start.
	change   string
	key      *holdfastv1.ResourceKey
	revision uint64
	// resource is the resource as it is now, or as it was before it went.
	resource *holdfastv1.Resource
}

// watcher follows a namespace over reconnects. Streams are coalesced, and so is
// what it tells: of several changes of one resource in a short time, the last.
type watcher struct {
	remote    *remote
	namespace string
	// known is the namespace as it was told last.
	known  map[string]*holdfastv1.Resource
	cursor *holdfastv1.Cursor
	// pending collects the chunks of a snapshot or delta.
	pending struct {
		puts    []*holdfastv1.Resource
		deletes []*holdfastv1.Tombstone
	}
	// started is called with the first snapshot's revision, connected with the
	// reason of every reconnection.
	started      func(revision uint64, resources int)
	disconnected func(err error)
	clock        func(*holdfastv1.WatchResponse)
}

// errLost ends a stream that made no sense or went silent; the next one begins
// where the last complete message left off.
var errLost = errors.New("the stream broke off")

// follow calls tell for every change until ctx ends or tell returns false. It
// reconnects, to the next server and with its cursor, for as long as it takes;
// only before the first message it gives up after the remote's timeout.
func (w *watcher) follow(ctx context.Context, tell func(event) bool) error {
	begin, pause := time.Now(), minPause
	for failures := 0; ; {
		progressed, err := w.stream(ctx, tell)
		switch {
		case ctx.Err() != nil || err == nil:
			return nil
		case !repeatable(err) && !errors.Is(err, errLost) && !errors.Is(err, io.EOF) && status.Code(err) != codes.ResourceExhausted:
			return err
		case progressed:
			failures, pause = 0, minPause
		}
		failures++
		limit := w.remote.timeout
		if !w.remote.patient {
			limit = giveUpEarly
		}
		if w.cursor == nil && time.Since(begin) > limit && failures >= len(w.remote.addrs) {
			return err
		}
		if w.cursor != nil && failures == 1 {
			w.disconnected(err)
		}
		w.remote.current = (w.remote.current + 1) % len(w.remote.addrs)
		if failures%len(w.remote.addrs) == 0 {
			if !sleep(ctx, pause/2+mathrand.N(pause/2)) {
				return nil
			}
			pause = min(2*pause, 5*time.Second)
		}
	}
}

// stream follows one stream. It tells whether a message came, and returns nil
// only when tell has had enough.
func (w *watcher) stream(ctx context.Context, tell func(event) bool) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.pending.puts, w.pending.deletes = nil, nil
	// A server that went silent without closing is left like a closed one.
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	var stream grpc.ServerStreamingClient[holdfastv1.WatchResponse]
	stream, err := holdfastv1.NewStateServiceClient(w.remote.conns[w.remote.current]).Watch(ctx, &holdfastv1.WatchRequest{
		Namespace: w.namespace, Cursor: w.cursor, ProgressInterval: durationpb.New(progressInterval),
	})
	if err != nil {
		return false, err
	}
	progressed := false
	for {
		res, err := stream.Recv()
		if err != nil {
			if status.Code(err) == codes.Canceled {
				err = errLost
			}
			return progressed, err
		}
		quiet.Reset(silence)
		progressed = true
		w.clock(res)
		more, err := w.take(res, tell)
		if err != nil || !more {
			return progressed, err
		}
	}
}

// take takes in one message. Chunks count once the last one is there.
func (w *watcher) take(res *holdfastv1.WatchResponse, tell func(event) bool) (bool, error) {
	switch {
	case res.GetSnapshot() != nil:
		s := res.GetSnapshot()
		w.pending.puts = append(w.pending.puts, s.GetResources()...)
		if !s.GetLast() {
			return true, nil
		}
		events := w.snapshot()
		first := w.cursor == nil
		w.advance(res.GetEpoch(), s.GetRevision())
		if first {
			w.started(s.GetRevision(), len(w.known))
		}
		return all(events, tell), nil
	case res.GetDelta() != nil:
		d := res.GetDelta()
		w.pending.puts = append(w.pending.puts, d.GetPuts()...)
		w.pending.deletes = append(w.pending.deletes, d.GetDeletes()...)
		if !d.GetLast() {
			return true, nil
		}
		if d.GetFrom() > w.cursor.GetRevision() {
			return true, errLost
		}
		events := w.delta()
		w.advance(res.GetEpoch(), d.GetTo())
		return all(events, tell), nil
	case res.GetProgress() != nil:
		w.advance(res.GetEpoch(), max(w.cursor.GetRevision(), res.GetProgress().GetRevision()))
	}
	return true, nil
}

// all tells events until one is enough.
func all(events []event, tell func(event) bool) bool {
	for _, e := range events {
		if !tell(e) {
			return false
		}
	}
	return true
}

// advance moves the cursor and drops the chunks.
func (w *watcher) advance(epoch *holdfastv1.Epoch, revision uint64) {
	w.cursor = &holdfastv1.Cursor{Epoch: epoch, Revision: revision}
	w.pending.puts, w.pending.deletes = nil, nil
}

// snapshot installs a snapshot and returns what it changed.
func (w *watcher) snapshot() []event {
	next := make(map[string]*holdfastv1.Resource, len(w.pending.puts))
	var events []event
	for _, r := range w.pending.puts {
		id := keyText(r.GetKey())
		next[id] = r
		old := w.known[id]
		switch {
		case w.cursor == nil:
			events = append(events, event{"present", r.GetKey(), r.GetModRevision(), r})
		case old == nil:
			events = append(events, event{document.Created.String(), r.GetKey(), r.GetModRevision(), r})
		case old.GetModRevision() != r.GetModRevision() || old.GetVersion() != r.GetVersion():
			events = append(events, event{document.Updated.String(), r.GetKey(), r.GetModRevision(), r})
		}
	}
	for id, old := range w.known {
		if next[id] == nil {
			// Whether it was deleted or ended is not known any more.
			events = append(events, event{document.Deleted.String(), old.GetKey(), 0, old})
		}
	}
	w.known = next
	byRevision(events)
	return events
}

// delta installs a delta and returns what it changed.
func (w *watcher) delta() []event {
	var events []event
	for _, r := range w.pending.puts {
		id := keyText(r.GetKey())
		change := document.Updated
		if w.known[id] == nil || w.known[id].GetCreateRevision() != r.GetCreateRevision() {
			change = document.Created
		}
		w.known[id] = r
		events = append(events, event{change.String(), r.GetKey(), r.GetModRevision(), r})
	}
	for _, t := range w.pending.deletes {
		id := keyText(t.GetKey())
		events = append(events, event{document.ChangeType(t.GetType()).String(), t.GetKey(), t.GetRevision(), w.known[id]})
		delete(w.known, id)
	}
	byRevision(events)
	return events
}

// byRevision orders events as they happened.
func byRevision(events []event) {
	slices.SortStableFunc(events, func(x, y event) int {
		if x.revision != y.revision {
			if x.revision < y.revision {
				return -1
			}
			return 1
		}
		return strings.Compare(keyText(x.key), keyText(y.key))
	})
}

// String names the event in messages.
func (e event) String() string { return fmt.Sprintf("%s %s", keyText(e.key), e.change) }
