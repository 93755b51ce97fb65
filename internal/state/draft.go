package state

import (
	"encoding/binary"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// maxTime is the last state time, in milliseconds: the end of the longest
// override from then on is still a timestamp.
const maxTime = 253_402_300_799_999 - 400*24*3_600_000 // 9999-12-31 less 400 days

// draft is a view in the making, one per batch. What it has not opened is that
// of the view it began from.
type draft struct {
	View
	requests map[requestID]*kept
	spaces   map[string]*space
	opened   []*space // those of spaces, in the order of their opening
	endsTxn  *iradix.Txn[place]
	gravesTx *iradix.Txn[place]
	buried   int // tombstones
	created  int // namespaces opened that are new
}

// space is a namespace in the making.
type space struct {
	name               string
	byKey, byRevision  *iradix.Txn[*document.Resource]
	dead               *iradix.Txn[document.Tombstone]
	tree               document.Tree
	modRevision, floor uint64
}

func newDraft(v *View, requests map[requestID]*kept) *draft {
	d := &draft{requests: requests}
	d.begin(v)
	return d
}

// begin makes the draft one that changes v.
func (d *draft) begin(v *View) {
	d.View = *v
	d.spaces, d.opened, d.created = make(map[string]*space), nil, 0
	d.endsTxn, d.gravesTx, d.buried = v.ends.Txn(), v.graves.Txn(), v.graves.Len()
}

// seal returns the draft as a view. The draft goes on from it.
func (d *draft) seal() *View {
	v := d.View
	if len(d.opened) > 0 {
		all := v.namespaces.Txn()
		for _, s := range d.opened {
			all.Insert([]byte(s.name), s.seal())
		}
		v.namespaces = all.Commit()
	}
	v.ends, v.graves = d.endsTxn.Commit(), d.gravesTx.Commit()
	d.begin(&v)
	return &v
}

func (s *space) seal() *content {
	return &content{
		name:        s.name,
		byKey:       s.byKey.Commit(),
		byRevision:  s.byRevision.Commit(),
		dead:        s.dead.Commit(),
		tree:        s.tree,
		modRevision: s.modRevision,
		floor:       s.floor,
	}
}

// open returns a namespace to change, a new one if there is none of the name.
func (d *draft) open(name string) *space {
	if s, ok := d.spaces[name]; ok {
		return s
	}
	c, ok := d.namespaces.Get([]byte(name))
	if !ok {
		c = newContent(name)
		d.created++
	}
	s := &space{
		name:        name,
		byKey:       c.byKey.Txn(),
		byRevision:  c.byRevision.Txn(),
		dead:        c.dead.Txn(),
		tree:        c.tree,
		modRevision: c.modRevision,
		floor:       c.floor,
	}
	d.spaces[name] = s
	d.opened = append(d.opened, s)
	return s
}

// lookup returns a resource as the draft has it, or nil.
func (d *draft) lookup(p place) *document.Resource {
	s, ok := d.spaces[p.namespace]
	if !ok {
		return d.View.lookup(p)
	}
	var space [64]byte
	r, _ := s.byKey.Get(appendKey(space[:0], p.Key))
	return r
}

// has tells whether a namespace exists in the draft.
func (d *draft) has(namespace string) bool {
	_, ok := d.spaces[namespace]
	return ok || d.View.has(namespace)
}

// size returns the number of namespaces.
func (d *draft) size() int { return d.namespaces.Len() + d.created }

// apply applies one command: time, then the retry, then what the command says.
func (d *draft) apply(e *Entry, cmd *storagev1.Command) Result {
	d.index = e.Index
	result := Result{Index: e.Index}
	if rejection := checkCommand(d.limits, e.Data, cmd); rejection != nil {
		d.advance(e.Term, d.now)
		result.Outcome = Outcome{Revision: d.revision, Rejection: rejection}
		return result
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
		changes, rejection = plan(d, d.author(cmd), body.Transaction)
		if rejection == nil {
			touched = d.commit(d.author(cmd), cmd.GetRequestId(), changes)
		}
	case *storagev1.Command_Tick:
	case *storagev1.Command_Expire:
		touched = d.expire()
	case *storagev1.Command_RestoreBegin:
		rejection = d.restoreBegin(body.RestoreBegin)
	case *storagev1.Command_RestoreChunk:
		rejection = d.restoreChunk(body.RestoreChunk)
	case *storagev1.Command_RestoreCommit:
		touched, rejection = d.restoreCommit(cmd, body.RestoreCommit)
	case *storagev1.Command_RestoreAbort:
		rejection = d.restoreAbort(body.RestoreAbort)
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
		next := Epoch{Counter: 1, Nonce: body.GetNonce()}
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
	it := d.endsTxn.Root().Iterator()
	for k, p, ok := it.Next(); ok; k, p, ok = it.Next() {
		if int64(binary.BigEndian.Uint64(k)) > d.now { //nolint:gosec // ends are positive
			break
		}
		changes = append(changes, Change{
			Namespace: p.namespace, Key: p.Key, Type: document.Ended, Before: d.lookup(p),
		})
	}
	by := author{revision: d.revision + 1, now: d.now, actor: "holdfast", verified: true, reason: "ended"}
	return d.commit(by, nil, changes)
}

// commit makes the changes, which were planned on this draft, at one revision.
// It cannot fail. Without a change it has no effect.
func (d *draft) commit(by author, requestID []byte, changes []Change) []string {
	record := AuditRecord{
		Revision: by.revision, Time: by.now, Actor: by.actor, ActorVerified: by.verified,
		Reason: by.reason, RequestID: requestID,
	}
	var hashes [][32]byte
	var touched []string
	for i := range changes {
		c := &changes[i]
		var after []byte
		var hash [32]byte
		switch c.Type {
		case document.Created, document.Updated:
			hash, after = d.put(c), c.After.Spec
		case document.Deleted, document.Ended:
			d.remove(c, by.revision)
		default:
			continue
		}
		var before []byte
		if c.Before != nil {
			before = c.Before.Spec
		}
		record.Changes = append(record.Changes, AuditChange{
			Namespace: c.Namespace, Key: c.Key, Type: c.Type, Before: before, After: after,
		})
		hashes = append(hashes, hash)
		touched = append(touched, c.Namespace)
	}
	if len(record.Changes) == 0 {
		return nil
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
	k := revisionKey(c.After.ModRevision, c.Key)
	if c.Before != nil {
		d.unlink(s, p, c.Before)
	} else if t, ok := s.dead.Delete(k[revisionSize:]); ok {
		s.byRevision.Delete(revisionKey(t.Revision, c.Key))
		d.gravesTx.Delete(orderKey(t.Revision, p))
		d.buried--
	}
	s.byRevision.Insert(k, c.After)
	s.byKey.Insert(k[revisionSize:], c.After)
	hash := c.After.Hash()
	s.tree = s.tree.Put(c.Key, hash)
	s.modRevision = c.After.ModRevision
	if c.After.End != 0 {
		d.endsTxn.Insert(orderKey(uint64(c.After.End), p), p) //nolint:gosec // ends are positive
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
	k := revisionKey(revision, c.Key)
	s.byKey.Delete(k[revisionSize:])
	s.byRevision.Insert(k, nil)
	s.dead.Insert(k[revisionSize:], document.Tombstone{Key: c.Key, Revision: revision, Ended: c.Type == document.Ended})
	s.tree = s.tree.Delete(c.Key)
	s.modRevision = revision
	d.gravesTx.Insert(orderKey(revision, p), p)
	d.buried++
}

// unlink takes a resource out of everything but byKey and the tree.
func (d *draft) unlink(s *space, p place, r *document.Resource) {
	s.byRevision.Delete(revisionKey(r.ModRevision, r.Key))
	if r.End != 0 {
		d.endsTxn.Delete(orderKey(uint64(r.End), p)) //nolint:gosec // ends are positive
	}
	u := d.share(r.Kind)
	u.count--
	u.bytes -= r.Size()
}

// forgetTombstones drops the oldest tombstones over the limit. Cursors from
// before them need a snapshot from now on.
func (d *draft) forgetTombstones() {
	for ; d.buried > d.limits.Tombstones; d.buried-- {
		k, p, _ := d.gravesTx.Root().Minimum()
		revision := binary.BigEndian.Uint64(k)
		s, rk := d.open(p.namespace), revisionKey(revision, p.Key)
		s.dead.Delete(rk[revisionSize:])
		s.byRevision.Delete(rk)
		s.floor = revision
		d.gravesTx.Delete(k)
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
