package check

import (
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// watchers is what the rules W1 to W9 find, by rule: one pass over the messages
// finds all of it, and names each violation after the promise that it breaks.
type watchers map[string]*finding

func watchRule(name string) func(*facts) *finding {
	return func(f *facts) *finding {
		if f.watched == nil {
			f.watched = f.watch()
		}
		return f.watched[name]
	}
}

// watcher replays what one watcher was told.
type watcher struct {
	f     *facts
	out   watchers
	at    history.Place
	cells map[string]history.Cell
	// held tells that the watcher has a state, opened that nothing has come since it
	// was opened.
	held, opened bool
	bookmark     history.Place
}

func (f *facts) watch() watchers {
	out := make(watchers)
	for _, name := range []string{"W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W9"} {
		out[name] = &finding{none: "nobody watched"}
	}
	all := make(map[string]*watcher)
	roots := make(map[history.Place]*history.Watch)
	for i := range f.Watches {
		m := &f.Watches[i]
		w := all[m.Watcher]
		if w == nil {
			w = &watcher{f: f, out: out, cells: make(map[string]history.Cell)}
			all[m.Watcher] = w
		}
		w.take(m)
		sameRoot(out["W8"], f.log.place(m.Epoch, m.To), m, roots)
	}
	return out
}

// sameRoot checks that everybody is told the same root at a place, and comes to it.
func sameRoot(out *finding, at history.Place, m *history.Watch, roots map[history.Place]*history.Watch) {
	if m.Root == "" || m.Event == history.WatchOpen {
		return
	}
	if m.Own != "" && m.Own != m.Root {
		out.fail("%s: was told root %.12s at %d and came to %.12s", showWatch(m), m.Root, m.To, m.Own)
	}
	other, ok := roots[at]
	if ok && other.Root != m.Root {
		out.fail("%s: was told root %.12s at %d, %s was told %.12s", showWatch(m), m.Root, m.To, other.Watcher, other.Root)
	}
	if !ok {
		roots[at] = m
	}
}

func (w *watcher) take(m *history.Watch) {
	at := w.f.log.place(m.Epoch, m.To)
	switch m.Event {
	case history.WatchOpen:
		w.open(m)
	case history.WatchSnapshot:
		w.snapshot(m, at)
	case history.WatchDelta:
		w.delta(m, at)
	case history.WatchProgress:
		w.progress(m, at)
	}
}

// open starts from the cursor that the watcher gave, and from what it must have
// held there.
func (w *watcher) open(m *history.Watch) {
	cursor := w.f.log.place(m.Epoch, m.Cursor)
	w.opened, w.bookmark = true, history.Place{}
	switch {
	case m.Cursor == 0:
		w.at, w.held, w.cells = history.Place{}, false, make(map[string]history.Cell)
	case cursor != w.at || !w.held:
		w.at, w.held, w.cells = cursor, true, w.replay(cursor)
	}
}

// replay is the state of all registers at a place, by the log.
func (w *watcher) replay(at history.Place) map[string]history.Cell {
	cells := make(map[string]history.Cell)
	for _, key := range w.f.log.followed {
		if v, _ := w.f.log.at(key, at); !v.absent {
			cells[key] = history.Cell{Key: key, Value: v.value, Revision: v.at.Revision}
		}
	}
	return cells
}

func (w *watcher) snapshot(m *history.Watch, at history.Place) {
	w.out["W1"].looked(1)
	if at.Before(w.at) {
		w.out["W1"].fail("%s: goes back from %v", showWatch(m), w.at)
	}
	w.cells = make(map[string]history.Cell)
	for _, c := range m.Cells {
		if w.told(m, c, at) {
			w.cells[c.Key] = c
		}
	}
	for _, key := range w.f.log.followed {
		w.compare(m, key, at, "W5")
	}
	w.at, w.held, w.opened = at, true, false
}

func (w *watcher) delta(m *history.Watch, at history.Place) {
	w.out["W1"].looked(1)
	w.out["W2"].looked(1)
	w.out["W4"].looked(1)
	gap := "W4"
	if w.opened {
		gap = "W5"
		w.out["W5"].looked(1)
	}
	switch {
	case at.Epoch != w.at.Epoch:
		w.out[gap].fail("%s: a delta onto another epoch than %v", showWatch(m), w.at)
		return
	case m.From > w.at.Revision:
		w.out[gap].fail("%s: begins at %d, but the watcher is at %d", showWatch(m), m.From, w.at.Revision)
		w.cells, w.at, w.opened = w.replay(at), at, false
		return
	case at.Before(w.at):
		w.out["W1"].fail("%s: goes back from %v", showWatch(m), w.at)
		return
	case at == w.at && len(m.Cells) > 0 && w.bookmark != at:
		w.out["W2"].fail("%s: tells %d a second time", showWatch(m), at.Revision)
		return
	}
	changed := w.f.log.changed(w.at, at)
	for _, c := range m.Cells {
		if !w.fresh(m, c, at) || !w.told(m, c, at) {
			continue
		}
		w.cells[c.Key] = c
		changed[c.Key] = struct{}{}
	}
	for key := range changed {
		w.compare(m, key, at, gap)
	}
	w.at, w.opened = at, false
}

// fresh checks that a cell of a delta is news.
func (w *watcher) fresh(m *history.Watch, c history.Cell, at history.Place) bool {
	switch {
	case c.Revision == 0:
		return true
	case c.Revision <= w.bookmark.Revision && w.bookmark.Epoch == at.Epoch:
		w.out["W6"].fail("%s: tells %s after it had told that %d was all", showWatch(m), showCell(c), w.bookmark.Revision)
		return false
	case c.Revision <= w.at.Revision:
		w.out["W2"].fail("%s: tells %s again", showWatch(m), showCell(c))
		return false
	default:
		return true
	}
}

// told checks that what is told of a register is something that was committed
// there, and tells whether it was asked for.
func (w *watcher) told(m *history.Watch, c history.Cell, at history.Place) bool {
	w.out["W7"].looked(1)
	w.out["W8"].looked(1)
	w.out["W9"].looked(1)
	if elsewhere(c.Key) || !w.f.log.known(c.Key) {
		w.out["W7"].fail("%s: tells %s, which is none of what was asked for", showWatch(m), showCell(c))
		return false
	}
	if c.Revision > at.Revision {
		w.out["W9"].fail("%s: tells %s, which is beyond %d", showWatch(m), showCell(c), at.Revision)
		return true
	}
	if c.Absent {
		return true
	}
	writer := w.f.log.writers[cellID{c.Key, c.Value}]
	switch {
	case writer == nil:
		w.out["W8"].fail("%s: tells %s, a value that nobody wrote", showWatch(m), showCell(c))
	case writer.Call > m.T:
		w.out["W9"].fail("%s: tells %s before it was written, by %s", showWatch(m), showCell(c), show(writer))
	case w.f.log.fate[writer].never:
		w.out["W9"].fail("%s: tells %s, which was never committed: %s", showWatch(m), showCell(c), show(writer))
	}
	return true
}

// compare compares a register with the log at a place. What is wrong breaks gap,
// unless it breaks something more special.
func (w *watcher) compare(m *history.Watch, key string, at history.Place, gap string) {
	have, there := w.cells[key]
	if !there {
		have = history.Cell{Key: key, Absent: true}
	}
	want, sure := w.f.log.at(key, at)
	writer := w.f.log.writers[cellID{key, have.Value}]
	w.out["W3"].looked(1)
	w.out[gap].looked(1)
	switch {
	case have.Absent == want.absent && have.Value == want.value:
	case !sure || w.f.log.seenAs(have, at):
	case !have.Absent && (have.Revision > at.Revision || writer == nil || w.f.log.fate[writer].never):
		// W8 and W9 have told of it
	case !have.Absent && !want.absent && have.Revision == want.at.Revision:
		w.out["W8"].fail("%s: has %s, but that is %s", showWatch(m), showCell(have), want)
	case w.partOf(want.op, key, want.at):
		w.out["W3"].fail("%s: has %s, but another register has what %s wrote with it", showWatch(m), showCell(have), show(want.op))
	default:
		w.out[gap].fail("%s: has %s, but at %d it is %s", showWatch(m), showCell(have), at.Revision, want)
	}
}

// partOf tells whether the watcher has something else that the same commit wrote.
func (w *watcher) partOf(op *history.Op, key string, at history.Place) bool {
	return op != nil && slices.ContainsFunc(op.Cells, func(c history.Cell) bool {
		have, ok := w.cells[c.Key]
		return c.Key != key && ok && !c.Absent && have.Value == c.Value && have.Revision == at.Revision
	})
}

// progress checks that nothing is missing up to the bookmark.
func (w *watcher) progress(m *history.Watch, at history.Place) {
	out := w.out["W6"]
	out.looked(1)
	if at.Before(w.at) || (w.held && at.Epoch != w.at.Epoch) {
		out.fail("%s: goes back from %v", showWatch(m), w.at)
		return
	}
	if !w.held {
		out.fail("%s: the watcher has nothing yet", showWatch(m))
		return
	}
	for key := range w.f.log.changed(w.at, at) {
		have, there := w.cells[key]
		if !there {
			have = history.Cell{Key: key, Absent: true}
		}
		if want, sure := w.f.log.at(key, at); sure && !w.f.log.seenAs(have, at) {
			if w.opened {
				out = w.out["W5"] // it has resumed behind what it should have been told
			}
			out.fail("%s: the watcher has %s, but at %d it is %s", showWatch(m), showCell(have), at.Revision, want)
		}
	}
	w.at, w.bookmark, w.opened = at, at, false
}

// converged checks that all watchers came to the same end: to every write that was
// acknowledged.
func converged(f *facts) *finding {
	out := &finding{none: "no watcher was asked at the end"}
	newest := f.newestAcknowledged()
	for i := range f.Ends {
		end := &f.Ends[i]
		if end.Who != history.WhoWatcher {
			continue
		}
		out.looked(1)
		at := f.log.place(end.Epoch, end.Revision)
		switch {
		case end.Err != "":
			out.doubt("%s could not be asked: %s", end.ID, end.Err)
			continue
		case at.Before(newest):
			out.doubt("%s is at %v, but %v was acknowledged", end.ID, at, newest)
			continue
		}
		for _, c := range end.Cells {
			want, sure := f.log.at(c.Key, at)
			if sure && !f.log.seenAs(c, at) {
				out.fail("%s ends with %s, but at %d it is %s", end.ID, showCell(c), end.Revision, want)
			}
		}
	}
	return out
}

// newestAcknowledged is the place of the last write of a register.
func (f *facts) newestAcknowledged() history.Place {
	var newest history.Place
	for i := range f.Ops {
		op := &f.Ops[i]
		if at := f.log.committed(op); acknowledged(op) && newest.Before(at) {
			newest = at
		}
	}
	return newest
}

// elsewhere tells whether a register is in another namespace than the one that
// instances and watchers follow.
func elsewhere(key string) bool { return strings.Contains(key, ":") }

// acknowledged tells that a write was acknowledged that everybody must come to see.
func acknowledged(op *history.Op) bool {
	return writes(op) && op.Outcome == history.OK && !slices.ContainsFunc(op.Cells, func(c history.Cell) bool { return elsewhere(c.Key) })
}

func showWatch(m *history.Watch) string {
	from := ""
	if m.Event == history.WatchDelta {
		from = "(" + number(m.From) + ", " + number(m.To) + "] "
	} else if m.To > 0 {
		from = number(m.To) + " "
	}
	return m.Watcher + " " + m.Event + " " + from + "at " + seconds(m.T) + " from " + m.Server
}
