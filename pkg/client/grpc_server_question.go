package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/holdfast-dev/holdfast/internal/degrade"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/replies"
)

// degradeUnary handles a call that a level of a mode degrades or may degrade later.
func (s *server) degradeUnary(ctx context.Context, t *target, set *guard.Setting, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	q := &serverQuestion{ctx: ctx, target: t, req: req}
	by, err := t.point.Before(ctx, set, q)
	if err != nil {
		return nil, err
	}
	if by != "" {
		_ = MarkDegraded(ctx, by) // an answer without its mark is better than none
		return q.reply, nil
	}
	if len(set.Recordings) == 0 {
		return s.admitUnary(ctx, t, set, req, info, handler)
	}
	witness := &headerWitness{ServerTransportStream: grpc.ServerTransportStreamFromContext(ctx)}
	if witness.ServerTransportStream != nil {
		ctx = grpc.NewContextWithServerTransportStream(ctx, witness)
	}
	resp, err := s.admitUnary(ctx, t, set, req, info, handler)
	if err == nil && !witness.degraded.Load() {
		q.reply = resp
		t.point.Record(set, q)
	}
	return resp, err
}

// headerWitness sees whether a handler marks its answer as degraded.
type headerWitness struct {
	grpc.ServerTransportStream
	degraded atomic.Bool
}

// SetHeader implements grpc.ServerTransportStream.
func (w *headerWitness) SetHeader(md metadata.MD) error {
	w.see(md)
	return w.ServerTransportStream.SetHeader(md)
}

// SendHeader implements grpc.ServerTransportStream.
func (w *headerWitness) SendHeader(md metadata.MD) error {
	w.see(md)
	return w.ServerTransportStream.SendHeader(md)
}

func (w *headerWitness) see(md metadata.MD) {
	if len(md.Get(DegradedKey)) > 0 {
		w.degraded.Store(true)
	}
}

// serverQuestion is a unary call that something else than its handler may answer.
type serverQuestion struct {
	ctx    context.Context //nolint:containedctx // the call's own, whose metadata is part of the question
	target *target
	req    any
	reply  any
}

// Request implements degrade.Question.
func (q *serverQuestion) Request() any { return q.req }

// Key implements degrade.Question. Who asks is told by the certificate as well as by
// metadata; with other means of transport security it is not known.
func (q *serverQuestion) Key(vary []string) (replies.Key, bool) {
	msg, ok := q.req.(proto.Message)
	if !ok {
		return replies.Key{}, false
	}
	request, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		return replies.Key{}, false
	}
	md, _ := metadata.FromIncomingContext(q.ctx)
	pairs := degrade.Pairs(vary, md)
	if p, ok := peer.FromContext(q.ctx); ok && p.AuthInfo != nil {
		who, known := identityOf(p.AuthInfo)
		if !known {
			return replies.Key{}, false
		}
		pairs = append(pairs, replies.Pair{Name: ":certificate", Value: who}) // no metadata is called so
	}
	return replies.NewKey(q.target.dependency.Name(), q.target.Name(), request, pairs), true
}

// identityOf returns who a client is by the security of its connection, empty for
// nobody in particular; false if that cannot be told.
func identityOf(info credentials.AuthInfo) (string, bool) {
	tls, ok := info.(credentials.TLSInfo)
	switch {
	case !ok:
		return "", info.AuthType() == "insecure"
	case len(tls.State.PeerCertificates) == 0:
		return "", true
	default:
		return string(tls.State.PeerCertificates[0].Raw), true
	}
}

// Reply implements degrade.Question.
func (q *serverQuestion) Reply() (reply any, size int, ok bool) {
	msg, ok := q.reply.(proto.Message)
	if !ok || !msg.ProtoReflect().IsValid() {
		return nil, 0, false
	}
	return proto.Clone(msg), proto.Size(msg), true
}

// Recall implements degrade.Question: interceptors may change what is answered.
func (q *serverQuestion) Recall(reply any) error {
	msg, ok := reply.(proto.Message)
	if !ok {
		return errors.New("the recorded reply is no message")
	}
	q.reply = proto.Clone(msg)
	return nil
}

// Check implements degrade.Question.
func (q *serverQuestion) Check(answer any) error {
	msg, ok := answer.(proto.Message)
	if !ok || !msg.ProtoReflect().IsValid() {
		return fmt.Errorf("answered with a %T; the method's reply is needed", answer)
	}
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(q.target.Name(), "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil // nobody knows what the method replies
	}
	if method, ok := d.(protoreflect.MethodDescriptor); ok && method.Output().FullName() != msg.ProtoReflect().Descriptor().FullName() {
		return fmt.Errorf("answered with a %s; a %s is needed", msg.ProtoReflect().Descriptor().FullName(), method.Output().FullName())
	}
	return nil
}

// Accept implements degrade.Question.
func (q *serverQuestion) Accept(answer any) { q.reply = proto.Clone(answer.(proto.Message)) }
