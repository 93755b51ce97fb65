package state

import (
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/seam"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// maxTime is the last state time, in milliseconds: the end of the longest
// override from then on is still a timestamp.
const maxTime = 253_402_300_799_999 - 400*24*3_600_000 // 9999-12-31 less 400 days

// draft is a view in the making, one per batch. What the edit does not own is
// shared with the view it began from.
type draft struct {
	View
	edit     *btree.Edit
	requests map[requestID]*kept
}

func newDraft(v *View, requests map[requestID]*kept) *draft {
	return &draft{View: *v, edit: new(btree.Edit), requests: requests}
}

// seal returns the draft as a view, which stays as it is. The draft goes on from
// it.
func (d *draft) seal() *View {
	v := d.View
	d.edit = new(btree.Edit)
	return &v
}

// open returns a namespace to change, a new one if there is none of the name.
func (d *draft) open(name string) *content {
	c, ok := d.namespaces.Get(btree.Text(name))
	switch {
	case !ok:
		c = &content{owner: d.edit, name: name}
	case c.owner == d.edit:
		return c
	default:
		mine := *c
		mine.owner = d.edit
		c = &mine
	}
	d.namespaces.Put(d.edit, btree.Text(name), c)
	return c
}

// apply applies one command: time, then the retry, then what the command says.
func (d *draft) apply(e *Entry, cmd *storagev1.Command) Result {
	d.index = e.Index
	result := Result{Index: e.Index}
	if rejection := checkCommand(d.limits, e.Data, cmd); rejection != nil {
		d.advance(e.Term, d.now)
		result.Outcome = Outcome{Revision: d.revision, Rejection: rejection}
		return result
	}
	if seam.Bug(seam.AppliedByLocalClock) {
		cmd.TimeMs = time.Now().UnixMilli() //nolint:forbidigo // that is the bug
	}
	d.advance(e.Term, cmd.GetTimeMs())
	d.forgetOld()
	if len(cmd.GetRequestId()) == 0 {
		result.Outcome, result.Touched = d.execute(cmd)
		return result
	}
	id, body := requestID(cmd.GetRequestId()), bodyHash(cmd)
	if known, rejection := d.recall(id, body, cmd.GetAgeMs()); rejection != nil {
		result.Outcome = Outcome{Revision: d.revision, Rejection: rejection}
		return result
	} else if known != nil {
		result.Outcome, result.Duplicate = known.outcome, true
		return result
	}
	result.Outcome, result.Touched = d.execute(cmd)
	d.keep(&kept{id: id, body: body, lived: d.lived, outcome: result.Outcome})
	return result
}

// checkCommand refuses what no command may be.
func checkCommand(limits *Limits, data []byte, cmd *storagev1.Command) *Rejection {
	switch n := len(cmd.GetRequestId()); {
	case len(data) > limits.Command:
		return reject(ReasonCommandTooLarge, "the command has %d bytes; at most %d are allowed", len(data), limits.Command)
	case n != 0 && n != len(requestID{}):
		return reject(ReasonInvalidCommand, "the request id has %d bytes instead of %d", n, len(requestID{}))
	case cmd.GetTransaction() != nil && n == 0:
		return reject(ReasonInvalidCommand, "the transaction has no request id")
	case cmd.GetTimeMs() > maxTime:
		return reject(ReasonInvalidCommand, "the time is out of range")
	}
	return nil
}

// advance moves both clocks on. Neither goes back, and lived time does not move
// over a change of the leader, whose clock may be an hour off its predecessor's.
func (d *draft) advance(term uint64, stamp int64) {
	now := max(d.now, stamp)
	if term == d.term {
		d.lived += now - d.now
	}
	d.now, d.term = now, term
}

// execute does what the command says and returns the namespaces it changed.
func (d *draft) execute(cmd *storagev1.Command) (Outcome, []string) {
	var rejection *Rejection
	var changes []Change
	var touched []string
	switch body := cmd.Body.(type) {
	case *storagev1.Command_Transaction:
		changes, rejection = d.plan(d.author(cmd), body.Transaction)
		if rejection == nil {
			touched = d.commit(d.author(cmd), cmd.GetRequestId(), changes)
		}
	case *storagev1.Command_Tick:
		d.dropResting()
	case *storagev1.Command_Expire:
		touched = d.expire()
	case *storagev1.Command_RestoreBegin:
		rejection = d.restoreBegin(body.RestoreBegin)
	case *storagev1.Command_RestoreChunk:
		rejection = d.restoreChunk(body.RestoreChunk)
	case *storagev1.Command_RestoreCommit:
		touched, rejection = d.restoreCommit(cmd, body.RestoreCommit)
	case *storagev1.Command_RestoreAbort:
		d.restoreAbort(body.RestoreAbort)
	case *storagev1.Command_NewEpoch:
		rejection = d.newEpoch(body.NewEpoch)
	}
	return Outcome{Revision: d.revision, Changes: typesOf(changes), Rejection: rejection}, touched
}

// newEpoch gives the cluster its lineage, or raises the epoch. The nonce of the
// present epoch has no effect, so that the command can be repeated. Resources
// do not change, and so neither does the revision.
func (d *draft) newEpoch(body *storagev1.NewEpoch) *Rejection {
	if !d.epoch.HasLineage() {
		next := document.Epoch{Counter: 1, Nonce: body.GetNonce()}
		if len(body.GetLineage()) == len(next.Lineage) {
			next.Lineage = [16]byte(body.GetLineage())
		}
		if !next.HasLineage() {
			return reject(ReasonInvalidCommand, "the state has no lineage, and the command brings none of %d bytes", len(next.Lineage))
		}
		d.epoch = next
		return nil
	}
	if d.epoch.Nonce != body.GetNonce() {
		d.epoch.Counter++
		d.epoch.Nonce = body.GetNonce()
	}
	return nil
}

// expire removes the overrides that have ended.
func (d *draft) expire() []string {
	var changes []Change
	for end := range d.ends.All() {
		if int64(end.at) > d.now { //nolint:gosec // ends are positive
			break
		}
		changes = append(changes, Change{
			Namespace: end.namespace, Key: end.Key, Type: document.Ended, Before: d.lookup(end.place),
		})
	}
	by := author{revision: d.revision + 1, now: d.now, actor: "holdfast", verified: true, reason: "ended"}
	return d.commit(by, nil, changes)
}

// commit makes the changes, which were planned on this draft, at one revision.
// It cannot fail. Without a change it has no effect.
func (d *draft) commit(by author, requestID []byte, changes []Change) []string {
	n := 0
	for i := range changes {
		if changes[i].changes() {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	record := AuditRecord{
		Revision: by.revision, Time: by.now, Actor: by.actor, ActorVerified: by.verified,
		Reason: by.reason, RequestID: requestID, Changes: make([]AuditChange, 0, n),
	}
	hashes, touched := make([][32]byte, 0, n), make([]string, 0, n)
	for i := range changes {
		c := &changes[i]
		if !c.changes() {
			continue
		}
		done := AuditChange{Namespace: c.Namespace, Key: c.Key, Type: c.Type}
		if c.Before != nil {
			done.Before = c.Before.Spec
		}
		var hash [32]byte
		if c.After != nil {
			hash, done.After = d.put(c), c.After.Spec
		} else {
			d.remove(c, by.revision)
		}
		record.Changes = append(record.Changes, done)
		hashes = append(hashes, hash)
		touched = append(touched, c.Namespace)
	}
	d.revision = by.revision
	d.forgetTombstones()
	d.record(&record, hashes)
	slices.Sort(touched)
	return slices.Compact(touched)
}

// put stores a resource and returns its hash.
func (d *draft) put(c *Change) [32]byte {
	s, p := d.open(c.Namespace), place{c.Namespace, c.Key}
	if c.Before != nil {
		d.unlink(s, p, c.Before)
	} else if t, ok := s.dead.Delete(d.edit, c.Key); ok {
		s.byRevision.Delete(d.edit, revised{t.Revision, c.Key})
		d.graves.Delete(d.edit, queued{t.Revision, p})
	}
	s.byRevision.Put(d.edit, revised{c.After.ModRevision, c.Key}, c.After)
	s.byKey.Put(d.edit, c.Key, c.After)
	hash := c.After.Hash()
	s.merkle = s.merkle.Put(c.Key, hash)
	s.modRevision = c.After.ModRevision
	if c.After.End != 0 {
		d.ends.Put(d.edit, endOf(c.After, p), struct{}{})
	}
	u := d.share(c.Kind)
	u.count++
	u.bytes += c.After.Size()
	return hash
}

// remove leaves a tombstone in the place of a resource.
func (d *draft) remove(c *Change, revision uint64) {
	s, p := d.open(c.Namespace), place{c.Namespace, c.Key}
	d.unlink(s, p, c.Before)
	s.byKey.Delete(d.edit, c.Key)
	s.merkle = s.merkle.Delete(c.Key)
	d.bury(s, document.Tombstone{Key: c.Key, Revision: revision, Ended: c.Type == document.Ended})
	s.modRevision = revision
}

// bury stores a tombstone.
func (d *draft) bury(s *content, t document.Tombstone) {
	s.byRevision.Put(d.edit, revised{t.Revision, t.Key}, nil)
	s.dead.Put(d.edit, t.Key, t)
	d.graves.Put(d.edit, queued{t.Revision, place{s.name, t.Key}}, struct{}{})
}

// unlink takes a resource out of everything but byKey and the Merkle tree.
func (d *draft) unlink(s *content, p place, r *document.Resource) {
	s.byRevision.Delete(d.edit, revised{r.ModRevision, r.Key})
	if r.End != 0 {
		d.ends.Delete(d.edit, endOf(r, p))
	}
	u := d.share(r.Kind)
	u.count--
	u.bytes -= r.Size()
}

// endOf returns the place of an override in the queue of ends.
func endOf(r *document.Resource, p place) queued {
	return queued{uint64(r.End), p} //nolint:gosec // ends are positive
}

// forgetTombstones drops the oldest tombstones over the limit. Cursors from
// before them need a snapshot from now on.
func (d *draft) forgetTombstones() {
	for d.graves.Len() > d.limits.Tombstones {
		oldest, _, _ := d.graves.Min()
		s := d.open(oldest.namespace)
		s.dead.Delete(d.edit, oldest.Key)
		s.byRevision.Delete(d.edit, revised{oldest.at, oldest.Key})
		s.floor = oldest.at
		d.graves.Delete(d.edit, oldest)
	}
}

// record appends to the audit.
func (d *draft) record(r *AuditRecord, hashes [][32]byte) {
	r.fit(d.limits.AuditRecordBytes)
	d.history = hashRecord(d.history, r, hashes)
	d.audit.push(r)
	d.auditBytes += r.size()
	for d.auditBytes > d.limits.AuditBytes {
		dropped := d.audit.pop()
		d.auditBytes -= dropped.size()
		d.auditDropped = dropped.Revision
	}
}
