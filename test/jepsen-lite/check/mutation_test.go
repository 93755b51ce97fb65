package check

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// options of simulated histories, which are short and have little load.
func simulated() Options {
	o := Defaults()
	o.Porcupine = 5 * time.Second
	return o
}

func failures(verdicts []Verdict) []string {
	var names []string
	for _, v := range verdicts {
		if v.Result == Fail {
			names = append(names, v.Rule)
		}
	}
	return names
}

func TestSimulatedHistoriesPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := simulate(rapid.Uint64().Draw(t, "seed"), 150, rapid.IntRange(1, 8).Draw(t, "clients"), rapid.IntRange(1, 6).Draw(t, "keys"), 0.05)
		if rapid.Bool().Draw(t, "without traces") {
			h.Applied = nil
		}
		for _, v := range Judge(h, simulated()) {
			if v.Result == Fail || v.Result == Invalid {
				t.Errorf("%s %s: %s %q", v.Rule, v.Result, v.Why, v.Evidence)
			}
		}
	})
}

// mutation spoils a history in one place, and tells whether it found one.
type mutation struct {
	name  string
	rules []string // one of these must notice
	spoil func(*rapid.T, *history.History) bool
}

func mutations() []mutation {
	return []mutation{
		{"a read answers what was overwritten", []string{"R1", "R2"}, staleRead},
		{"a read finds nothing", []string{"R1", "R2"}, lostRead},
		{"two reads swap their answers", []string{"R1", "R2"}, swapReads},
		{"a write is acknowledged at an older revision", []string{"R1"}, olderWrite},
		{"a command is applied again", []string{"D2"}, applyTwice},
		{"a command is left out", []string{"D6"}, leaveOut},
		{"two commands are swapped", []string{"D4"}, swapCommands},
		{"a delta loses a register", []string{"W3", "W4"}, dropCell},
		{"a delta is lost", []string{"W4"}, dropDelta},
		{"a delta is told twice", []string{"W2"}, repeatDelta},
		{"a delta tells an older value", []string{"W2", "W4", "W8"}, olderCell},
		{"two deltas are swapped", []string{"W1", "W4"}, swapDeltas},
		{"an instance decides by another value", []string{"C2"}, swapDecisions},
		{"an instance goes back", []string{"C3"}, swapUpdates},
	}
}

func TestSpoiledHistoriesAreCaught(t *testing.T) {
	for _, m := range mutations() {
		t.Run(m.name, func(t *testing.T) {
			spoiled := 0
			rapid.Check(t, func(t *rapid.T) {
				h := simulate(rapid.Uint64().Draw(t, "seed"), 120, 4, 3, 0.03)
				if !m.spoil(t, h) {
					return
				}
				spoiled++
				h.Sort()
				failed := failures(Judge(h, simulated()))
				if !slices.ContainsFunc(failed, func(rule string) bool { return slices.Contains(m.rules, rule) }) {
					t.Fatalf("fails %v, want one of %v", failed, m.rules)
				}
			})
			if spoiled < 50 {
				t.Errorf("only %d histories could be spoiled", spoiled)
			}
		})
	}
}

// pick draws one of the places that fit.
func pick(t *rapid.T, n int, fits func(i int) bool) (int, bool) {
	var places []int
	for i := range n {
		if fits(i) {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return 0, false
	}
	return rapid.SampledFrom(places).Draw(t, "place"), true
}

// reads tells whether an operation is a read that must see everything.
func isRead(op *history.Op) bool {
	return op.F == history.Get && op.Outcome == history.OK && !op.Local
}

// overwritten finds a value of the register that was overwritten, and known to be,
// before an operation was called.
func overwritten(h *history.History, op *history.Op) (history.Cell, bool) {
	var newest, older history.Cell
	for i := range h.Ops {
		w := &h.Ops[i]
		if w.F != history.Put || w.Outcome != history.OK || w.Cells[0].Key != op.Cells[0].Key || w.Return >= op.Call {
			continue
		}
		c := history.Cell{Key: w.Cells[0].Key, Value: w.Cells[0].Value, Revision: w.Revision}
		if c.Revision > newest.Revision {
			newest, older = c, newest
		} else if c.Revision > older.Revision {
			older = c
		}
	}
	return older, older.Revision > 0
}

func staleRead(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Ops), func(i int) bool {
		_, ok := overwritten(h, &h.Ops[i])
		return isRead(&h.Ops[i]) && ok
	})
	if ok {
		h.Ops[i].Cells[0], _ = overwritten(h, &h.Ops[i])
	}
	return ok
}

func lostRead(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Ops), func(i int) bool {
		op := &h.Ops[i]
		older, certain := overwritten(h, op)
		return isRead(op) && !op.Cells[0].Absent && certain && !slices.ContainsFunc(h.Ops, func(other history.Op) bool {
			c := other.Cells[0]
			gone := other.Revision == 0 || other.Revision > older.Revision
			return other.F == history.Delete && c.Key == older.Key && gone && other.Call <= op.Return
		})
	})
	if ok {
		h.Ops[i].Cells = []history.Cell{{Key: h.Ops[i].Cells[0].Key, Absent: true}}
	}
	return ok
}

func swapReads(t *rapid.T, h *history.History) bool {
	second := 0
	i, ok := pick(t, len(h.Ops), func(i int) bool {
		for j := i + 1; isRead(&h.Ops[i]) && j < len(h.Ops); j++ {
			a, b := &h.Ops[i], &h.Ops[j]
			if isRead(b) && a.Return < b.Call && a.Cells[0].Key == b.Cells[0].Key && !a.Cells[0].Absent && !b.Cells[0].Absent &&
				a.Cells[0].Revision < b.Cells[0].Revision {
				second = j
				return true
			}
		}
		return false
	})
	if !ok {
		return false
	}
	for j := i + 1; j < len(h.Ops); j++ {
		a, b := &h.Ops[i], &h.Ops[j]
		if isRead(b) && a.Return < b.Call && a.Cells[0].Key == b.Cells[0].Key && !b.Cells[0].Absent && a.Cells[0].Revision < b.Cells[0].Revision {
			second = j
			break
		}
	}
	a, b := &h.Ops[i], &h.Ops[second]
	a.Cells, b.Cells = b.Cells, a.Cells
	a.Store, b.Store = b.Store, a.Store
	return true
}

func olderWrite(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Ops), func(i int) bool { return writes(&h.Ops[i]) && h.Ops[i].Revision > 20 })
	if ok {
		h.Ops[i].Revision -= 15
	}
	return ok
}

func applyTwice(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Applied), func(i int) bool { return h.Applied[i].Effective })
	if ok {
		again := h.Applied[i]
		again.Index += 1000
		h.Applied = append(h.Applied, again)
	}
	return ok
}

func leaveOut(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Applied), func(i int) bool {
		a := &h.Applied[i]
		return a.Server == "s2" && a.Index > 3 && i < len(h.Applied)-10
	})
	if ok {
		h.Applied = slices.Delete(h.Applied, i, i+1)
	}
	return ok
}

func swapCommands(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Applied)-3, func(i int) bool { return h.Applied[i].Server == "s2" })
	if ok {
		a, b := &h.Applied[i], &h.Applied[i+3]
		a.Command, b.Command = b.Command, a.Command
	}
	return ok
}

// aDelta picks a delta of a watcher that fits.
func aDelta(t *rapid.T, h *history.History, fits func(*history.Watch) bool) (int, bool) {
	return pick(t, len(h.Watches), func(i int) bool { return h.Watches[i].Event == history.WatchDelta && fits(&h.Watches[i]) })
}

func dropCell(t *rapid.T, h *history.History) bool {
	i, ok := aDelta(t, h, func(m *history.Watch) bool { return len(m.Cells) > 0 })
	if ok {
		j := rapid.IntRange(0, len(h.Watches[i].Cells)-1).Draw(t, "cell")
		if c := h.Watches[i].Cells[j]; c.Absent && !held(h, i, c.Key) {
			return false // it was not there before either
		}
		h.Watches[i].Cells = slices.Delete(slices.Clone(h.Watches[i].Cells), j, j+1)
	}
	return ok
}

// held tells whether a watcher had a register before a message.
func held(h *history.History, message int, key string) bool {
	has := false
	for i := range message {
		m := &h.Watches[i]
		if m.Watcher != h.Watches[message].Watcher {
			continue
		}
		for _, c := range m.Cells {
			if c.Key == key {
				has = !c.Absent
			}
		}
	}
	return has
}

func dropDelta(t *rapid.T, h *history.History) bool {
	i, ok := aDelta(t, h, func(m *history.Watch) bool { return true })
	if !ok || !slices.ContainsFunc(h.Watches[i+1:], func(m history.Watch) bool { return m.Watcher == h.Watches[i].Watcher }) {
		return false
	}
	h.Watches = slices.Delete(h.Watches, i, i+1)
	return true
}

func repeatDelta(t *rapid.T, h *history.History) bool {
	i, ok := aDelta(t, h, func(m *history.Watch) bool { return len(m.Cells) > 0 })
	if ok {
		h.Watches = slices.Insert(h.Watches, i+1, h.Watches[i])
	}
	return ok
}

func olderCell(t *rapid.T, h *history.History) bool {
	i, ok := aDelta(t, h, func(m *history.Watch) bool { return len(m.Cells) > 0 && !m.Cells[0].Absent })
	if !ok {
		return false
	}
	m := &h.Watches[i]
	m.Cells = slices.Clone(m.Cells)
	for j := range h.Ops {
		op := &h.Ops[j]
		if op.F == history.Put && op.Outcome == history.OK && op.Cells[0].Key == m.Cells[0].Key && op.Revision < m.Cells[0].Revision {
			m.Cells[0].Value = op.Cells[0].Value
			return true
		}
	}
	return false
}

func swapDeltas(t *rapid.T, h *history.History) bool {
	i, ok := aDelta(t, h, func(m *history.Watch) bool { return true })
	if !ok {
		return false
	}
	j := slices.IndexFunc(h.Watches[i+1:], func(m history.Watch) bool { return m.Watcher == h.Watches[i].Watcher })
	if j < 0 {
		return false
	}
	a, b := &h.Watches[i], &h.Watches[i+1+j]
	a.T, b.T = b.T, a.T
	*a, *b = *b, *a
	return true
}

func swapDecisions(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Decisions)-1, func(i int) bool { return h.Decisions[i].Value != h.Decisions[i+1].Value })
	if ok {
		h.Decisions[i].Value = h.Decisions[i+1].Value
	}
	return ok
}

func swapUpdates(t *rapid.T, h *history.History) bool {
	i, ok := pick(t, len(h.Updates)-1, func(i int) bool {
		return h.Updates[i].Instance == h.Updates[i+1].Instance && h.Updates[i].Revision < h.Updates[i+1].Revision
	})
	if ok {
		a, b := &h.Updates[i], &h.Updates[i+1]
		a.Revision, b.Revision = b.Revision, a.Revision
	}
	return ok
}
