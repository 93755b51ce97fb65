package api

import (
	"bufio"
	"fmt"

	"google.golang.org/grpc"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Backup streams this server's state. The state goes on meanwhile: a view is
// immutable. Nothing is buffered but one piece, so a slow reader costs that and
// the view.
func (s *clusterService) Backup(_ *holdfastv1.BackupRequest, stream grpc.ServerStreamingServer[holdfastv1.BackupResponse]) error {
	if !s.backups.take() {
		return Errorf(ReasonTooManyBackups, "this server is streaming %d backups, which is its limit", cap(s.backups))
	}
	defer s.backups.release()
	// The writer hands out full pieces, whatever sizes the view writes in.
	w := bufio.NewWriterSize(pieces{stream}, BackupPieceBytes)
	if _, err := s.reader.replica.View().WriteTo(w); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// pieces sends what is written to it. It ends with the stream, so whoever writes
// to it does too.
type pieces struct {
	stream grpc.ServerStreamingServer[holdfastv1.BackupResponse]
}

// Write implements io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		// A write that is larger than the buffer above passes it by.
		piece := b[sent:min(sent+BackupPieceBytes, len(b))]
		// The message is encoded when Send returns, so the bytes may be reused.
		if err := p.stream.Send(&holdfastv1.BackupResponse{Data: piece}); err != nil {
			return sent, err
		}
		sent += len(piece)
	}
	return len(b), nil
}
