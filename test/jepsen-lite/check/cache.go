package check

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// enough is how many decisions it takes for the 99th percentile to mean something.
const enough = 1000

func decider(d *history.Decision) string { return d.Instance }

// answered checks that every decision was answered, at once, at all times.
func answered(f *facts) *finding {
	out := &finding{none: "no instance decided anything"}
	all := by(f.Decisions, decider)
	if len(all) > 0 {
		for _, id := range f.Run.Instances {
			if len(all[id]) == 0 {
				out.fail("%s never decided anything", id)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		last := all[id][0].T
		var p pace
		for _, d := range all[id] {
			out.looked(d.N)
			if d.Err != "" {
				out.fail("%s at %s: %s is not answered: %s", id, seconds(d.T), d.Key, d.Err)
			}
			if p.add(d, f.o.DecisionP99); p.n >= enough {
				if p.slow*100 > p.n {
					out.fail("%s: of %d decisions from %s to %s, %d took %v or longer", id, p.n, seconds(p.from), seconds(d.Until), p.slow, f.o.DecisionP99)
				}
				p = pace{}
			}
			f.noGap(out, id, last, d.T)
			last = max(last, d.Until)
		}
		f.noGap(out, id, last, f.Run.Healed)
	}
	return out
}

// pace is how fast the last decisions of an instance were, so many that one in 100
// means something: records are of few, because each view and each flag begins one.
type pace struct {
	from    int64
	n, slow int
}

// add counts the decisions of a record, and those that took the limit or longer.
func (p *pace) add(d *history.Decision, limit time.Duration) {
	if p.n == 0 {
		p.from = d.T
	}
	p.n += d.N
	for below, n := range d.Took {
		if below > int64(limit) {
			p.slow += n
		}
	}
}

func (f *facts) noGap(out *finding, id string, from, to int64) {
	if time.Duration(to-from) > f.o.DecisionGap && !f.disturbed(id, from, to) {
		out.fail("%s did not decide anything from %s to %s", id, seconds(from), seconds(to))
	}
}

// provenance checks that what was decided by is what the log has at the view's
// revision.
func provenance(f *facts) *finding {
	out := &finding{none: "no instance decided by a register"}
	for i := range f.Decisions {
		d := &f.Decisions[i]
		if d.Absent || d.Err != "" || !f.log.known(d.Key) || !f.log.dated(d.Epoch) {
			continue
		}
		out.looked(1)
		at := f.log.place(d.Epoch, d.Revision)
		want, sure := f.log.at(d.Key, at)
		switch {
		case f.log.seenAs(history.Cell{Key: d.Key, Value: d.Value}, at):
		case !sure:
			out.doubt("%s: not known what it was at %v", showDecision(d), at)
		default:
			out.fail("%s, but at %v it was %s", showDecision(d), at, want)
		}
	}
	return out
}

// forwardOnly checks that no instance goes back to an older view. After a kill it
// may go back to what its disk kept, which lags behind by a moment.
func forwardOnly(f *facts) *finding {
	out := &finding{none: "no instance told its revision"}
	type step struct {
		t  int64
		at history.Place
	}
	streams := make(map[string][]step)
	for i := range f.Updates {
		u := &f.Updates[i]
		streams[u.Instance] = append(streams[u.Instance], step{u.T, f.log.place(u.Epoch, u.Revision)})
	}
	for i := range f.Decisions {
		d := &f.Decisions[i]
		name := d.Instance + " deciding " + d.Key
		streams[name] = append(streams[name], step{d.T, f.log.place(d.Epoch, d.Revision)})
	}
	lives := by(f.Servers, func(s *history.Server) string { return s.ID })
	for _, name := range slices.Sorted(maps.Keys(streams)) {
		id, _, _ := strings.Cut(name, " deciding ")
		events, steps := lives[id], streams[name]
		born := 0
		var newest history.Place
		for i, s := range steps {
			out.looked(1)
			for ; len(events) > 0 && events[0].T <= s.t; events = events[1:] {
				switch events[0].Event {
				case history.ProcessWipe:
					newest, born = history.Place{}, i
				case history.ProcessKill, history.ProcessExit:
					kept := i - 1
					for kept >= born && steps[kept].t > events[0].T-int64(f.o.Cache) {
						kept--
					}
					newest = history.Place{}
					if kept >= born {
						newest = steps[kept].at
					}
				}
			}
			if s.at.Before(newest) {
				out.fail("%s goes back from %v to %v at %s", name, newest, s.at, seconds(s.t))
			}
			newest = s.at
		}
	}
	return out
}

// wholeUpdates checks that registers that are always written together are never
// seen apart.
func wholeUpdates(f *facts) *finding {
	out := &finding{none: "no instance decided by a pair of registers"}
	for i := range f.Decisions {
		d := &f.Decisions[i]
		if len(d.Pair) < 2 {
			continue
		}
		out.looked(1)
		first := d.Pair[0]
		for _, c := range d.Pair[1:] {
			switch {
			case first.Absent && c.Absent:
			case first.Absent || c.Absent,
				f.log.writers[cellID{first.Key, first.Value}] == nil,
				f.log.writers[cellID{first.Key, first.Value}] != f.log.writers[cellID{c.Key, c.Value}]:
				out.fail("%s: %s and %s were never written together", showDecision(d), showCell(first), showCell(c))
			}
		}
	}
	return out
}

// coldStart checks that the default of the code is returned where nothing else is
// known, as such, and nowhere else.
func coldStart(f *facts) *finding {
	out := &finding{none: "no decision was the default of the code"}
	for i := range f.Decisions {
		d := &f.Decisions[i]
		if d.Err != "" || (!d.Absent && d.Source != history.SourceDefaults) {
			continue
		}
		out.looked(1)
		at := f.log.place(d.Epoch, d.Revision)
		switch {
		case !d.Absent:
			out.fail("%s has no view, and does not say that this is the default", showDecision(d))
		case d.Value != history.CodeDefault:
			out.fail("%s is said to be the default, which is %s", showDecision(d), history.CodeDefault)
		case d.Source == history.SourceDefaults:
		case !f.log.seenAs(history.Cell{Key: d.Key, Absent: true}, at):
			want, sure := f.log.at(d.Key, at)
			if sure {
				out.fail("%s is the default, but at %v it was %s", showDecision(d), at, want)
			}
		}
	}
	return out
}
