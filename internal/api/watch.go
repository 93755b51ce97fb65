package api

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Watch follows a namespace until the client or the server ends the stream.
func (s *stateService) Watch(req *holdfastv1.WatchRequest, stream grpc.ServerStreamingServer[holdfastv1.WatchResponse]) error {
	var v violations
	namespace := v.namespace("namespace", req.GetNamespace())
	cursor := v.cursor("cursor", req.GetCursor())
	interval := v.progressInterval("progress_interval", req.GetProgressInterval())
	if err := v.err(); err != nil {
		return err
	}
	sub, err := s.hub.Subscribe(namespace, cursor)
	if err != nil {
		return err
	}
	defer sub.Close()
	// The client learns at once that the watch is open, also when there is nothing
	// to tell for a while because it is ahead of this server.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	w := &watcher{replica: s.reader.replica, encoder: s.encoder, namespace: namespace, stream: stream}
	return w.follow(stream.Context(), sub, interval)
}

// cursor checks where a watch goes on; without one it begins with a snapshot.
func (v *violations) cursor(field string, p *holdfastv1.Cursor) watch.Cursor {
	if p == nil {
		return watch.Cursor{}
	}
	epoch, err := document.EpochFromProto(p.GetEpoch())
	switch {
	case err != nil:
		v.addf(field+".epoch", "%v", err)
	case !epoch.HasLineage():
		v.addf(field+".epoch.lineage", "is not set; leave out the cursor to get a snapshot")
	}
	return watch.Cursor{Epoch: epoch, Revision: p.GetRevision(), Set: true}
}

// progressInterval returns the interval that a client gets for the one it wants.
func (v *violations) progressInterval(field string, d *durationpb.Duration) time.Duration {
	if !v.duration(field, d) || d == nil {
		return DefaultProgressInterval
	}
	return min(max(d.AsDuration(), MinProgressInterval), MaxProgressInterval)
}

// watcher sends the events of a namespace to one watch or session. The messages
// of both begin with the same fields, so the bytes do for both.
type watcher struct {
	replica   Replica
	encoder   *encoder
	namespace string
	stream    grpc.ServerStream
	// sending is told the revision before a change is sent; nil tells nobody.
	sending func(revision uint64)
	// gossip has what to send beside the events; nil for nothing.
	gossip *participant
}

// follow sends events until ctx or the stream ends, or this server must not
// answer any more.
func (w *watcher) follow(ctx context.Context, sub *watch.Sub, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	if w.gossip != nil {
		sub.WakeOn(w.gossip.woken)
	}
	for {
		if w.gossip != nil { // first of all it tells who signs the heads
			if err := w.gossip.step(ctx, w.stream); err != nil {
				return err
			}
		}
		event, err := sub.Next(ctx, ticker.C)
		if err != nil {
			return err
		}
		if err := servingError(w.replica); err != nil {
			return err
		}
		if err := w.send(ctx, event); err != nil {
			return err
		}
	}
}

func (w *watcher) send(ctx context.Context, event watch.Event) error {
	if w.sending != nil && (event.Kind == watch.Snapshot || event.Kind == watch.Delta) {
		w.sending(event.Revision)
	}
	switch event.Kind {
	case watch.Snapshot:
		return w.snapshot(ctx, event)
	case watch.Delta:
		return w.delta(ctx, event)
	case watch.Woken:
		return nil
	default:
		return w.progress(event)
	}
}

// head is what a message that is sent now begins with.
func (w *watcher) head(view *state.View) ([]byte, error) {
	return w.encoder.head(view.Epoch(), w.replica.StateTime())
}

// snapshot sends a namespace chunk by chunk. Between chunks it holds nothing but
// the view.
func (w *watcher) snapshot(ctx context.Context, event watch.Event) error {
	view := event.View
	namespace := view.Namespace(w.namespace)
	root := namespace.Root()
	var after document.Key
	for n := uint32(0); ; n++ {
		c, err := w.encoder.chunk(namespace, after)
		if err != nil {
			return err
		}
		head, err := w.head(view)
		if err != nil {
			return err
		}
		if c.last {
			head = append(head, w.proofs(event, root)...)
		}
		small := &holdfastv1.Snapshot{Revision: event.Revision, Root: root[:], Chunk: n, Last: c.last}
		f, err := snapshotFrame(head, small, c.body)
		if err != nil {
			return err
		}
		if err := w.frame(ctx, f, "snapshot"); err != nil || c.last {
			return err
		}
		after = c.end
	}
}

// delta sends the chunks that all watches of the same delta share.
func (w *watcher) delta(ctx context.Context, event watch.Event) error {
	bodies := event.Delta.Encode(w.encoder.delta)
	if len(bodies) == 0 {
		return Errorf(ReasonInternal, "the delta to revision %d cannot be encoded", event.Revision)
	}
	for i, body := range bodies {
		head, err := w.head(event.View)
		if err != nil {
			return err
		}
		if i == len(bodies)-1 {
			head = append(head, w.proofs(event, event.Delta.Delta().Root)...)
		}
		if err := w.frame(ctx, &frame{head: head, body: body}, "delta"); err != nil {
			return err
		}
	}
	return nil
}

// frame sends an encoded message. A watch that the server has ended sends no
// more, so that a long snapshot does not outlive it.
func (w *watcher) frame(ctx context.Context, f *frame, kind string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.encoder.metrics.messages.WithLabelValues(kind).Inc()
	return w.stream.SendMsg(f)
}

// progress tells that nothing is left to tell.
func (w *watcher) progress(event watch.Event) error {
	root := event.View.Namespace(w.namespace).Root()
	w.encoder.metrics.messages.WithLabelValues("progress").Inc()
	resp := &holdfastv1.WatchResponse{
		Epoch:     event.View.Epoch().Proto(),
		StateTime: timestamppb.New(w.replica.StateTime()),
		Event: &holdfastv1.WatchResponse_Progress{
			Progress: &holdfastv1.Progress{Revision: event.Revision, Root: root[:]},
		},
	}
	proofs := w.proofs(event, root)
	if len(proofs) == 0 {
		return w.stream.SendMsg(resp)
	}
	head, err := proto.Marshal(resp)
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	return w.stream.SendMsg(&frame{head: head, body: proofs})
}

// proofs returns the fields that prove where an event leaves the namespace; none for
// those who have not asked for them.
func (w *watcher) proofs(event watch.Event, root document.Root) []byte {
	return w.gossip.proofs(headKey{w.namespace, event.View.Epoch(), event.Revision, root})
}
