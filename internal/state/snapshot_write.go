package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

const (
	// snapshotMagic is the first line of a snapshot or backup.
	snapshotMagic = "holdfast snapshot\n"
	// snapshotFormat is the format that is written, and the newest one read.
	snapshotFormat = 1
	// maxRecord is the longest record that is read. The longest that is written is
	// the audit record of all overrides ending at once, about a quarter of it.
	maxRecord = 16 << 20
)

// WriteTo writes the view as a snapshot: what ReadView reads. It holds a record
// at a time in memory. Equal views are written as equal bytes.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	s := &snapshotWriter{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	s.write([]byte(snapshotMagic))
	s.header(v)
	for _, c := range v.namespaces.All() {
		s.namespace(c)
	}
	for i := 0; i < v.outcomes.len() && s.err == nil; i++ {
		s.outcome(v.outcomes.at(i))
	}
	for i := 0; i < v.audit.len() && s.err == nil; i++ {
		s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Audit{Audit: v.audit.at(i).Proto()}})
	}
	if v.staged != nil {
		s.stagedRestore(v.staged)
	}
	sum := v.Hash()
	s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Footer{
		Footer: &storagev1.SnapshotFooter{Records: s.records, StateHash: sum[:]},
	}})
	s.write(s.sum.Sum(nil))
	if s.err == nil {
		s.err = s.w.Flush()
	}
	if s.err != nil {
		return s.n, fmt.Errorf("write snapshot: %w", s.err)
	}
	return s.n, nil
}

// Backup returns the view as a backup holds it: without the index of this
// cluster's log and without a restore that is under way.
func (v *View) Backup() *View {
	b := *v
	b.index, b.staged = 0, nil
	return &b
}

// snapshotWriter writes records until the first error.
type snapshotWriter struct {
	w       *bufio.Writer
	sum     hash.Hash
	n       int64
	records uint64
	buf     []byte
	err     error
}

func (s *snapshotWriter) write(b []byte) {
	if s.err != nil {
		return
	}
	_, _ = s.sum.Write(b)
	n, err := s.w.Write(b)
	s.n, s.err = s.n+int64(n), err
}

func (s *snapshotWriter) record(r *storagev1.SnapshotRecord) {
	if s.err != nil {
		return
	}
	// The length comes first, so the record is marshalled behind a gap for it.
	const gap = binary.MaxVarintLen64
	s.buf, s.err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(append(s.buf[:0], make([]byte, gap)...), r)
	if s.err != nil {
		return
	}
	var length [gap]byte
	n := binary.PutUvarint(length[:], uint64(len(s.buf)-gap))
	copy(s.buf[gap-n:], length[:n])
	s.write(s.buf[gap-n:])
	s.records++
}

func (s *snapshotWriter) header(v *View) {
	s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Header{Header: &storagev1.SnapshotHeader{
		Format:              snapshotFormat,
		Version:             Version,
		Epoch:               v.epoch.Proto(),
		Revision:            v.revision,
		TimeMs:              v.now,
		LivedMs:             v.lived,
		Term:                v.term,
		HorizonMs:           v.horizon,
		AuditDroppedThrough: v.auditDropped,
		History:             v.history[:],
		Index:               v.index,
	}}})
}

// namespace writes a namespace. What follows its record belongs to it and does
// not repeat its name.
func (s *snapshotWriter) namespace(c *content) {
	s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Namespace{
		Namespace: &storagev1.NamespaceRecord{Name: c.name, ModRevision: c.modRevision, Floor: c.floor},
	}})
	for _, r := range c.byKey.All() {
		if s.err != nil {
			return
		}
		s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Resource{Resource: r.Proto("")}})
	}
	for _, t := range c.dead.All() {
		s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Tombstone{Tombstone: t.Proto("")}})
	}
}

func (s *snapshotWriter) outcome(k *kept) {
	s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Outcome{Outcome: &storagev1.KeptOutcome{
		RequestId:  k.id[:],
		BodySha256: k.body[:],
		LivedMs:    k.lived,
		Outcome:    k.outcome.Proto(),
	}}})
}

func (s *snapshotWriter) stagedRestore(r *staged) {
	s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_Staged{Staged: &storagev1.StagedRestore{
		Begin:     &storagev1.RestoreBegin{RestoreId: r.id[:], SizeBytes: r.size, Sha256: r.want[:]},
		TouchedMs: r.touched,
	}}})
	for _, chunk := range r.chunks {
		s.record(&storagev1.SnapshotRecord{Record: &storagev1.SnapshotRecord_StagedData{StagedData: chunk}})
	}
}
