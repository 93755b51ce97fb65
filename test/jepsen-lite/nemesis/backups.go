package nemesis

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// backup takes one from any server while it serves.
func backup() Fault {
	return Fault{
		Name: "backup-any",
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := One(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim()
			data, err := servers[0].Backup(ctx)
			if err != nil {
				return nil, err
			}
			place, err := placeOf(data)
			if err != nil {
				return nil, err
			}
			s.Prove("%d bytes of %s, of revision %d", len(data), servers[0].ID, place.Revision)
			return nil, nil
		},
	}
}

// restore takes a backup, lets the world go on, and puts the backup in its place.
func restore() Fault {
	return Fault{
		Name: "restore-backup",
		Able: func(e *Env) error {
			if !e.Restores {
				return errors.New("this run does not let its state go back")
			}
			return nil
		},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := One(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(s.Cluster.IDs()...)
			data, err := servers[0].Backup(ctx)
			if err != nil {
				return nil, err
			}
			place, err := placeOf(data)
			if err != nil {
				return nil, err
			}
			wait(ctx, Span{200 * time.Millisecond, 2 * time.Second}.draw(s.Rand))
			op := history.Op{
				Client: "operator-" + fmt.Sprint(s.number), Server: servers[0].ID, F: history.Restore,
				Call: history.Now(), Attempts: 1, Backup: &place,
			}
			header, err := servers[0].Restore(ctx, data)
			op.Return = history.Now()
			if err != nil {
				op.Outcome, op.Code = history.Unknown, err.Error()
				s.Record(op)
				return nil, err
			}
			op.Outcome, op.Revision, op.Store, op.Epoch = history.OK, header.GetRevision(), header.GetRevision(), header.GetEpoch().GetCounter()
			s.Record(op)
			s.Prove("revision %d of epoch %d is back as revision %d of epoch %d", place.Revision, place.Epoch, op.Revision, op.Epoch)
			return nil, nil
		},
	}
}

// placeOf reads from the head of a backup which state it holds: a line, and the first
// of the records, each of which follows its length.
func placeOf(data []byte) (history.Place, error) {
	_, rest, ok := bytes.Cut(data, []byte("\n"))
	length, n := binary.Uvarint(rest)
	if !ok || n <= 0 || length > uint64(len(rest)-n) {
		return history.Place{}, fmt.Errorf("%w: %d bytes are no backup", errToothless, len(data))
	}
	var record storagev1.SnapshotRecord
	if err := proto.Unmarshal(rest[n:n+int(length)], &record); err != nil {
		return history.Place{}, fmt.Errorf("read the head of a backup: %w", err)
	}
	header := record.GetHeader()
	if header == nil {
		return history.Place{}, fmt.Errorf("%w: the backup does not begin with a header", errToothless)
	}
	return history.Place{Epoch: header.GetEpoch().GetCounter(), Revision: header.GetRevision()}, nil
}
