package check

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// ledger is the authoritative log: what was committed where, as far as the history
// tells. It joins what clients know of their writes with what servers applied.
type ledger struct {
	// versions of each register, in the order of their places.
	versions map[string][]version
	// order is the versions of what watchers follow, in the order of their places.
	order []keyed
	// followed are those registers.
	followed []string
	// touched are the registers that anybody tried to write.
	touched map[string]struct{}
	// writers of each value of a register.
	writers map[cellID]*history.Op
	// open are the writes to a register of which nobody knows whether they happened.
	open map[string][]*history.Op
	// fate of the writes that were not acknowledged: committed at a place, or never.
	fate map[*history.Op]fate
	// restores by the epoch that they began.
	restores map[uint64]*history.Op
	// applied are the commands that took effect, by request.
	applied map[string][]*history.Applied
	// complete tells that the servers' traces have every revision.
	complete bool
	// epochs tells that the run has more than one, first is the lowest.
	epochs bool
	first  uint64
}

type cellID struct{ key, value string }

// version is what a commit made of a register.
type version struct {
	at     history.Place
	value  string
	absent bool
	op     *history.Op
}

type keyed struct {
	key string
	at  history.Place
}

type fate struct {
	at    history.Place
	never bool
}

func newLedger(h *history.History) *ledger {
	l := &ledger{
		versions: make(map[string][]version), touched: make(map[string]struct{}), writers: make(map[cellID]*history.Op),
		open: make(map[string][]*history.Op), fate: make(map[*history.Op]fate),
		restores: make(map[uint64]*history.Op), applied: make(map[string][]*history.Applied),
	}
	if l.epochs = severalEpochs(h); l.epochs {
		l.first, _ = epochsOf(h)
	}
	l.readTraces(h)
	seen := l.observed(h)
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.F == history.Restore && op.Outcome == history.OK {
			l.restores[op.Epoch] = op
		}
	}
	for i := range h.Ops {
		if op := &h.Ops[i]; writes(op) {
			l.enter(op, seen)
		}
	}
	for key, versions := range l.versions {
		if !elsewhere(key) {
			l.followed = append(l.followed, key)
			for _, v := range versions {
				l.order = append(l.order, keyed{key, v.at})
			}
		}
		slices.SortStableFunc(versions, func(a, b version) int { return comparePlaces(a.at, b.at) })
	}
	slices.SortFunc(l.order, func(a, b keyed) int { return cmp.Or(comparePlaces(a.at, b.at), cmp.Compare(a.key, b.key)) })
	return l
}

func comparePlaces(a, b history.Place) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Revision, b.Revision))
}

// writes tells whether an operation may change registers.
func writes(op *history.Op) bool {
	switch op.F {
	case history.Put, history.CAS, history.Delete, history.Txn:
		return true
	default:
		return false
	}
}

// epochsOf are the lowest and the highest epoch that anybody told.
func epochsOf(h *history.History) (low, high uint64) {
	low = math.MaxUint64
	see := func(epoch uint64) {
		if epoch > 0 {
			low, high = min(low, epoch), max(high, epoch)
		}
	}
	for i := range h.Ops {
		see(h.Ops[i].Epoch)
	}
	for i := range h.Applied {
		see(h.Applied[i].Epoch)
	}
	for i := range h.Watches {
		see(h.Watches[i].Epoch)
	}
	return low, high
}

// severalEpochs tells whether epochs matter. Where there is only one, records that do
// not know it are as good as those that do.
func severalEpochs(h *history.History) bool {
	low, high := epochsOf(h)
	return high > low
}

// dated tells whether a record can be placed: where there are several epochs, one that
// does not tell its own cannot.
func (l *ledger) dated(epoch uint64) bool { return !l.epochs || epoch > 0 }

// place is where a record stands in the history of the state.
func (l *ledger) place(epoch, revision uint64) history.Place {
	if !l.epochs {
		epoch = 0
	}
	return history.Place{Epoch: epoch, Revision: revision}
}

// committed is where an acknowledged write was committed. A retry may be answered in
// a later epoch than its commit's: revisions rise across them.
func (l *ledger) committed(op *history.Op) history.Place {
	epoch := op.Epoch
	if applied := l.applied[op.Request]; op.Request != "" && len(applied) > 0 && applied[0].Revision == op.Revision {
		epoch = cmp.Or(applied[0].Epoch, epoch)
	}
	for ; l.epochs && epoch > l.first; epoch-- {
		if began, ok := l.restores[epoch]; !ok || began.Revision <= op.Revision {
			break
		}
	}
	return l.place(epoch, op.Revision)
}

// readTraces sorts what the servers applied. The traces are complete if somebody
// applied every revision up to the highest that anybody was told of.
func (l *ledger) readTraces(h *history.History) {
	revisions := make(map[uint64]struct{})
	highest := uint64(0)
	for i := range h.Applied {
		a := &h.Applied[i]
		highest = max(highest, a.Revision)
		if !a.Effective {
			continue
		}
		revisions[a.Revision] = struct{}{}
		if a.Request != "" {
			l.applied[a.Request] = append(l.applied[a.Request], a)
		}
	}
	for i := range h.Ops {
		highest = max(highest, h.Ops[i].Revision, h.Ops[i].Store)
	}
	l.complete = h.Run.Settled > 0 && len(revisions) > 0 && uint64(len(revisions)) == highest
}

// observed are the places of all values that were seen, by anybody.
func (l *ledger) observed(h *history.History) map[cellID]history.Place {
	seen := make(map[cellID]history.Place)
	look := func(epoch uint64, cells []history.Cell) {
		for _, c := range cells {
			if !c.Absent && c.Revision > 0 {
				id, at := cellID{c.Key, c.Value}, l.place(epoch, c.Revision)
				if have, ok := seen[id]; !ok || at.Before(have) {
					seen[id] = at
				}
			}
		}
	}
	for i := range h.Ops {
		if op := &h.Ops[i]; op.F == history.Get && op.Outcome == history.OK {
			look(op.Epoch, op.Cells)
		}
	}
	for i := range h.Watches {
		look(h.Watches[i].Epoch, h.Watches[i].Cells)
	}
	for i := range h.Ends {
		look(h.Ends[i].Epoch, h.Ends[i].Cells)
	}
	return seen
}

// enter puts a write into the log, or among those that are open.
func (l *ledger) enter(op *history.Op, seen map[cellID]history.Place) {
	for _, c := range op.Cells {
		l.touched[c.Key] = struct{}{}
		if !c.Absent {
			l.writers[cellID{c.Key, c.Value}] = op
		}
	}
	switch op.Outcome {
	case history.OK:
		l.commit(op, l.committed(op))
	case history.Failed:
		l.fate[op] = fate{never: true}
	case history.Unknown:
		at, never := l.resolve(op, seen)
		switch {
		case never:
			l.fate[op] = fate{never: true}
		case at.Revision > 0:
			l.fate[op] = fate{at: at}
			l.commit(op, at)
		default:
			for _, c := range op.Cells {
				l.open[c.Key] = append(l.open[c.Key], op)
			}
		}
	}
}

// resolve finds out what became of a write that nobody acknowledged: the servers'
// traces tell, or somebody saw its value.
func (l *ledger) resolve(op *history.Op, seen map[cellID]history.Place) (at history.Place, never bool) {
	if applied := l.applied[op.Request]; op.Request != "" && len(applied) > 0 {
		return l.place(applied[0].Epoch, applied[0].Revision), false
	}
	if l.complete && op.Request != "" {
		return history.Place{}, true
	}
	for _, c := range op.Cells {
		if at, ok := seen[cellID{c.Key, c.Value}]; ok && !c.Absent {
			return at, false
		}
	}
	return history.Place{}, false
}

func (l *ledger) commit(op *history.Op, at history.Place) {
	for _, c := range op.Cells {
		l.versions[c.Key] = append(l.versions[c.Key], version{at: at, value: c.Value, absent: c.Absent, op: op})
	}
}

// newest is the last version of a register up to a place, of whatever epoch.
func (l *ledger) newest(key string, at history.Place) (version, bool) {
	versions := l.versions[key]
	i := sort.Search(len(versions), func(i int) bool { return at.Before(versions[i].at) })
	if i == 0 {
		return version{}, false
	}
	return versions[i-1], true
}

// previous is the revision of the version of a register before a place, 0 if there is
// none in its epoch.
func (l *ledger) previous(key string, at history.Place) uint64 {
	versions := l.versions[key]
	i := sort.Search(len(versions), func(i int) bool { return !versions[i].at.Before(at) })
	if i == 0 || versions[i-1].at.Epoch != at.Epoch {
		return 0
	}
	return versions[i-1].at.Revision
}

// at is what a register was at a place. It is not sure while a write is open, or
// where a restore is not recorded.
func (l *ledger) at(key string, at history.Place) (v version, sure bool) {
	sure = len(l.open[key]) == 0
	if v, ok := l.newest(key, at); ok && v.at.Epoch == at.Epoch {
		return v, sure
	}
	if at.Epoch == l.first {
		return version{absent: true}, sure
	}
	restore, ok := l.restores[at.Epoch]
	if !ok || restore.Backup == nil || !restore.Backup.Before(at) {
		return version{}, false
	}
	v, known := l.at(key, l.place(restore.Backup.Epoch, restore.Backup.Revision))
	return v, known && sure
}

// changed are the followed registers that were written after one place up to another.
func (l *ledger) changed(after, upTo history.Place) map[string]struct{} {
	keys := make(map[string]struct{})
	from := sort.Search(len(l.order), func(i int) bool { return after.Before(l.order[i].at) })
	for _, k := range l.order[from:] {
		if upTo.Before(k.at) {
			break
		}
		keys[k.key] = struct{}{}
	}
	return keys
}

// known tells whether anybody ever tried to write the register.
func (l *ledger) known(key string) bool {
	_, ok := l.touched[key]
	return ok
}

// seenAs tells whether a value may stand in a register at a place: it does in the
// log, or a write of it is open.
func (l *ledger) seenAs(c history.Cell, at history.Place) bool {
	v, _ := l.at(c.Key, at)
	if v.absent == c.Absent && v.value == c.Value {
		return true
	}
	if !c.Absent {
		return slices.Contains(l.open[c.Key], l.writers[cellID{c.Key, c.Value}])
	}
	return slices.ContainsFunc(l.open[c.Key], func(op *history.Op) bool {
		return slices.ContainsFunc(op.Cells, func(w history.Cell) bool { return w.Key == c.Key && w.Absent })
	})
}
