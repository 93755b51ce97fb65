package check

import (
	"cmp"
	"maps"
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// oneLeader checks that no term has two leaders.
func oneLeader(f *facts) *finding {
	out := &finding{none: "nobody told of leading"}
	leaders := make(map[uint64]string)
	for _, l := range f.Leads {
		if !l.Leads {
			continue
		}
		out.looked(1)
		if other, ok := leaders[l.Term]; ok && other != l.Server {
			out.fail("term %d has two leaders: %s, and at %s %s", l.Term, other, seconds(l.T), l.Server)
		}
		leaders[l.Term] = l.Server
	}
	return out
}

// sameCommands checks that equal indexes mean equal commands and equal states, on
// all servers and in all their incarnations.
func sameCommands(f *facts) *finding {
	out := &finding{none: "there are no traces"}
	byIndex := make(map[uint64]*history.Applied)
	for i := range f.Applied {
		a := &f.Applied[i]
		if a.Restored {
			continue
		}
		out.looked(1)
		first, ok := byIndex[a.Index]
		switch {
		case !ok:
			byIndex[a.Index] = a
		case first.Command != a.Command:
			out.fail("index %d: %s (%d) applied command %.12s, %s (%d) applied %.12s",
				a.Index, first.Server, first.Incarnation, first.Command, a.Server, a.Incarnation, a.Command)
		case first.State != a.State:
			out.fail("index %d: the same command left %s (%d) in state %.12s, %s (%d) in %.12s",
				a.Index, first.Server, first.Incarnation, first.State, a.Server, a.Incarnation, a.State)
		}
	}
	return out
}

// sameEnds checks that all who hold the same place at the end hold the same.
func sameEnds(f *facts) *finding {
	out := &finding{none: "nobody was asked at the end"}
	first := make(map[history.Place]*history.End)
	servers := make(map[history.Place]string)
	for i := range f.Ends {
		end := &f.Ends[i]
		if end.Err != "" || (end.Root == "" && len(end.Cells) == 0) {
			continue
		}
		out.looked(1)
		at := f.log.place(end.Epoch, end.Revision)
		if end.Who == history.WhoServer {
			servers[at] = end.ID
		}
		other, ok := first[at]
		if !ok {
			first[at] = end
			continue
		}
		if end.Root != "" && other.Root != "" && end.Root != other.Root {
			out.fail("at %d %s has root %.12s, %s has %.12s", end.Revision, other.ID, other.Root, end.ID, end.Root)
		}
		if key, ok := differ(other, end); ok {
			out.fail("at %d %s and %s hold different values of %s", end.Revision, other.ID, end.ID, key)
		}
	}
	if len(servers) > 1 {
		out.doubt("the servers were not asked at one revision: %v", slices.Sorted(maps.Values(servers)))
	}
	return out
}

// differ finds a register that two ends hold differently.
func differ(a, b *history.End) (string, bool) {
	if len(a.Cells) == 0 || len(b.Cells) == 0 {
		return "", false
	}
	left, right := cellsByKey(a.Cells), cellsByKey(b.Cells)
	for _, pair := range []struct {
		from, to map[string]history.Cell
		complete bool
	}{{left, right, b.Complete}, {right, left, a.Complete}} {
		for _, key := range slices.Sorted(maps.Keys(pair.from)) {
			c := pair.from[key]
			other, ok := pair.to[key]
			if !ok && !pair.complete {
				continue
			}
			if (!ok || other.Absent) != c.Absent || other.Value != c.Value {
				return key, true
			}
		}
	}
	return "", false
}

// tracer is one life of a server in its trace.
type tracer struct {
	server      string
	incarnation int
}

// contiguous checks each life of a server against what all of them applied: it left
// out no index, what it restored is the state that the others had there, and
// revisions rise by one for each command that took effect.
func contiguous(f *facts) *finding {
	out := &finding{none: "there are no traces"}
	states := make(map[uint64]*history.Applied)
	lives := make(map[tracer][]*history.Applied)
	for i := range f.Applied {
		a := &f.Applied[i]
		life := tracer{a.Server, a.Incarnation}
		lives[life] = append(lives[life], a)
		if !a.Restored {
			states[a.Index] = a
		}
	}
	indexes := slices.Sorted(maps.Keys(states))
	for _, life := range slices.SortedFunc(maps.Keys(lives), func(a, b tracer) int {
		return cmp.Or(cmp.Compare(a.server, b.server), cmp.Compare(a.incarnation, b.incarnation))
	}) {
		var previous *history.Applied
		for _, a := range lives[life] {
			out.looked(1)
			if a.Restored {
				checkRestored(out, a, states[a.Index])
			} else {
				checkNext(out, a, previous, indexes)
			}
			previous = a
		}
	}
	return out
}

func checkRestored(out *finding, a, other *history.Applied) {
	if other != nil && other.State != a.State {
		out.fail("%s (%d) restored state %.12s at index %d, where %s had %.12s",
			a.Server, a.Incarnation, a.State, a.Index, other.Server, other.State)
	}
	if other != nil && other.Revision != a.Revision {
		out.fail("%s (%d) restored revision %d at index %d, where %s had %d",
			a.Server, a.Incarnation, a.Revision, a.Index, other.Server, other.Revision)
	}
}

// checkNext checks that a command follows what the same server did before.
func checkNext(out *finding, a, previous *history.Applied, indexes []uint64) {
	if previous == nil {
		previous = &history.Applied{Epoch: a.Epoch}
	}
	i, _ := slices.BinarySearch(indexes, previous.Index+1)
	switch {
	case a.Index <= previous.Index:
		out.fail("%s (%d) applied index %d after %d", a.Server, a.Incarnation, a.Index, previous.Index)
		return
	case indexes[i] != a.Index:
		out.fail("%s (%d) applied index %d after %d, and left out %d", a.Server, a.Incarnation, a.Index, previous.Index, indexes[i])
		return
	}
	rise := a.Revision - previous.Revision
	if a.Epoch == previous.Epoch && rise != 0 && (rise != 1 || !a.Effective) {
		out.fail("%s (%d): revision %d at index %d after %d", a.Server, a.Incarnation, a.Revision, a.Index, previous.Revision)
	}
	if a.Effective && a.Revision <= previous.Revision {
		out.fail("%s (%d): index %d took effect without a revision of its own", a.Server, a.Incarnation, a.Index)
	}
}
