package state

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// twin is the state again, as slowly and plainly as possible: maps, slices, and
// a scan for every question. It shares nothing with Machine but the limits and
// the size of a resource.
type twin struct {
	limits              Limits
	epoch               document.Epoch
	revision, term      uint64
	now, lived, horizon int64
	resources           map[place]*document.Resource
	mods, floors        map[string]uint64 // by namespace; mods tells which exist
	tombstones          []grave
	outcomes            []twinOutcome
	audit               []*AuditRecord
	dropped             uint64
	contents            map[uint64]map[place]*document.Resource // by revision of this epoch
}

type grave struct {
	place
	revision uint64
	ended    bool
}

type twinOutcome struct {
	id, body string
	lived    int64
	outcome  Outcome
}

func newTwin(limits Limits) *twin {
	return &twin{
		limits: limits, horizon: -1 << 63, resources: map[place]*document.Resource{}, mods: map[string]uint64{},
		floors: map[string]uint64{}, contents: map[uint64]map[place]*document.Resource{0: {}},
	}
}

func (w *twin) clone() *twin {
	c := *w
	c.resources, c.mods, c.floors = maps.Clone(w.resources), maps.Clone(w.mods), maps.Clone(w.floors)
	c.tombstones, c.outcomes, c.audit = slices.Clone(w.tombstones), slices.Clone(w.outcomes), slices.Clone(w.audit)
	c.contents = maps.Clone(w.contents)
	return &c
}

func (w *twin) apply(term uint64, cmd *storagev1.Command) Result {
	now := max(w.now, cmd.GetTimeMs())
	if term == w.term {
		w.lived += now - w.now
	}
	w.now, w.term = now, term
	for len(w.outcomes) > 0 && w.lived-w.outcomes[0].lived >= w.limits.OutcomeAge.Milliseconds() {
		w.dropOutcome()
	}
	id := string(cmd.GetRequestId())
	stripped, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&storagev1.Command{Body: cmd.Body})
	if id != "" {
		for _, o := range w.outcomes {
			if o.id != id {
				continue
			}
			if o.body != string(stripped) {
				return Result{Outcome: w.refuse(ReasonRequestIDReused, -1, 0)}
			}
			return Result{Outcome: o.outcome, Duplicate: true}
		}
		if w.lived-cmd.GetAgeMs()-cmd.GetAgeMs()/100-1_005 <= w.horizon {
			return Result{Outcome: w.refuse(ReasonRequestTooOld, -1, 0)}
		}
	}
	outcome, touched := w.execute(cmd)
	if id != "" {
		w.keep(twinOutcome{id, string(stripped), w.lived, outcome})
	}
	return Result{Outcome: outcome, Touched: touched}
}

func (w *twin) keep(o twinOutcome) {
	w.outcomes = append(w.outcomes, o)
	size := func() (n int) {
		for _, o := range w.outcomes {
			n += outcomeOverhead + len(o.outcome.Changes)
			if o.outcome.Rejection != nil {
				n += rejectionOverhead
			}
		}
		return n
	}
	for len(w.outcomes) > w.limits.Outcomes || size() > w.limits.OutcomeBytes {
		w.dropOutcome()
	}
}

func (w *twin) dropOutcome() {
	w.horizon = max(w.horizon, w.outcomes[0].lived)
	w.outcomes = w.outcomes[1:]
}

func (w *twin) refuse(reason string, step int, actual uint64) Outcome {
	return Outcome{Revision: w.revision, Rejection: &Rejection{Reason: reason, Step: step, Actual: actual}}
}

func (w *twin) execute(cmd *storagev1.Command) (Outcome, []string) {
	switch body := cmd.Body.(type) {
	case *storagev1.Command_Transaction:
		return w.transact(cmd, body.Transaction.GetSteps())
	case *storagev1.Command_Expire:
		var due []place
		for p, r := range w.resources {
			if r.End != 0 && r.End <= w.now {
				due = append(due, p)
			}
		}
		slices.SortFunc(due, func(a, b place) int {
			return cmp.Or(cmp.Compare(w.resources[a].End, w.resources[b].End), comparePlaces(a, b))
		})
		record := &AuditRecord{Actor: "holdfast", ActorVerified: true, Reason: "ended"}
		for _, p := range due {
			w.change(record, p, nil, document.Ended)
		}
		return w.finish(record, nil)
	case *storagev1.Command_NewEpoch:
		switch {
		case !w.epoch.HasLineage():
			w.epoch = document.Epoch{Lineage: [16]byte(body.NewEpoch.GetLineage()), Counter: 1, Nonce: body.NewEpoch.GetNonce()}
		case w.epoch.Nonce != body.NewEpoch.GetNonce():
			w.epoch = document.Epoch{Lineage: w.epoch.Lineage, Counter: w.epoch.Counter + 1, Nonce: body.NewEpoch.GetNonce()}
		}
	}
	return Outcome{Revision: w.revision}, nil
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), a.Compare(b.Key))
}

func (w *twin) transact(cmd *storagev1.Command, steps []*storagev1.Step) (Outcome, []string) {
	if len(steps) > w.limits.Steps {
		return w.refuse(ReasonCommandTooLarge, -1, 0), nil
	}
	before := w.clone()
	record := &AuditRecord{
		Actor: cmd.GetActor().GetName(), ActorVerified: cmd.GetActor().GetVerified(),
		Reason: cmd.GetReason(), RequestID: cmd.GetRequestId(),
	}
	var types []document.ChangeType
	for i, s := range steps {
		p := place{s.GetKey().GetNamespace(), document.Key{Kind: document.Kind(s.GetKey().GetKind()), Name: s.GetKey().GetName()}}
		for j := range i {
			if proto.Equal(steps[j].GetKey(), s.GetKey()) {
				*w = *before
				return w.refuse(ReasonInvalidCommand, i, 0), nil
			}
		}
		old, actual := w.resources[p], uint64(0)
		if old != nil {
			actual = old.ModRevision
		}
		if s.ExpectedRevision != nil && s.GetExpectedRevision() != actual {
			*w = *before
			return w.refuse(ReasonRevisionMismatch, i, actual), nil
		}
		types = append(types, w.step(record, p, s, old))
	}
	if reason := w.over(before); reason != "" {
		*w = *before
		return w.refuse(reason, -1, 0), nil
	}
	return w.finish(record, types)
}

func (w *twin) step(record *AuditRecord, p place, s *storagev1.Step, old *document.Resource) document.ChangeType {
	switch {
	case s.GetDelete() && old == nil:
		return document.Absent
	case s.GetDelete():
		w.change(record, p, nil, document.Deleted)
		return document.Deleted
	}
	var labels []document.Label
	for _, l := range s.GetLabels() {
		labels = append(labels, document.Label{Key: l.GetKey(), Value: l.GetValue()})
	}
	if old != nil && p.Kind != document.Override && bytes.Equal(old.Spec, s.GetSpec()) && slices.Equal(old.Labels, labels) {
		return document.Unchanged
	}
	r := &document.Resource{
		Key: p.Key, Spec: s.GetSpec(), Labels: labels, CreateRevision: w.revision + 1, ModRevision: w.revision + 1,
		Version: 1, CreateTime: w.now, UpdateTime: w.now,
		Actor: record.Actor, ActorVerified: record.ActorVerified, Reason: record.Reason,
	}
	if s.GetTtlMs() > 0 {
		r.End = w.now + s.GetTtlMs()
	}
	if old == nil {
		w.change(record, p, r, document.Created)
		return document.Created
	}
	r.CreateRevision, r.CreateTime, r.Version = old.CreateRevision, old.CreateTime, old.Version+1
	w.change(record, p, r, document.Updated)
	return document.Updated
}

// change changes a resource at the revision to come.
func (w *twin) change(record *AuditRecord, p place, r *document.Resource, what document.ChangeType) {
	c := AuditChange{Namespace: p.namespace, Key: p.Key, Type: what}
	if old := w.resources[p]; old != nil {
		c.Before = old.Spec
	}
	w.tombstones = slices.DeleteFunc(w.tombstones, func(g grave) bool { return g.place == p })
	if r == nil {
		delete(w.resources, p)
		w.tombstones = append(w.tombstones, grave{p, w.revision + 1, what == document.Ended})
	} else {
		w.resources[p], c.After = r, r.Spec
	}
	w.mods[p.namespace] = w.revision + 1
	record.Changes = append(record.Changes, c)
}

// over tells which limit the changes since before exceed.
func (w *twin) over(before *twin) string {
	count := func(w *twin, override bool) (n, size int) {
		for p, r := range w.resources {
			if (p.Kind == document.Override) == override {
				n++
				size += r.Size()
			}
		}
		return n, size
	}
	dn, ds := count(w, false)
	on, os := count(w, true)
	bdn, bds := count(before, false)
	bon, bos := count(before, true)
	l := w.limits
	switch {
	case len(w.mods) > len(before.mods) && len(w.mods) > l.Namespaces:
		return ReasonTooManyNamespaces
	case dn > bdn && dn > l.Declared:
		return ReasonTooManyResources
	case on > bon && on > l.Overrides:
		return ReasonTooManyOverrides
	case ds > bds && ds > l.DeclaredBytes, os > bos && os > l.OverrideBytes:
		return ReasonStateFull
	}
	return ""
}

func (w *twin) finish(record *AuditRecord, types []document.ChangeType) (Outcome, []string) {
	if len(record.Changes) == 0 {
		return Outcome{Revision: w.revision, Changes: types}, nil
	}
	w.revision++
	slices.SortFunc(w.tombstones, func(a, b grave) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), comparePlaces(a.place, b.place))
	})
	for ; len(w.tombstones) > w.limits.Tombstones; w.tombstones = w.tombstones[1:] {
		w.floors[w.tombstones[0].namespace] = w.tombstones[0].revision
	}
	w.note(record)
	w.contents[w.revision] = maps.Clone(w.resources)
	touched := map[string]bool{}
	for _, c := range record.Changes {
		touched[c.Namespace] = true
	}
	return Outcome{Revision: w.revision, Changes: types}, slices.Sorted(maps.Keys(touched))
}

func (w *twin) note(record *AuditRecord) {
	record.Revision, record.Time = w.revision, w.now
	for i := len(record.Changes) - 1; i >= 0 && record.size() > w.limits.AuditRecordBytes; i-- {
		record.Changes[i].Before = nil
	}
	w.audit = append(w.audit, record)
	size := func() (n int) {
		for _, r := range w.audit {
			n += r.size()
		}
		return n
	}
	for size() > w.limits.AuditBytes {
		w.dropped, w.audit = w.audit[0].Revision, w.audit[1:]
	}
}

// restore swaps a backup in, as the command with the body does.
func (w *twin) restore(backup *twin, nonce uint64, actor, why string) {
	same := w.epoch.Lineage == backup.epoch.Lineage
	counter := backup.epoch.Counter
	if same {
		counter = max(counter, w.epoch.Counter)
	}
	b := backup.clone()
	older := w.revision
	if !same {
		w.audit, w.dropped, older = nil, b.dropped, 0
	}
	for _, r := range b.audit {
		if r.Revision > older {
			w.audit = append(w.audit, r)
		}
	}
	w.epoch = document.Epoch{Lineage: b.epoch.Lineage, Counter: counter + 1, Nonce: nonce}
	w.revision = max(w.revision, b.revision) + 1
	w.now = max(w.now, b.now)
	w.resources, w.tombstones = b.resources, b.tombstones
	w.mods, w.floors = map[string]uint64{}, map[string]uint64{}
	for p := range w.resources {
		w.mods[p.namespace] = b.mods[p.namespace]
		if f, ok := b.floors[p.namespace]; ok {
			w.floors[p.namespace] = f
		}
	}
	w.tombstones = slices.DeleteFunc(w.tombstones, func(g grave) bool { _, ok := w.mods[g.namespace]; return !ok })
	for _, o := range b.outcomes {
		if !slices.ContainsFunc(w.outcomes, func(own twinOutcome) bool { return own.id == o.id }) {
			o.lived = w.lived
			w.keep(o)
		}
	}
	horizon := w.lived
	if b.lived-b.horizon > 1_005 || b.horizon == -1<<63 {
		horizon -= 1_006
	}
	w.horizon = max(w.horizon, horizon)
	w.note(&AuditRecord{Actor: actor, Reason: why})
	w.contents = map[uint64]map[place]*document.Resource{w.revision: maps.Clone(w.resources)}
}
