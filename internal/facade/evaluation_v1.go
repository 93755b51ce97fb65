package facade

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	evaluationv1 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1"
)

// evaluationV1 are the calls of flagd.evaluation.v1 that are no streams, for gRPC
// and Connect alike.
type evaluationV1 struct{ *service }

// resolveOld answers for one flag as v1 does, which cannot say that there is no
// value: a flag without a default is as good as missing, and a disabled one has
// the zero value.
func resolveOld[T any](ctx context.Context, s *service, r resolving, as func(flags.Value) (T, bool)) (value T, a answer, err error) {
	value, _, a, err = resolve(ctx, s, r, as)
	if err == nil && a.missing() {
		err = failf(codes.NotFound, "%s: flag %q has no default, and no rule decided", flags.FlagNotFound, a.key)
	}
	return value, a, err
}

// missing tells whether a flag is as good as missing to clients of v1.
func (a *answer) missing() bool { return a.variant == nil && a.reason != flags.Disabled }

// oldVariant returns the variant's name; empty where there is none.
func (a *answer) oldVariant() string {
	if a.variant == nil {
		return ""
	}
	return a.variant.Name
}

// ResolveAll evaluates every flag for one context. Flags that have no answer are
// left out.
func (s evaluationV1) ResolveAll(ctx context.Context, req *evaluationv1.ResolveAllRequest) (*evaluationv1.ResolveAllResponse, error) {
	q, err := s.asked(ctx, req.GetContext())
	if err != nil {
		return nil, err
	}
	answers := make(map[string]*evaluationv1.AnyFlag)
	for a := range q.all(ctx) {
		s.metrics.evaluated(&a)
		if !a.missing() {
			answers[a.key] = anyFlag(&a)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &evaluationv1.ResolveAllResponse{Flags: answers, Metadata: structOf(q.selector.metadata())}, nil
}

// anyFlag is an answer. A disabled flag has no value, so that web clients take
// the caller's default.
func anyFlag(a *answer) *evaluationv1.AnyFlag {
	f := &evaluationv1.AnyFlag{Reason: a.reason.String(), Variant: a.oldVariant(), Metadata: structOf(a.metadata)}
	if a.variant == nil {
		return f
	}
	switch v := a.variant.Value; v.Type() {
	case flags.BoolType:
		b, _ := v.AsBool()
		f.Value = &evaluationv1.AnyFlag_BoolValue{BoolValue: b}
	case flags.StringType:
		text, _ := v.AsString()
		f.Value = &evaluationv1.AnyFlag_StringValue{StringValue: text}
	case flags.IntType, flags.FloatType:
		f.Value = &evaluationv1.AnyFlag_DoubleValue{DoubleValue: nearest(v)}
	case flags.ObjectType:
		object, _ := objectOf(v)
		f.Value = &evaluationv1.AnyFlag_ObjectValue{ObjectValue: object}
	case flags.NullType, flags.ListType: // which no flag is
	}
	return f
}

// ResolveBoolean evaluates a flag that is a boolean.
func (s evaluationV1) ResolveBoolean(ctx context.Context, req *evaluationv1.ResolveBooleanRequest) (*evaluationv1.ResolveBooleanResponse, error) {
	value, a, err := resolveOld(ctx, s.service, req, flags.Value.AsBool)
	if err != nil {
		return nil, err
	}
	return &evaluationv1.ResolveBooleanResponse{
		Value: value, Reason: a.reason.String(), Variant: a.oldVariant(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveString evaluates a flag that is a string.
func (s evaluationV1) ResolveString(ctx context.Context, req *evaluationv1.ResolveStringRequest) (*evaluationv1.ResolveStringResponse, error) {
	value, a, err := resolveOld(ctx, s.service, req, flags.Value.AsString)
	if err != nil {
		return nil, err
	}
	return &evaluationv1.ResolveStringResponse{
		Value: value, Reason: a.reason.String(), Variant: a.oldVariant(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveFloat evaluates a flag that is a number.
func (s evaluationV1) ResolveFloat(ctx context.Context, req *evaluationv1.ResolveFloatRequest) (*evaluationv1.ResolveFloatResponse, error) {
	value, a, err := resolveOld(ctx, s.service, req, flags.Value.AsFloat)
	if err != nil {
		return nil, err
	}
	return &evaluationv1.ResolveFloatResponse{
		Value: value, Reason: a.reason.String(), Variant: a.oldVariant(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveInt evaluates a flag that is an integer.
func (s evaluationV1) ResolveInt(ctx context.Context, req *evaluationv1.ResolveIntRequest) (*evaluationv1.ResolveIntResponse, error) {
	value, a, err := resolveOld(ctx, s.service, req, flags.Value.AsInt)
	if err != nil {
		return nil, err
	}
	return &evaluationv1.ResolveIntResponse{
		Value: value, Reason: a.reason.String(), Variant: a.oldVariant(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveObject evaluates a flag that is an object.
func (s evaluationV1) ResolveObject(ctx context.Context, req *evaluationv1.ResolveObjectRequest) (*evaluationv1.ResolveObjectResponse, error) {
	value, a, err := resolveOld(ctx, s.service, req, objectOf)
	if err != nil {
		return nil, err
	}
	return &evaluationv1.ResolveObjectResponse{
		Value: value, Reason: a.reason.String(), Variant: a.oldVariant(), Metadata: structOf(a.metadata),
	}, nil
}

// eventsV1 makes a sender of events of a sender of messages.
func eventsV1(send func(*evaluationv1.EventStreamResponse) error) func(string, *structpb.Struct) error {
	return func(kind string, data *structpb.Struct) error {
		return send(&evaluationv1.EventStreamResponse{Type: kind, Data: data})
	}
}

// evaluationV1GRPC is flagd.evaluation.v1 on the gRPC port.
type evaluationV1GRPC struct {
	evaluationv1.UnsafeServiceServer
	evaluationV1
}

// EventStream tells when flags change.
func (s evaluationV1GRPC) EventStream(_ *evaluationv1.EventStreamRequest, stream grpc.ServerStreamingServer[evaluationv1.EventStreamResponse]) error {
	return s.eventStream(stream.Context(), eventsV1(stream.Send))
}

// evaluationV1Connect is flagd.evaluation.v1 on the HTTP port.
type evaluationV1Connect struct{ evaluationV1 }

// EventStream tells when flags change.
func (s evaluationV1Connect) EventStream(ctx context.Context, _ *evaluationv1.EventStreamRequest, stream *connect.ServerStream[evaluationv1.EventStreamResponse]) error {
	return s.eventStream(ctx, eventsV1(stream.Send))
}
