package check

import (
	"cmp"
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// wellFormed checks what all other rules take for granted.
func wellFormed(f *facts) *finding {
	out := &finding{}
	busy := make(map[string]int64)
	writer := make(map[cellID]*history.Op)
	for i := range f.Ops {
		op := &f.Ops[i]
		out.looked(1)
		if op.Call <= 0 || op.Return < op.Call {
			out.void("%s: it returned before it was called", show(op))
		}
		if !op.Probe {
			if op.Call < busy[op.Client] {
				out.void("%s: the client had another operation open", show(op))
			}
			busy[op.Client] = op.Return
		}
		if !writes(op) {
			continue
		}
		for _, c := range op.Cells {
			id := cellID{c.Key, c.Value}
			if other := writer[id]; other != nil && !c.Absent {
				out.void("%s: the value was written before, by %s", show(op), show(other))
			}
			writer[id] = op
		}
	}
	return out
}

// point is a call or a return in the sweep.
type point struct {
	t   int64
	ret bool
	op  *history.Op
}

// sweep is the state of the revision sweep: the highest places of operations that
// have returned.
type sweep struct {
	f     *facts
	out   *finding
	store history.Place
	keys  map[string]history.Place
	// what was said of revisions and values
	values    map[keyRevision]string
	revisions map[cellID]uint64
	commits   map[uint64]*history.Op
}

type keyRevision struct {
	key      string
	revision uint64
}

// revisionSweep goes through calls and returns in the order of time, calls first.
// Whatever an operation saw must be at least as new as all that had returned when
// it was called.
func revisionSweep(f *facts) *finding {
	s := &sweep{
		f: f, out: &finding{}, keys: make(map[string]history.Place),
		values: make(map[keyRevision]string), revisions: make(map[cellID]uint64), commits: make(map[uint64]*history.Op),
	}
	points := make([]point, 0, 2*len(f.Ops))
	for i := range f.Ops {
		op := &f.Ops[i]
		if op.Outcome != history.OK || (!writes(op) && op.F != history.Get) {
			continue
		}
		points = append(points, point{op.Call, false, op}, point{op.Return, true, op})
	}
	slices.SortStableFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.t, b.t), compareBools(a.ret, b.ret))
	})
	for _, p := range points {
		switch {
		case p.ret:
			s.returned(p.op)
		case p.op.F == history.Get:
			s.read(p.op)
		default:
			s.write(p.op)
		}
	}
	return s.out
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func (s *sweep) returned(op *history.Op) {
	if op.Local {
		return // it promises nothing to others
	}
	at := s.f.log.place(op.Epoch, max(op.Store, op.Revision))
	if op.Store == 0 && op.F != history.Get {
		at = s.f.log.committed(op)
	}
	if s.store.Before(at) {
		s.store = at
	}
	for _, c := range op.Cells {
		at := s.f.log.place(op.Epoch, c.Revision)
		if op.F != history.Get {
			at = s.f.log.committed(op)
		}
		if s.keys[c.Key].Before(at) && at.Revision > 0 {
			s.keys[c.Key] = at
		}
	}
}

func (s *sweep) read(op *history.Op) {
	s.out.looked(1)
	for _, c := range op.Cells {
		if !c.Absent {
			s.identity(op, c, c.Revision)
		}
	}
	if op.Local {
		return
	}
	at := s.f.log.place(op.Epoch, op.Store)
	if at.Before(s.store) {
		s.out.fail("stale state: %s answers from %v, but %v had been seen", show(op), at, s.store)
		return
	}
	for _, c := range op.Cells {
		at, newest := s.f.log.place(op.Epoch, c.Revision), s.keys[c.Key]
		switch {
		case c.Absent && at.Epoch == newest.Epoch && s.lives(op, c.Key, newest):
			s.out.fail("lost: %s finds nothing, but %v had been seen, and nobody deleted it", show(op), newest)
		case !c.Absent && at.Before(newest):
			s.out.fail("stale: %s, but %v had been seen", show(op), newest)
		}
	}
}

// lives tells that what was seen of a register cannot have been deleted by the
// time of a read.
func (s *sweep) lives(read *history.Op, key string, seen history.Place) bool {
	if seen.Revision == 0 {
		return false
	}
	if v, _ := s.f.log.at(key, seen); v.absent {
		return false
	}
	deleted := func(op *history.Op, cells []history.Cell) bool {
		return op.Call <= read.Return && slices.ContainsFunc(cells, func(c history.Cell) bool { return c.Key == key && c.Absent })
	}
	for _, v := range s.f.log.versions[key] {
		if seen.Before(v.at) && v.absent && v.op.Call <= read.Return {
			return false
		}
	}
	return !slices.ContainsFunc(s.f.log.open[key], func(op *history.Op) bool { return deleted(op, op.Cells) })
}

func (s *sweep) write(op *history.Op) {
	s.out.looked(1)
	at := s.f.log.committed(op)
	if !s.store.Before(at) {
		s.out.fail("lost or reused: %s is committed at %v, but %v had been seen", show(op), at, s.store)
	}
	if other := s.commits[op.Revision]; other != nil {
		s.out.fail("one revision for two writes: %s and %s", show(op), show(other))
	}
	s.commits[op.Revision] = op
	for _, c := range op.Cells {
		if !c.Absent {
			s.identity(op, c, op.Revision)
		}
	}
}

// identity checks that a value has one revision, a revision one value, and that
// somebody wrote it who may have.
func (s *sweep) identity(op *history.Op, c history.Cell, revision uint64) {
	at, id := keyRevision{c.Key, revision}, cellID{c.Key, c.Value}
	if value, ok := s.values[at]; ok && value != c.Value {
		s.out.fail("one revision, two values: %s, but it was %q", show(op), value)
	}
	s.values[at] = c.Value
	if other, ok := s.revisions[id]; ok && other != revision {
		s.out.fail("one write, two revisions: %s, but it was at %d", show(op), other)
	}
	s.revisions[id] = revision
	if op.F != history.Get {
		return
	}
	writer := s.f.log.writers[id]
	switch {
	case writer == nil:
		s.out.fail("invented: %s, which nobody wrote", show(op))
	case writer.Outcome == history.Failed:
		s.out.fail("refused, yet there: %s, of %s", show(op), show(writer))
	case writer.Call > op.Return:
		s.out.fail("from the future: %s, of %s", show(op), show(writer))
	case op.Store > 0 && revision > op.Store:
		s.out.fail("newer than its state: %s answers from %d", show(op), op.Store)
	}
}

// minRevision checks that a read that asked for a revision got it.
func minRevision(f *facts) *finding {
	out := &finding{}
	for i := range f.Ops {
		op := &f.Ops[i]
		if op.F != history.Get || op.Outcome != history.OK || op.MinRevision == 0 {
			continue
		}
		out.looked(1)
		if op.Store < op.MinRevision {
			out.fail("%s asked for %d and is answered from %d", show(op), op.MinRevision, op.Store)
		}
	}
	return out
}

// localReads checks that a read of a server's own state shows that state.
func localReads(f *facts) *finding {
	out := &finding{}
	for i := range f.Ops {
		op := &f.Ops[i]
		if op.F != history.Get || op.Outcome != history.OK || !op.Local {
			continue
		}
		for _, c := range op.Cells {
			out.looked(1)
			at := f.log.place(op.Epoch, op.Store)
			v, sure := f.log.at(c.Key, at)
			switch {
			case f.log.seenAs(c, at):
			case !sure:
				out.doubt("%s: not known what it was at %v", show(op), at)
			default:
				out.fail("%s, but at %v it was %s", show(op), at, v)
			}
		}
	}
	return out
}
