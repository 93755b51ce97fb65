package facade

import (
	"context"
	"errors"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/watch"
)

// service is what all protocols have in common.
type service struct {
	replica   Replica
	views     *views
	feeds     *feeds
	streams   *streams
	metrics   *metrics
	documents *documents
	now       func() time.Time
	keepAlive time.Duration
	catchUp   time.Duration
}

// question begins the answer to a call.
func (s *service) question(sel selector, attributes []flags.Attribute) *question {
	return &question{view: s.views.at(sel.namespace).View, selector: sel, now: s.now().Unix(), attributes: attributes}
}

// await returns once this server has a version of a namespace, of which the client
// has heard from another one, or is taking too long to get it.
func (s *service) await(ctx context.Context, namespace string, want version) {
	if !s.views.at(namespace).version().before(want) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.catchUp)
	defer cancel()
	sub, err := s.feeds.hub.Subscribe(namespace, watch.Cursor{})
	if err != nil {
		return
	}
	defer sub.Close()
	for s.views.at(namespace).version().before(want) {
		if _, err := sub.Next(ctx, nil); err != nil {
			return
		}
	}
}

// asked begins the answer to a call of gRPC or Connect.
func (s *service) asked(ctx context.Context, context *structpb.Struct) (*question, error) {
	if err := servingError(s.replica); err != nil {
		return nil, err
	}
	sel, err := selectorOf(ctx, "")
	if err != nil {
		return nil, err
	}
	attributes, err := attributesOf(context)
	if err != nil {
		return nil, failf(codes.InvalidArgument, "INVALID_CONTEXT: %v", err)
	}
	return s.question(sel, attributes), nil
}

// selectorOf reads the selector of a call: of its headers, else of the request.
func selectorOf(ctx context.Context, field string) (selector, error) {
	text := field
	if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
		if values := info.RequestHeader().Values(selectorHeader); len(values) > 0 {
			text = values[0]
		}
	} else if values := metadata.ValueFromIncomingContext(ctx, strings.ToLower(selectorHeader)); len(values) > 0 {
		text = values[0]
	}
	s, err := parseSelector(text)
	if err != nil {
		return s, failf(codes.InvalidArgument, "%v", err)
	}
	return s, nil
}

// resolving is a request for one flag.
type resolving interface {
	GetFlagKey() string
	GetContext() *structpb.Struct
}

// resolve answers for one flag of a type; ok tells that there is a value. Where
// there is none, the caller's default applies.
func resolve[T any](ctx context.Context, s *service, r resolving, as func(flags.Value) (T, bool)) (value T, ok bool, a answer, err error) {
	q, err := s.asked(ctx, r.GetContext())
	if err != nil {
		return value, false, a, err
	}
	a = q.ask(r.GetFlagKey())
	value, ok = typed(&a, as)
	s.metrics.evaluated(&a)
	return value, ok, a, a.err()
}

// objectOf returns the value of a flag that is an object.
func objectOf(v flags.Value) (*structpb.Struct, bool) {
	members, ok := v.Members()
	if !ok {
		return nil, false
	}
	return structOf(members), true
}

// follower is a stream that follows a selection.
type follower struct {
	*feed
	ctx   context.Context //nolint:containedctx // of the stream, as long as the follower
	leave func()
}

// follow begins a stream. The caller calls done when it is over.
func (s *service) follow(ctx context.Context, sel selector, kind string) (*follower, error) {
	if err := servingError(s.replica); err != nil {
		return nil, err
	}
	ctx, leave, err := s.streams.enter(ctx)
	if err != nil {
		return nil, err
	}
	f, err := s.feeds.follow(sel)
	if err != nil {
		leave()
		return nil, err
	}
	s.metrics.streams.WithLabelValues(kind).Inc()
	return &follower{feed: f, ctx: ctx, leave: func() {
		f.leave()
		leave()
		s.metrics.streams.WithLabelValues(kind).Dec()
	}}, nil
}

func (f *follower) done() { f.leave() }

// ended returns why the server ended the stream; nil if the client did.
func (f *follower) ended() error {
	cause := context.Cause(f.ctx)
	if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
		return nil
	}
	return cause
}

// serving tells what keeps the state from being shown. A stream asks before it
// shows anything.
func (s *service) serving() error { return servingError(s.replica) }
