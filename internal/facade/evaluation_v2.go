package facade

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/holdfast-dev/holdfast/internal/flags"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
)

// evaluationV2 are the calls of flagd.evaluation.v2 that are no streams, for gRPC
// and Connect alike.
type evaluationV2 struct{ *service }

// given returns a value, or nil where there is none.
func given[T any](value T, ok bool) *T {
	if !ok {
		return nil
	}
	return &value
}

// variantName returns the variant's name, or nil where there is none.
func (a *answer) variantName() *string {
	if a.variant == nil {
		return nil
	}
	return &a.variant.Name
}

// ResolveBoolean evaluates a flag that is a boolean.
func (s evaluationV2) ResolveBoolean(ctx context.Context, req *evaluationv2.ResolveBooleanRequest) (*evaluationv2.ResolveBooleanResponse, error) {
	value, ok, a, err := resolve(ctx, s.service, req, flags.Value.AsBool)
	if err != nil {
		return nil, err
	}
	return &evaluationv2.ResolveBooleanResponse{
		Value: given(value, ok), Reason: a.reason.String(), Variant: a.variantName(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveString evaluates a flag that is a string.
func (s evaluationV2) ResolveString(ctx context.Context, req *evaluationv2.ResolveStringRequest) (*evaluationv2.ResolveStringResponse, error) {
	value, ok, a, err := resolve(ctx, s.service, req, flags.Value.AsString)
	if err != nil {
		return nil, err
	}
	return &evaluationv2.ResolveStringResponse{
		Value: given(value, ok), Reason: a.reason.String(), Variant: a.variantName(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveFloat evaluates a flag that is a number.
func (s evaluationV2) ResolveFloat(ctx context.Context, req *evaluationv2.ResolveFloatRequest) (*evaluationv2.ResolveFloatResponse, error) {
	value, ok, a, err := resolve(ctx, s.service, req, flags.Value.AsFloat)
	if err != nil {
		return nil, err
	}
	return &evaluationv2.ResolveFloatResponse{
		Value: given(value, ok), Reason: a.reason.String(), Variant: a.variantName(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveInt evaluates a flag that is an integer.
func (s evaluationV2) ResolveInt(ctx context.Context, req *evaluationv2.ResolveIntRequest) (*evaluationv2.ResolveIntResponse, error) {
	value, ok, a, err := resolve(ctx, s.service, req, flags.Value.AsInt)
	if err != nil {
		return nil, err
	}
	return &evaluationv2.ResolveIntResponse{
		Value: given(value, ok), Reason: a.reason.String(), Variant: a.variantName(), Metadata: structOf(a.metadata),
	}, nil
}

// ResolveObject evaluates a flag that is an object.
func (s evaluationV2) ResolveObject(ctx context.Context, req *evaluationv2.ResolveObjectRequest) (*evaluationv2.ResolveObjectResponse, error) {
	value, _, a, err := resolve(ctx, s.service, req, objectOf)
	if err != nil {
		return nil, err
	}
	return &evaluationv2.ResolveObjectResponse{
		Value: value, Reason: a.reason.String(), Variant: a.variantName(), Metadata: structOf(a.metadata),
	}, nil
}

// eventsV2 makes a sender of events of a sender of messages.
func eventsV2(send func(*evaluationv2.EventStreamResponse) error) func(string, *structpb.Struct) error {
	return func(kind string, data *structpb.Struct) error {
		return send(&evaluationv2.EventStreamResponse{Type: kind, Data: data})
	}
}

// evaluationV2GRPC is flagd.evaluation.v2 on the gRPC port.
type evaluationV2GRPC struct {
	evaluationv2.UnsafeServiceServer
	evaluationV2
}

// EventStream tells when flags change.
func (s evaluationV2GRPC) EventStream(_ *evaluationv2.EventStreamRequest, stream grpc.ServerStreamingServer[evaluationv2.EventStreamResponse]) error {
	return s.eventStream(stream.Context(), eventsV2(stream.Send))
}

// evaluationV2Connect is flagd.evaluation.v2 on the HTTP port.
type evaluationV2Connect struct{ evaluationV2 }

// EventStream tells when flags change.
func (s evaluationV2Connect) EventStream(ctx context.Context, _ *evaluationv2.EventStreamRequest, stream *connect.ServerStream[evaluationv2.EventStreamResponse]) error {
	return s.eventStream(ctx, eventsV2(stream.Send))
}
