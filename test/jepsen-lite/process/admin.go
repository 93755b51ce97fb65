package process

import (
	"context"
	"errors"
	"fmt"
	"io"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// restorePiece is how much of a backup is sent in one message.
const restorePiece = 200 << 10

// NodeID is the id that it drew for itself; it draws another one on an empty disk.
func (s *Server) NodeID(ctx context.Context) (string, error) {
	st, err := s.Status(ctx)
	if err != nil {
		return "", err
	}
	return st.GetHeader().GetServerId(), nil
}

// TransferTo asks it, or through it the leader, to hand the leadership to a member;
// to anybody where id is empty.
func (s *Server) TransferTo(ctx context.Context, id string) error {
	if _, err := s.Admin().TransferLeadership(ctx, &holdfastv1.TransferLeadershipRequest{Id: id}); err != nil {
		return fmt.Errorf("transfer the leadership by %s: %w", s.ID, err)
	}
	return nil
}

// Remove removes a member by its id.
func (s *Server) Remove(ctx context.Context, id string) error {
	if _, err := s.Admin().RemoveMember(ctx, &holdfastv1.RemoveMemberRequest{Id: id}); err != nil {
		return fmt.Errorf("remove member %s by %s: %w", id, s.ID, err)
	}
	return nil
}

// Backup reads its state.
func (s *Server) Backup(ctx context.Context) ([]byte, error) {
	stream, err := s.Admin().Backup(ctx, &holdfastv1.BackupRequest{})
	if err != nil {
		return nil, fmt.Errorf("backup of %s: %w", s.ID, err)
	}
	var data []byte
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, fmt.Errorf("backup of %s: %w", s.ID, err)
		}
		data = append(data, piece.GetData()...)
	}
}

// Restore replaces the state of the cluster by a backup and returns what the restored
// state says of itself.
func (s *Server) Restore(ctx context.Context, data []byte) (*holdfastv1.Header, error) {
	stream, err := s.Admin().Restore(ctx)
	if err != nil {
		return nil, fmt.Errorf("restore by %s: %w", s.ID, err)
	}
	for from := 0; from < len(data); from += restorePiece {
		req := &holdfastv1.RestoreRequest{Data: data[from:min(from+restorePiece, len(data))]}
		if from == 0 {
			req.Reason, req.ClaimedActor = "restore under fire", "jepsen-lite"
		}
		if err := stream.Send(req); err != nil {
			break // CloseAndRecv tells why
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return nil, fmt.Errorf("restore by %s: %w", s.ID, err)
	}
	return resp.GetHeader(), nil
}
