package report

import (
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Counts are what happened in a run. A set of runs in which one of them stays at zero
// has left something out.
type Counts struct {
	Operations    int `json:"operations"`
	Acknowledged  int `json:"acknowledged"`
	Unknown       int `json:"unknown"`
	Duplicates    int `json:"duplicates"`
	Decisions     int `json:"decisions"`
	CutOff        int `json:"cut_off"` // decisions without a server
	Faults        int `json:"faults"`
	Bitten        int `json:"bitten"`
	Toothless     int `json:"toothless"`
	Skipped       int `json:"skipped"`
	Leaders       int `json:"leaders"`
	Snapshots     int `json:"snapshots"`
	Resyncs       int `json:"resyncs"`
	Rejoins       int `json:"rejoins"`
	BreakersOpen  int `json:"breakers_open"`
	WatchMessages int `json:"watch_messages"`
	Commands      int `json:"commands"`
}

// Count is a number with its name.
type Count struct {
	Name string
	N    int
}

// Named lists them with the words for a reader.
func (c Counts) Named() []Count {
	return []Count{
		{"operations", c.Operations},
		{"acknowledged", c.Acknowledged},
		{"of unknown outcome", c.Unknown},
		{"answered as duplicates", c.Duplicates},
		{"decisions of instances", c.Decisions},
		{"decisions while cut off", c.CutOff},
		{"faults", c.Faults},
		{"faults that bit", c.Bitten},
		{"faults without teeth", c.Toothless},
		{"faults skipped", c.Skipped},
		{"leaders elected", c.Leaders},
		{"snapshots installed on servers", c.Snapshots},
		{"snapshots sent to watchers again", c.Resyncs},
		{"re-joins of the pool", c.Rejoins},
		{"breakers opened", c.BreakersOpen},
		{"messages to watchers", c.WatchMessages},
		{"commands applied", c.Commands},
	}
}

// Add adds the counts of another run.
func (c Counts) Add(o Counts) Counts {
	return Counts{
		Operations: c.Operations + o.Operations, Acknowledged: c.Acknowledged + o.Acknowledged, Unknown: c.Unknown + o.Unknown,
		Duplicates: c.Duplicates + o.Duplicates, Decisions: c.Decisions + o.Decisions, CutOff: c.CutOff + o.CutOff,
		Faults: c.Faults + o.Faults, Bitten: c.Bitten + o.Bitten, Toothless: c.Toothless + o.Toothless, Skipped: c.Skipped + o.Skipped,
		Leaders: c.Leaders + o.Leaders, Snapshots: c.Snapshots + o.Snapshots, Resyncs: c.Resyncs + o.Resyncs, Rejoins: c.Rejoins + o.Rejoins,
		BreakersOpen: c.BreakersOpen + o.BreakersOpen, WatchMessages: c.WatchMessages + o.WatchMessages, Commands: c.Commands + o.Commands,
	}
}

// CountOf counts a history, whose records are in the order of their times.
func CountOf(h *history.History) Counts {
	c := Counts{Operations: len(h.Ops), WatchMessages: len(h.Watches)}
	for i := range h.Ops {
		switch op := &h.Ops[i]; op.Outcome {
		case history.OK:
			c.Acknowledged++
			if op.Duplicate {
				c.Duplicates++
			}
		case history.Unknown:
			c.Unknown++
		case history.Failed:
		}
	}
	for i := range h.Decisions {
		c.Decisions += h.Decisions[i].N
		if !h.Decisions[i].Connected {
			c.CutOff += h.Decisions[i].N
		}
	}
	for i := range h.Faults {
		switch h.Faults[i].Event {
		case history.FaultBegin:
			c.Faults++
		case history.FaultBit:
			c.Bitten++
		case history.FaultToothless:
			c.Toothless++
		case history.FaultSkipped:
			c.Skipped++
		}
	}
	for i := range h.Guards {
		if h.Guards[i].To == "open" {
			c.BreakersOpen++
		}
	}
	c.Leaders = leaders(h)
	c.Snapshots, c.Commands = snapshots(h)
	c.Resyncs = resyncs(h)
	c.Rejoins = rejoins(h)
	return c
}

func leaders(h *history.History) int {
	terms := make(map[uint64]bool)
	for _, l := range h.Leads {
		if l.Leads {
			terms[l.Term] = true
		}
	}
	return len(terms)
}

// snapshots counts states that came in the place of commands: those beyond what the
// server had applied before, which it cannot have read from its own disk.
func snapshots(h *history.History) (installed, commands int) {
	last := make(map[string]uint64)
	for i := range h.Applied {
		a := &h.Applied[i]
		switch {
		case !a.Restored:
			commands++
		case a.Index > last[a.Server]:
			installed++
		}
		last[a.Server] = max(last[a.Server], a.Index)
	}
	return installed, commands
}

// resyncs counts snapshots that were not a watcher's first message.
func resyncs(h *history.History) int {
	n := 0
	seen := make(map[string]bool)
	for i := range h.Watches {
		w := &h.Watches[i]
		if w.Event == history.WatchSnapshot {
			if seen[w.Watcher] {
				n++
			}
			seen[w.Watcher] = true
		}
	}
	return n
}

// rejoins counts members that an instance saw again after it had lost sight of them.
func rejoins(h *history.History) int {
	n := 0
	last, lost := make(map[string][]string), make(map[string]map[string]bool)
	for i := range h.Peers {
		p := &h.Peers[i]
		if lost[p.Instance] == nil {
			lost[p.Instance] = make(map[string]bool)
		}
		for _, member := range last[p.Instance] {
			if !slices.Contains(p.Members, member) {
				lost[p.Instance][member] = true
			}
		}
		for _, member := range p.Members {
			if lost[p.Instance][member] {
				n++
				delete(lost[p.Instance], member)
			}
		}
		last[p.Instance] = p.Members
	}
	return n
}
