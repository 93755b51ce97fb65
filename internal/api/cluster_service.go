package api

import (
	"context"
	"net"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// clusterService shows and changes the cluster.
type clusterService struct {
	holdfastv1.UnimplementedClusterServiceServer

	reader   *reader
	leaders  *leadership
	streams  *streams
	backups  slots
	restores slots
	tempDir  string
	// transferWait is how long a transfer waits to learn of the new leader.
	transferWait time.Duration
}

// slots limits how many of something run at once.
type slots chan struct{}

// take takes a slot if one is free.
func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) release() { <-s }

// GetStatus describes this server and its view of the cluster.
func (s *clusterService) GetStatus(context.Context, *holdfastv1.GetStatusRequest) (*holdfastv1.GetStatusResponse, error) {
	view, status := s.reader.replica.View(), s.reader.replica.Status()
	hash := view.Hash()
	resp := &holdfastv1.GetStatusResponse{
		Header:           s.reader.header(view),
		Role:             status.Role,
		Term:             status.Term,
		LeaderId:         status.LeaderID,
		LeaderContactAge: durationpb.New(status.LeaderContactAge),
		Version:          status.Version,
		StateHash:        hash[:],
		StateBytes:       uint64(view.Bytes()),                                                      //nolint:gosec // never negative
		Resources:        uint64(view.Resources()),                                                  //nolint:gosec // never negative
		Watchers:         uint64(s.streams.following(holdfastv1.StateService_Watch_FullMethodName)), //nolint:gosec // never negative
		Fenced:           status.Fenced,
		StartTime:        timestamppb.New(status.StartTime),
	}
	for _, name := range view.Namespaces() {
		namespace := view.Namespace(name)
		root := namespace.Root()
		resp.Namespaces = append(resp.Namespaces, &holdfastv1.NamespaceStatus{
			Name:        name,
			Root:        root[:],
			ModRevision: namespace.ModRevision(),
			Resources:   uint64(namespace.Len()), //nolint:gosec // never negative
		})
	}
	return resp, nil
}

// ListMembers lists the servers.
func (s *clusterService) ListMembers(context.Context, *holdfastv1.ListMembersRequest) (*holdfastv1.ListMembersResponse, error) {
	resp := &holdfastv1.ListMembersResponse{Header: s.header()}
	for _, m := range s.reader.replica.Members() {
		resp.Members = append(resp.Members, &holdfastv1.Member{
			Id: m.ID, RaftAddr: m.RaftAddr, ApiAddr: m.APIAddr, Role: m.Role,
			Alive: m.Alive, Version: m.Version, Revision: m.Revision,
		})
	}
	return resp, nil
}

// JoinMember adds a server as a non-voter.
func (s *clusterService) JoinMember(ctx context.Context, req *holdfastv1.JoinMemberRequest) (*holdfastv1.JoinMemberResponse, error) {
	err := s.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Join{
		Join: &peerv1.JoinServer{Id: req.GetId(), RaftAddr: req.GetRaftAddr()},
	}})
	if err != nil {
		return nil, err
	}
	return &holdfastv1.JoinMemberResponse{Header: s.header()}, nil
}

// PromoteMember makes a non-voter a voter.
func (s *clusterService) PromoteMember(ctx context.Context, req *holdfastv1.PromoteMemberRequest) (*holdfastv1.PromoteMemberResponse, error) {
	err := s.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Promote{Promote: req.GetId()}})
	if err != nil {
		return nil, err
	}
	return &holdfastv1.PromoteMemberResponse{Header: s.header()}, nil
}

// RemoveMember removes a server.
func (s *clusterService) RemoveMember(ctx context.Context, req *holdfastv1.RemoveMemberRequest) (*holdfastv1.RemoveMemberResponse, error) {
	err := s.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Remove{
		Remove: &peerv1.RemoveServer{Id: req.GetId(), Force: req.GetForce()},
	}})
	if err != nil {
		return nil, err
	}
	return &holdfastv1.RemoveMemberResponse{Header: s.header()}, nil
}

// TransferLeadership hands the leadership over and waits a little to learn of
// the new leader.
func (s *clusterService) TransferLeadership(ctx context.Context, req *holdfastv1.TransferLeadershipRequest) (*holdfastv1.TransferLeadershipResponse, error) {
	before, _ := s.reader.replica.Leader()
	err := s.change(ctx, &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Transfer{Transfer: req.GetId()}})
	if err != nil {
		return nil, err
	}
	leader := s.newLeader(ctx, before, req.GetId())
	return &holdfastv1.TransferLeadershipResponse{Header: s.header(), LeaderId: leader}, nil
}

// newLeader waits until the leader is the wanted one, or another than before if
// none is wanted. It returns the empty text when that is not known in time.
func (s *clusterService) newLeader(ctx context.Context, before, want string) string {
	ctx, cancel := context.WithTimeout(ctx, patience(ctx, s.transferWait))
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		id, _ := s.reader.replica.Leader()
		if id != "" && (id == want || want == "" && id != before) {
			return id
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ""
		}
	}
}

// header tells which state this server has.
func (s *clusterService) header() *holdfastv1.Header { return s.reader.header(s.reader.replica.View()) }

// change has the leader commit a membership change.
func (s *clusterService) change(ctx context.Context, req *peerv1.ChangeMembershipRequest) error {
	var v violations
	v.membership(req)
	if err := v.err(); err != nil {
		return err
	}
	return s.leaders.change(ctx, req)
}

// membership checks a membership change. A server's name for itself is its id.
func (v *violations) membership(req *peerv1.ChangeMembershipRequest) {
	id, required := "", true
	switch c := req.GetChange().(type) {
	case *peerv1.ChangeMembershipRequest_Join:
		id = c.Join.GetId()
		if _, _, err := net.SplitHostPort(c.Join.GetRaftAddr()); err != nil {
			v.addf("raft_addr", "%q is not host:port", c.Join.GetRaftAddr())
		}
	case *peerv1.ChangeMembershipRequest_Promote:
		id = c.Promote
	case *peerv1.ChangeMembershipRequest_Remove:
		id = c.Remove.GetId()
	case *peerv1.ChangeMembershipRequest_Transfer:
		id, required = c.Transfer, false
	default:
		v.addf("change", "is not set")
		return
	}
	if id == "" && required {
		v.addf("id", "is empty")
	}
	v.text("id", id, MaxActorBytes)
}
