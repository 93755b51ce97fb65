package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// stepTime is how long one command of a restore may take, leader changes
	// included.
	stepTime = 30 * time.Second
	// abortTime is how long a failed restore tries to tell the cluster.
	abortTime = 5 * time.Second
)

// Restore replaces the state by a backup. The backup is taken in and verified
// here before anything is proposed; then it is staged in the cluster and swapped
// in at once.
func (s *clusterService) Restore(stream grpc.ClientStreamingServer[holdfastv1.RestoreRequest, holdfastv1.RestoreResponse]) error {
	if !s.restores.take() {
		return Errorf(ReasonTooManyRestores, "this server is taking in %d restores, which is its limit", cap(s.restores))
	}
	defer s.restores.release()
	spool, err := os.CreateTemp(s.tempDir, "holdfast-restore-*")
	if err != nil {
		return fmt.Errorf("create spool file: %w", err)
	}
	// Where the system allows it, the file is nameless from now on, so that a crash
	// leaves nothing behind.
	_ = os.Remove(spool.Name())
	defer func() {
		_ = spool.Close() // it is only ever read back here
		_ = os.Remove(spool.Name())
	}()
	r, err := receiveBackup(stream, spool)
	if err != nil {
		return err
	}
	r.service = s
	if err := verifyBackup(spool); err != nil {
		return err
	}
	if err := r.run(stream.Context()); err != nil {
		return err
	}
	view := s.reader.replica.View()
	return stream.SendAndClose(&holdfastv1.RestoreResponse{
		Header:    s.reader.header(view),
		Resources: uint64(view.Resources()), //nolint:gosec // never negative
	})
}

// restore is a verified backup on its way into the cluster.
type restore struct {
	service *clusterService
	spool   *os.File
	size    uint64
	sha256  []byte
	id      []byte
	actor   *holdfastv1.Actor
	reason  string
}

// receiveBackup writes what the client sends to the spool file.
func receiveBackup(stream grpc.ClientStreamingServer[holdfastv1.RestoreRequest, holdfastv1.RestoreResponse], spool *os.File) (*restore, error) {
	r := &restore{spool: spool, id: randomID()}
	sum := sha256.New()
	for first := true; ; first = false {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var v violations
		if first {
			v.text("reason", req.GetReason(), MaxReasonBytes)
			v.text("claimed_actor", req.GetClaimedActor(), MaxActorBytes)
			r.reason = req.GetReason()
			r.actor = identityOf(stream.Context()).actor(req.GetClaimedActor())
		}
		if n := len(req.GetData()); n > BackupPieceBytes {
			v.addf("data", "has %d bytes; at most %d are allowed", n, BackupPieceBytes)
		}
		if err := v.err(); err != nil {
			return nil, err
		}
		if r.size += uint64(len(req.GetData())); r.size > MaxBackupBytes {
			return nil, Errorf(ReasonBackupTooLarge, "the backup is larger than %d bytes", MaxBackupBytes)
		}
		if _, err := io.MultiWriter(spool, sum).Write(req.GetData()); err != nil {
			// Nothing has been proposed.
			return nil, newError(ReasonUnavailable, err, "cannot spool the backup: %v", err)
		}
	}
	r.sha256 = sum.Sum(nil)
	return r, nil
}

// verifyBackup reads the whole backup as the cluster will.
func verifyBackup(spool *os.File) error {
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind spool file: %w", err)
	}
	if _, err := state.ReadView(spool); err != nil {
		return newError(ReasonBackupInvalid, err, "the backup cannot be restored: %v", err)
	}
	return nil
}

// run stages the backup and swaps it in. What fails before the swap is taken
// back; what fails while swapping has an unknown outcome, unless the state
// refused it.
func (r *restore) run(ctx context.Context) error {
	err := r.stage(ctx)
	if err == nil {
		err = r.propose(ctx, &storagev1.Command{Body: &storagev1.Command_RestoreCommit{
			RestoreCommit: &storagev1.RestoreCommit{RestoreId: r.id, Nonce: binary.BigEndian.Uint64(randomID())},
		}})
		if err != nil && outcomeOf(err) == Unknown {
			return err // the swap may have taken place, and then there is nothing to take back
		}
	} else if outcomeOf(err) == Unknown {
		// A piece may or may not be staged; nothing of it is visible.
		err = newError(ReasonUnavailable, err, "the backup could not be staged: %v", err)
	}
	if err != nil {
		r.abort(ctx)
	}
	return err
}

// stage brings the bytes of the backup into the cluster, out of sight.
func (r *restore) stage(ctx context.Context) error {
	err := r.propose(ctx, &storagev1.Command{Body: &storagev1.Command_RestoreBegin{
		RestoreBegin: &storagev1.RestoreBegin{RestoreId: r.id, SizeBytes: r.size, Sha256: r.sha256},
	}})
	if err != nil {
		return err
	}
	for offset := uint64(0); offset < r.size; {
		// Each chunk has its own bytes: the replica may keep them.
		data := make([]byte, min(BackupPieceBytes, r.size-offset))
		if _, err := r.spool.ReadAt(data, int64(offset)); err != nil { //nolint:gosec // within the file's size
			return newError(ReasonUnavailable, err, "cannot read the spooled backup: %v", err)
		}
		err := r.propose(ctx, &storagev1.Command{Body: &storagev1.Command_RestoreChunk{
			RestoreChunk: &storagev1.RestoreChunk{RestoreId: r.id, Offset: offset, Data: data},
		}})
		if err != nil {
			return err
		}
		offset += uint64(len(data))
	}
	return nil
}

// abort drops what is staged, also when the caller is gone. If that fails, the
// state lets another restore take the place after a while.
func (r *restore) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	_ = r.propose(ctx, &storagev1.Command{Body: &storagev1.Command_RestoreAbort{
		RestoreAbort: &storagev1.RestoreAbort{RestoreId: r.id},
	}})
}

// propose commits one command of the restore. One whose outcome is unknown is
// repeated under the same request id, which the state applies once. Once an
// attempt may have had an effect, only the state itself can say that it had none.
func (r *restore) propose(ctx context.Context, cmd *storagev1.Command) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	cmd.Version, cmd.RequestId = state.Version, randomID()
	cmd.Actor, cmd.Reason = r.actor, r.reason
	var unknown error
	for began := time.Now(); ; {
		cmd.AgeMs = time.Since(began).Milliseconds()
		p, err := r.service.leaders.propose(ctx, cmd)
		if err == nil {
			if p.outcome.Rejection != nil {
				return rejected(p.outcome.Rejection, nil)
			}
			return nil
		}
		if outcomeOf(err) == Unknown {
			unknown = err
		}
		if unknown == nil {
			return err
		}
		select {
		case <-time.After(maxBackoff):
		case <-ctx.Done():
			return unknown
		}
	}
}

// randomID returns 16 random bytes.
func randomID() []byte {
	id := make([]byte, requestIDBytes)
	_, _ = rand.Read(id) // it never fails
	return id
}
