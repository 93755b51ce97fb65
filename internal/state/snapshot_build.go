package state

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/seam"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// builder builds a view from the records of a snapshot. It trusts nothing: a
// file with a right sum can still come from a stranger.
type builder struct {
	d       *draft
	version uint32
	// own is true for a snapshot of this cluster. It may be over limits that were
	// lowered since, and has to be read all the same.
	own    bool
	stage  int // the record number in SnapshotRecord of the record before
	space  *content
	last   document.Key // of the namespace's resources, then of its tombstones
	leaves []leaf
	seen   map[requestID]struct{}
	want   []byte // the hash of the state
	closed bool

	actor, reason repeated
}

// repeated is a text that is likely to come again, and is kept once then.
type repeated string

func (r *repeated) share(text *string) {
	if *text != string(*r) {
		*r = repeated(*text)
	}
	*text = string(*r)
}

type leaf struct {
	key  document.Key
	hash [32]byte
}

// The order of records: each may be followed by itself or by a later one, and a
// tombstone by the next namespace too.
const (
	stageHeader = iota + 1
	stageNamespace
	stageResource
	stageTombstone
	stageOutcome
	stageAudit
	stageStaged
	stageStagedData
	stageFooter
)

// maxCounter bounds revisions and counters that are read, so that they can go on.
const maxCounter = math.MaxInt64 / 2

func newBuilder(limits *Limits, version uint32) *builder {
	return &builder{
		d:       newDraft(newView(limits), make(map[requestID]*kept)),
		version: version,
		seen:    make(map[requestID]struct{}),
	}
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// add adds a record; before tells how many came before it.
func (b *builder) add(record *storagev1.SnapshotRecord, before uint64) error {
	if before == 0 && record.GetHeader() == nil {
		return corrupt("it does not begin with a header")
	}
	if err := b.take(record, before); err != nil || b.own {
		return err
	}
	return b.fits()
}

// fits refuses what is more than a state may hold, as soon as it is: how much
// memory reading takes must not depend on what a stranger has put into a file.
func (b *builder) fits() error {
	v, l := &b.d.View, b.d.limits
	switch d, o := v.declared, v.overrides; {
	case v.namespaces.Len() > l.Namespaces:
		return reject(ReasonTooManyNamespaces, "the backup has more than %d namespaces", l.Namespaces)
	case d.count > l.Declared:
		return reject(ReasonTooManyResources, "the backup has more than %d flags, modes and policies", l.Declared)
	case o.count > l.Overrides:
		return reject(ReasonTooManyOverrides, "the backup has more than %d overrides", l.Overrides)
	case d.bytes > l.DeclaredBytes:
		return reject(ReasonStateFull, "the backup has more than %d bytes of flags, modes and policies", l.DeclaredBytes)
	case o.bytes > l.OverrideBytes:
		return reject(ReasonStateFull, "the backup has more than %d bytes of overrides", l.OverrideBytes)
	case v.graves.Len() > l.Tombstones, v.outcomes.len() > l.Outcomes, v.outcomeBytes > l.OutcomeBytes, v.auditBytes > l.AuditBytes:
		return corrupt("the backup has more of a history than is ever kept")
	}
	return nil
}

// take adds a record, however many there are.
func (b *builder) take(record *storagev1.SnapshotRecord, before uint64) error {
	switch r := record.GetRecord().(type) {
	case *storagev1.SnapshotRecord_Header:
		return b.header(r.Header)
	case *storagev1.SnapshotRecord_Namespace:
		return b.namespace(r.Namespace)
	case *storagev1.SnapshotRecord_Resource:
		return b.resource(r)
	case *storagev1.SnapshotRecord_Tombstone:
		return b.tombstone(r)
	case *storagev1.SnapshotRecord_Outcome:
		return b.outcome(r.Outcome)
	case *storagev1.SnapshotRecord_Audit:
		return b.audit(r)
	case *storagev1.SnapshotRecord_Staged:
		return b.staged(r.Staged)
	case *storagev1.SnapshotRecord_StagedData:
		return b.stagedData(r.StagedData)
	case *storagev1.SnapshotRecord_Footer:
		return b.footer(r.Footer, before)
	default:
		return corrupt("it is of no known kind")
	}
}

// enter moves on to a stage.
func (b *builder) enter(stage int) error {
	next := stage == stageNamespace && b.stage <= stageTombstone
	if stage < b.stage && !next {
		return corrupt("it is out of order")
	}
	b.stage = stage
	return nil
}

func (b *builder) header(h *storagev1.SnapshotHeader) error {
	switch {
	case b.stage != 0:
		return corrupt("there are two headers")
	case h.GetFormat() != snapshotFormat:
		return fmt.Errorf("%w: format %d; this server reads %d", ErrUnknownFormat, h.GetFormat(), snapshotFormat)
	case h.GetVersion() > b.version:
		return fmt.Errorf("%w: it needs version %d of the state; known is %d", ErrUnknownFormat, h.GetVersion(), b.version)
	case len(h.GetHistory()) != sha256.Size:
		return corrupt("the history has %d bytes", len(h.GetHistory()))
	case h.GetRevision() > maxCounter || h.GetEpoch().GetCounter() > maxCounter:
		return corrupt("the revision or the epoch is out of range")
	case h.GetTimeMs() < 0 || h.GetTimeMs() > maxTime || h.GetLivedMs() < 0 || h.GetLivedMs() > maxTime:
		return corrupt("the time is out of range")
	case h.GetHorizonMs() > h.GetLivedMs():
		return corrupt("outcomes were dropped before they were made")
	}
	epoch, err := document.EpochFromProto(h.GetEpoch())
	if err != nil {
		return corrupt("%w", err)
	}
	b.stage = stageHeader
	v := &b.d.View
	v.epoch, v.revision, v.index, v.term = epoch, h.GetRevision(), h.GetIndex(), h.GetTerm()
	v.now, v.lived, v.horizon = h.GetTimeMs(), h.GetLivedMs(), h.GetHorizonMs()
	v.auditDropped, v.history = h.GetAuditDroppedThrough(), [32]byte(h.GetHistory())
	return nil
}

func (b *builder) namespace(n *storagev1.NamespaceRecord) error {
	if err := b.enter(stageNamespace); err != nil {
		return err
	}
	switch {
	case !sound(n.GetName()):
		return corrupt("the namespace has no sound name")
	case b.space != nil && n.GetName() <= b.space.name:
		return corrupt("the namespace %s is out of order", n.GetName())
	case n.GetModRevision() > b.d.revision || n.GetFloor() > b.d.revision:
		return corrupt("the namespace %s is ahead of the state", n.GetName())
	}
	b.plant()
	b.space, b.last = b.d.open(n.GetName()), document.Key{}
	b.space.modRevision, b.space.floor = n.GetModRevision(), n.GetFloor()
	return nil
}

// plant builds the tree of the namespace whose resources were read.
func (b *builder) plant() {
	if b.space == nil || len(b.leaves) == 0 {
		return
	}
	b.space.merkle = document.Build(func(yield func(document.Key, [32]byte) bool) {
		for i := range b.leaves {
			if !yield(b.leaves[i].key, b.leaves[i].hash) {
				return
			}
		}
	})
	b.leaves = b.leaves[:0]
}

func (b *builder) resource(record *storagev1.SnapshotRecord_Resource) error {
	if err := b.enter(stageResource); err != nil {
		return err
	}
	_, r, err := document.FromProto(record.Resource)
	if err != nil {
		return corrupt("%w", err)
	}
	s := b.space
	switch {
	case s == nil || record.Resource.GetKey().GetNamespace() != "":
		return corrupt("%s is in the wrong namespace", r.Key)
	case b.last.Compare(r.Key) >= 0:
		return corrupt("%s is out of order", r.Key)
	case r.ModRevision == 0 || r.ModRevision > s.modRevision || r.CreateRevision > r.ModRevision:
		return corrupt("%s has impossible revisions", r.Key)
	case (r.Kind == document.Override) != (r.End > 0) || r.End < 0:
		return corrupt("%s has an impossible end", r.Key)
	}
	b.last = r.Key
	b.actor.share(&r.Actor)
	b.reason.share(&r.Reason)
	s.byRevision.Put(b.d.edit, revised{r.ModRevision, r.Key}, r)
	s.byKey.Put(b.d.edit, r.Key, r)
	if r.End > 0 {
		b.d.ends.Put(b.d.edit, endOf(r, place{s.name, r.Key}), struct{}{})
	}
	u := b.d.share(r.Kind)
	u.count++
	u.bytes += r.Size()
	b.leaves = append(b.leaves, leaf{r.Key, r.Hash()})
	return nil
}

func (b *builder) tombstone(record *storagev1.SnapshotRecord_Tombstone) error {
	if b.stage < stageTombstone {
		b.last = document.Key{}
	}
	if err := b.enter(stageTombstone); err != nil {
		return err
	}
	_, t, err := document.TombstoneFromProto(record.Tombstone)
	if err != nil {
		return corrupt("%w", err)
	}
	s := b.space
	switch {
	case s == nil || record.Tombstone.GetKey().GetNamespace() != "":
		return corrupt("the tombstone of %s is in the wrong namespace", t.Key)
	case b.last.Compare(t.Key) >= 0:
		return corrupt("the tombstone of %s is out of order", t.Key)
	case t.Revision == 0 || t.Revision > s.modRevision || t.Revision < s.floor:
		return corrupt("the tombstone of %s has an impossible revision", t.Key)
	}
	b.last = t.Key
	if _, live := s.byKey.Get(t.Key); live {
		return corrupt("%s is alive and has a tombstone", t.Key)
	}
	b.d.bury(s, t)
	if seam.Bug(seam.TombstonesUnindexed) {
		s.byRevision.Delete(b.d.edit, revised{t.Revision, t.Key})
	}
	return nil
}

func (b *builder) outcome(o *storagev1.KeptOutcome) error {
	if err := b.enter(stageOutcome); err != nil {
		return err
	}
	v := &b.d.View
	outcome, err := OutcomeFromProto(o.GetOutcome())
	switch {
	case err != nil:
		return corrupt("%w", err)
	case len(o.GetRequestId()) != len(requestID{}) || len(o.GetBodySha256()) != sha256.Size:
		return corrupt("the outcome has no request")
	case o.GetLivedMs() > v.lived, v.outcomes.len() > 0 && o.GetLivedMs() < v.outcomes.at(v.outcomes.len()-1).lived:
		return corrupt("the outcome is out of order")
	}
	k := &kept{
		id: requestID(o.GetRequestId()), body: [32]byte(o.GetBodySha256()),
		lived: o.GetLivedMs(), outcome: outcome,
	}
	if _, twice := b.seen[k.id]; twice {
		return corrupt("a request has two outcomes")
	}
	b.seen[k.id] = struct{}{}
	v.outcomes.push(k)
	v.outcomeBytes += k.size()
	return nil
}

func (b *builder) audit(record *storagev1.SnapshotRecord_Audit) error {
	if err := b.enter(stageAudit); err != nil {
		return err
	}
	v := &b.d.View
	r := auditFromProto(record.Audit)
	last := v.auditDropped
	if n := v.audit.len(); n > 0 {
		last = v.audit.at(n - 1).Revision
	}
	if r.Revision <= last || r.Revision > v.revision {
		return corrupt("the audit record of revision %d is out of order", r.Revision)
	}
	v.audit.push(r)
	v.auditBytes += r.size()
	return nil
}

func (b *builder) staged(r *storagev1.StagedRestore) error {
	if b.stage >= stageStaged {
		return corrupt("there are two restores")
	}
	if err := b.enter(stageStaged); err != nil {
		return err
	}
	if rejection := b.d.restoreBegin(r.GetBegin()); rejection != nil {
		return corrupt("the staged restore is impossible: %v", rejection)
	}
	if b.d.staged.touched = r.GetTouchedMs(); b.d.staged.touched > b.d.now {
		return corrupt("the staged restore moves in the future")
	}
	return nil
}

func (b *builder) stagedData(data []byte) error {
	if err := b.enter(stageStagedData); err != nil {
		return err
	}
	s := b.d.staged
	if s == nil || len(data) == 0 || uint64(len(data)) > s.size-s.length {
		return corrupt("staged bytes belong to no restore")
	}
	b.d.staged = s.append(data, s.touched)
	return nil
}

func (b *builder) footer(f *storagev1.SnapshotFooter, before uint64) error {
	if err := b.enter(stageFooter); err != nil {
		return err
	}
	if f.GetRecords() != before {
		return corrupt("%d records came, %d were written", before, f.GetRecords())
	}
	b.plant()
	b.want, b.closed = f.GetStateHash(), true
	return nil
}

// view returns the view if it is the one that was written.
func (b *builder) view() (*View, error) {
	v := b.d.seal()
	if have := v.Hash(); !bytes.Equal(have[:], b.want) {
		return nil, fmt.Errorf("%w: the hash of its state is wrong", ErrCorrupt)
	}
	return v, nil
}
