package facade

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
)

// documents makes the documents of selections.
type documents struct {
	limit   int
	metrics *metrics
	log     *slog.Logger

	mu sync.Mutex // guards told
	// told are the selectors whose document was too large when it was made last.
	told map[selector]bool
}

// text returns the selected flags as a document of flagd.
func (d *documents) text(s selector, view *flags.View) ([]byte, error) {
	text := appendDocument(nil, view, s)
	d.metrics.encoded.Inc()
	err := d.check(s, len(text))
	return text, err
}

// share returns the selected flags as a message for many streams.
func (d *documents) share(s selector, view *flags.View) (*shared, error) {
	text, err := d.text(s, view)
	if err != nil {
		return nil, err
	}
	message, err := newShared(text)
	if err != nil {
		return nil, err
	}
	if err := d.check(s, len(message.EncodedMessage())); err != nil {
		return nil, err
	}
	return message, nil
}

// check refuses what is too large. It is logged when it becomes so, not each time.
func (d *documents) check(s selector, size int) error {
	err := checkSize(s, size, d.limit)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		delete(d.told, s)
	case !d.told[s] && len(d.told) < maxSelectors:
		d.told[s] = true
		d.log.Error("flags are not handed out: their document is too large", "selector", s.String(), "bytes", size, "limit", d.limit)
	}
	return err
}

// syncFlags sends the document at once and after each change, until the client
// or the server ends the stream.
func (s *service) syncFlags(ctx context.Context, sel selector, send func(*shared) error) error {
	f, err := s.follow(ctx, sel, "sync")
	if err != nil {
		return err
	}
	defer f.done()
	for {
		if err := s.serving(); err != nil {
			return err
		}
		now := f.now()
		document, err := now.document()
		if err != nil {
			s.metrics.refused.Inc()
			return err
		}
		if err := send(document); err != nil {
			return err
		}
		select {
		case <-now.over:
		case <-f.ctx.Done():
			return f.ended()
		}
	}
}

// syncUnary are the calls of flagd.sync.v1 that are no streams, for gRPC and
// Connect alike.
type syncUnary struct{ *service }

// FetchAllFlags returns the document.
func (s syncUnary) FetchAllFlags(ctx context.Context, req *syncv1.FetchAllFlagsRequest) (*syncv1.FetchAllFlagsResponse, error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	sel, err := selectorOf(ctx, req.GetSelector())
	if err != nil {
		return nil, err
	}
	text, err := s.documents.text(sel, s.views.at(sel.namespace).View)
	if err != nil {
		s.metrics.refused.Inc()
		return nil, err
	}
	return &syncv1.FetchAllFlagsResponse{FlagConfiguration: string(text)}, nil
}

// GetMetadata returns nothing to merge.
func (s syncUnary) GetMetadata(context.Context, *syncv1.GetMetadataRequest) (*syncv1.GetMetadataResponse, error) {
	return &syncv1.GetMetadataResponse{Metadata: &structpb.Struct{}}, s.serving()
}

// syncGRPC is flagd.sync.v1 on the gRPC port.
type syncGRPC struct {
	syncv1.UnsafeFlagSyncServiceServer
	syncUnary
}

// SyncFlags sends the document at once and after each change.
func (s syncGRPC) SyncFlags(req *syncv1.SyncFlagsRequest, stream grpc.ServerStreamingServer[syncv1.SyncFlagsResponse]) error {
	sel, err := selectorOf(stream.Context(), req.GetSelector())
	if err != nil {
		return err
	}
	return s.syncFlags(stream.Context(), sel, func(document *shared) error { return stream.SendMsg(document) })
}
