package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/state"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// peerService answers other servers. It acts here or not at all: a request that
// was forwarded is never forwarded again.
type peerService struct {
	peerv1.UnimplementedPeerServiceServer

	replica   Replica
	instances *instanceService
	fleet     Fleet // nil for none
}

// Propose commits another server's command, if this server leads.
func (s *peerService) Propose(ctx context.Context, req *peerv1.ProposeRequest) (*peerv1.ProposeResponse, error) {
	cmd := req.GetCommand()
	var v violations
	v.forwarded("command", cmd)
	if err := v.err(); err != nil {
		return nil, err
	}
	if !identityOf(ctx).verified && cmd.GetActor() != nil {
		cmd.Actor.Verified = false // nobody has proven who forwards this
	}
	cmd.TimeMs = 0
	p, err := proposeHere(ctx, s.replica, cmd)
	if err != nil {
		return nil, err
	}
	return &peerv1.ProposeResponse{Outcome: p.outcome.Proto(), Duplicate: p.duplicate, Index: p.index}, nil
}

// forwarded checks a command that another server passed on. What is in it that
// server has validated; here is checked what could stop the state machine or get
// round dedup.
func (v *violations) forwarded(field string, cmd *storagev1.Command) {
	switch cmd.GetBody().(type) {
	case *storagev1.Command_Transaction, *storagev1.Command_RestoreBegin, *storagev1.Command_RestoreChunk,
		*storagev1.Command_RestoreCommit, *storagev1.Command_RestoreAbort:
	default:
		v.addf(field, "has the body %T, which only the leader proposes", cmd.GetBody())
	}
	if cmd.GetVersion() == 0 || cmd.GetVersion() > state.Version {
		v.addf(field+".version", "is %d; this server knows 1 to %d", cmd.GetVersion(), state.Version)
	}
	if n := len(cmd.GetRequestId()); n != requestIDBytes {
		v.addf(field+".request_id", "has %d bytes; exactly %d are required", n, requestIDBytes)
	}
	if n := cmd.GetAgeMs(); n < 0 {
		v.addf(field+".age_ms", "is negative")
	}
	if n := proto.Size(cmd); n > MaxCommandBytes {
		v.addf(field, "takes %d bytes; at most %d are allowed", n, MaxCommandBytes)
	}
}

// ReadIndex returns an index that includes every acknowledged write, if this
// server leads.
func (s *peerService) ReadIndex(ctx context.Context, _ *peerv1.ReadIndexRequest) (*peerv1.ReadIndexResponse, error) {
	index, err := s.replica.ReadIndex(ctx)
	if err != nil {
		return nil, err
	}
	return &peerv1.ReadIndexResponse{Index: index, StateTimeMs: s.replica.StateTime().UnixMilli()}, nil
}

// AwaitRevision waits until this server has applied a revision.
func (s *peerService) AwaitRevision(ctx context.Context, req *peerv1.AwaitRevisionRequest) (*peerv1.AwaitRevisionResponse, error) {
	var v violations
	wait := v.await("wait", req.GetWait())
	if err := v.err(); err != nil {
		return nil, err
	}
	view := awaitHere(ctx, s.replica, req.GetRevision(), wait)
	return &peerv1.AwaitRevisionResponse{Revision: view.Revision(), Epoch: view.Epoch().Proto()}, nil
}

// ChangeMembership commits an operator's change, if this server leads.
func (s *peerService) ChangeMembership(ctx context.Context, req *peerv1.ChangeMembershipRequest) (*peerv1.ChangeMembershipResponse, error) {
	var v violations
	v.membership(req)
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := changeHere(ctx, s.replica, req); err != nil {
		return nil, err
	}
	return &peerv1.ChangeMembershipResponse{}, nil
}

// PromiseBootstrap answers a founder.
func (s *peerService) PromiseBootstrap(ctx context.Context, req *peerv1.PromiseBootstrapRequest) (*peerv1.PromiseBootstrapResponse, error) {
	return s.replica.Promise(ctx, req), nil
}

// ListInstances returns the instances that this server knows.
func (s *peerService) ListInstances(req *peerv1.ListInstancesRequest, stream grpc.ServerStreamingServer[peerv1.ListInstancesResponse]) error {
	var v violations
	filter := v.instances("filter", req.GetFilter())
	if err := v.err(); err != nil {
		return err
	}
	return sendChunks(listed(s.instances.registry, s.instances.reader.self, filter, req.GetIncludeDisconnected()), stream)
}

// AwaitInstances tells how many of the instances connected here obey a revision.
func (s *peerService) AwaitInstances(req *peerv1.AwaitInstancesRequest, stream grpc.ServerStreamingServer[peerv1.AwaitInstancesResponse]) error {
	var v violations
	filter := v.instances("filter", req.GetFilter())
	if err := v.err(); err != nil {
		return err
	}
	return s.instances.countHere(stream.Context(), filter, req.GetRevision(), stream.Send)
}
