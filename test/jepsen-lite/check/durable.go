package check

import (
	"maps"
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// survives checks that what was acknowledged is there at the end: in what each
// server holds, and among what a majority of them applied.
func survives(f *facts) *finding {
	out := &finding{none: "no server was asked at the end, and there are no traces"}
	for i := range f.Ends {
		if end := &f.Ends[i]; end.Who == history.WhoServer && end.Err == "" && (end.Complete || len(end.Cells) > 0) {
			f.holdsAcknowledged(out, end)
		}
	}
	if len(f.log.applied) == 0 {
		return out
	}
	holders := f.holders()
	for i := range f.Ops {
		op := &f.Ops[i]
		if !writes(op) || op.Outcome != history.OK || op.Request == "" {
			continue
		}
		out.looked(1)
		if f.log.complete && len(f.log.applied[op.Request]) == 0 {
			out.fail("%s was acknowledged, and no server applied it", show(op))
			continue
		}
		if n := holders(f.log.committed(op)); f.log.complete && n*2 <= len(f.Run.Servers) {
			out.fail("%s was acknowledged, and only %d of %d servers have come to it", show(op), n, len(f.Run.Servers))
		}
	}
	return out
}

// holdsAcknowledged compares what a server holds with the newest acknowledged write
// of each register, up to the revision where the server is.
func (f *facts) holdsAcknowledged(out *finding, end *history.End) {
	cells := cellsByKey(end.Cells)
	at := f.log.place(end.Epoch, end.Revision)
	if newest := f.newestAcknowledged(); at.Before(newest) {
		out.doubt("%s was asked at %v, before it had come to %v", end.ID, at, newest)
	}
	for _, key := range slices.Sorted(maps.Keys(f.log.versions)) {
		last, ok := f.log.newest(key, at)
		if !ok {
			continue
		}
		c, listed := cells[key]
		if !listed && (!end.Complete || elsewhere(key)) {
			continue
		}
		out.looked(1)
		if last.at.Epoch != at.Epoch {
			f.holdsRestored(out, end, key, c, listed)
			continue
		}
		gone := !listed || c.Absent
		open := len(f.log.open[key]) > 0
		switch {
		case gone && last.absent:
		case gone && !open:
			out.fail("%s has no %s, but the log has %s", end.ID, key, show(last.op))
		case gone:
			out.doubt("%s has no %s, and a write is open that may have deleted it", end.ID, key)
		case c.Revision < last.at.Revision:
			out.fail("%s has %s, but the log has %s", end.ID, showCell(c), show(last.op))
		case c.Revision == last.at.Revision && c.Value != last.value:
			out.fail("%s has %s, but that is %s", end.ID, showCell(c), show(last.op))
		case c.Revision > last.at.Revision && !open:
			out.fail("%s has %s, which nobody wrote", end.ID, showCell(c))
		}
	}
}

// holdsRestored compares a register that nobody wrote since a restore with what
// the backup made of it.
func (f *facts) holdsRestored(out *finding, end *history.End, key string, c history.Cell, listed bool) {
	want, sure := f.log.at(key, f.log.place(end.Epoch, end.Revision))
	have := history.Cell{Key: key, Value: c.Value, Absent: !listed || c.Absent}
	switch {
	case want.absent == have.Absent && want.value == have.Value && sure:
	case !sure:
		out.doubt("%s: not known what the restore made of %s", end.ID, key)
	default:
		out.fail("%s has %s, but the restore made it %s", end.ID, showCell(have), want)
	}
}

func cellsByKey(cells []history.Cell) map[string]history.Cell {
	byKey := make(map[string]history.Cell, len(cells))
	for _, c := range cells {
		byKey[c.Key] = c
	}
	return byKey
}

// holders counts the servers that have come as far as a place.
func (f *facts) holders() func(history.Place) int {
	furthest := make(map[string]history.Place)
	for i := range f.Applied {
		a := &f.Applied[i]
		if at := f.log.place(a.Epoch, a.Revision); furthest[a.Server].Before(at) {
			furthest[a.Server] = at
		}
	}
	return func(at history.Place) int {
		n := 0
		for _, have := range furthest {
			if !have.Before(at) {
				n++
			}
		}
		return n
	}
}

// exactlyOnce checks requests against what took effect.
func exactlyOnce(f *facts) *finding {
	out := &finding{none: "the traces tell no requests"}
	asked := make(map[string]*history.Op)
	for i := range f.Ops {
		if op := &f.Ops[i]; op.Request != "" {
			asked[op.Request] = op
		}
	}
	for _, request := range slices.Sorted(maps.Keys(f.log.applied)) {
		out.looked(1)
		name := "request " + request
		op := asked[request]
		if op != nil {
			name = show(op)
		}
		first := f.log.applied[request][0]
		for _, a := range f.log.applied[request] {
			if a.Index != first.Index {
				out.fail("%s took effect at index %d and again at index %d on %s", name, first.Index, a.Index, a.Server)
				break
			}
		}
		switch {
		case op == nil:
		case op.Outcome == history.Failed:
			out.fail("%s was refused, and took effect at index %d", name, first.Index)
		case op.Outcome == history.OK && writes(op) && op.Revision != first.Revision:
			out.fail("%s was acknowledged at another revision than %d, where it took effect", name, first.Revision)
		}
	}
	return out
}
