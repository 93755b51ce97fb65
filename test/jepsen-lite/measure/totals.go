package measure

import (
	"maps"
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Totals are how often things happened. A set of runs in which one of them stays at
// zero has left something out.
type Totals struct {
	// Faults and Operations by name; probes have names of their own.
	Faults     map[string]Injected `json:"faults,omitempty"`
	Operations map[string]Outcomes `json:"operations,omitempty"`

	Duplicates int `json:"duplicates"` // answers that told of an earlier attempt
	// Dedup are requests that are in the log more than once and took effect once.
	Dedup     int `json:"dedup"`
	Commands  int `json:"commands"`  // applied
	Leaders   int `json:"leaders"`   // terms that had one
	Snapshots int `json:"snapshots"` // installed on servers
	Starts    int `json:"starts"`    // of processes after the first

	Decisions  int `json:"decisions"`
	CutOff     int `json:"cut_off"`    // decisions while not connected
	Reconnects int `json:"reconnects"` // of instances
	Breakers   int `json:"breakers"`   // opened
	Rejoins    int `json:"rejoins"`    // members of the pool that came back into sight

	WatchDeltas    int `json:"watch_deltas"`
	WatchSnapshots int `json:"watch_snapshots"`
	WatchResumes   int `json:"watch_resumes"` // streams that began with a cursor
	WatchErrors    int `json:"watch_errors"`
}

// Injected is what became of the faults of one name.
type Injected struct {
	Begun     int `json:"begun"`
	Bitten    int `json:"bitten"`
	Toothless int `json:"toothless"`
	Skipped   int `json:"skipped"`
}

// Outcomes of the operations of one name.
type Outcomes struct {
	OK      int `json:"ok"`
	Failed  int `json:"failed"`
	Unknown int `json:"unknown"`
}

// Count is a number with its name.
type Count struct {
	Name string
	N    int
}

// Named lists them with the words for a reader; what has names of its own is summed up.
func (t *Totals) Named() []Count {
	f, o := t.AllFaults(), t.AllOperations()
	return []Count{
		{"operations", o.Sum()},
		{"acknowledged", o.OK},
		{"refused or failed", o.Failed},
		{"of unknown outcome", o.Unknown},
		{"answered as duplicates", t.Duplicates},
		{"requests twice in the log that took effect once", t.Dedup},
		{"commands applied", t.Commands},
		{"faults", f.Begun},
		{"faults that bit", f.Bitten},
		{"faults without teeth", f.Toothless},
		{"faults skipped", f.Skipped},
		{"leaders elected", t.Leaders},
		{"snapshots installed on servers", t.Snapshots},
		{"processes started again", t.Starts},
		{"decisions of instances", t.Decisions},
		{"decisions while not connected", t.CutOff},
		{"reconnects of instances", t.Reconnects},
		{"breakers opened", t.Breakers},
		{"re-joins of the pool", t.Rejoins},
		{"deltas to watchers", t.WatchDeltas},
		{"snapshots to watchers", t.WatchSnapshots},
		{"resumes of watchers", t.WatchResumes},
		{"streams of watchers that broke", t.WatchErrors},
	}
}

// Missing are those that should be there and are not.
func (t *Totals) Missing() []string {
	var names []string
	for _, c := range t.Named() {
		if c.N == 0 && c.Name != "faults without teeth" && c.Name != "faults skipped" {
			names = append(names, c.Name)
		}
	}
	return names
}

// AllFaults are those of all names together.
func (t *Totals) AllFaults() Injected {
	var all Injected
	for _, f := range t.Faults {
		all = all.plus(f)
	}
	return all
}

// AllOperations are those of all names together.
func (t *Totals) AllOperations() Outcomes {
	var all Outcomes
	for _, o := range t.Operations {
		all = all.plus(o)
	}
	return all
}

// Sum is how many there were.
func (o Outcomes) Sum() int { return o.OK + o.Failed + o.Unknown }

func (i Injected) plus(o Injected) Injected {
	return Injected{i.Begun + o.Begun, i.Bitten + o.Bitten, i.Toothless + o.Toothless, i.Skipped + o.Skipped}
}

func (o Outcomes) plus(p Outcomes) Outcomes {
	return Outcomes{o.OK + p.OK, o.Failed + p.Failed, o.Unknown + p.Unknown}
}

func (t *Totals) add(o *Totals) {
	t.Faults = merge(t.Faults, o.Faults, Injected.plus)
	t.Operations = merge(t.Operations, o.Operations, Outcomes.plus)
	mine, theirs := t.numbers(), o.numbers()
	for i := range mine {
		*mine[i] += *theirs[i]
	}
}

// numbers are the fields that add up as they are.
func (t *Totals) numbers() []*int {
	return []*int{
		&t.Duplicates, &t.Dedup, &t.Commands, &t.Leaders, &t.Snapshots, &t.Starts, &t.Decisions, &t.CutOff, &t.Reconnects,
		&t.Breakers, &t.Rejoins, &t.WatchDeltas, &t.WatchSnapshots, &t.WatchResumes, &t.WatchErrors,
	}
}

func merge[V any](a, b map[string]V, plus func(V, V) V) map[string]V {
	if len(b) == 0 {
		return a
	}
	sum := maps.Clone(b)
	for name, v := range a {
		sum[name] = plus(v, b[name])
	}
	return sum
}

func totals(h *history.History) Totals {
	t := Totals{Faults: injected(h), Operations: make(map[string]Outcomes)}
	for i := range h.Ops {
		t.operation(&h.Ops[i])
	}
	for i := range h.Guards {
		if h.Guards[i].To == "open" {
			t.Breakers++
		}
	}
	started := make(map[string]bool)
	for i := range h.Servers {
		if s := &h.Servers[i]; s.Event == history.ProcessStart {
			if started[s.ID] {
				t.Starts++
			}
			started[s.ID] = true
		}
	}
	t.Leaders, t.Dedup, t.Rejoins = leaders(h), dedup(h), rejoins(h)
	t.Snapshots, t.Commands = snapshots(h)
	t.watches(h)
	t.decisions(h)
	return t
}

func injected(h *history.History) map[string]Injected {
	all := make(map[string]Injected)
	for i := range h.Faults {
		f := &h.Faults[i]
		n := all[f.Name]
		switch f.Event {
		case history.FaultBegin:
			n.Begun++
		case history.FaultBit:
			n.Bitten++
		case history.FaultToothless:
			n.Toothless++
		case history.FaultSkipped:
			n.Skipped++
		}
		all[f.Name] = n
	}
	return all
}

func (t *Totals) operation(op *history.Op) {
	name := op.F
	switch {
	case op.Probe:
		name += " (probe)"
	case op.F == history.Get && op.Local:
		name += " (local)"
	}
	n := t.Operations[name]
	switch op.Outcome {
	case history.OK:
		n.OK++
	case history.Unknown:
		n.Unknown++
	case history.Failed:
		n.Failed++
	}
	t.Operations[name] = n
	if op.Duplicate && op.Outcome == history.OK {
		t.Duplicates++
	}
}

func (t *Totals) watches(h *history.History) {
	for i := range h.Watches {
		switch w := &h.Watches[i]; w.Event {
		case history.WatchDelta:
			t.WatchDeltas++
		case history.WatchSnapshot:
			t.WatchSnapshots++
		case history.WatchError:
			t.WatchErrors++
		case history.WatchOpen:
			if w.Cursor > 0 {
				t.WatchResumes++
			}
		}
	}
}

// decisions counts them, and how often an instance that was connected found itself
// connected again after it had not been, or with another server.
func (t *Totals) decisions(h *history.History) {
	type link struct {
		before bool // it has been connected
		now    bool
		server string
	}
	links := make(map[string]link)
	for i := range h.Decisions {
		d := &h.Decisions[i]
		t.Decisions += d.N
		l := links[d.Instance]
		if !d.Connected {
			t.CutOff += d.N
			l.now = false
		} else {
			if l.before && (!l.now || l.server != d.Server) {
				t.Reconnects++
			}
			l = link{before: true, now: true, server: d.Server}
		}
		links[d.Instance] = l
	}
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

// dedup counts requests that stand at several indexes of the log, of which one at most
// raised the revision.
func dedup(h *history.History) int {
	type places struct {
		first     uint64
		again     bool
		effective uint64 // where it took effect
		twice     bool
	}
	requests := make(map[string]places)
	for i := range h.Applied {
		a := &h.Applied[i]
		if a.Request == "" || a.Restored {
			continue
		}
		p := requests[a.Request]
		switch p.first {
		case 0:
			p.first = a.Index
		case a.Index:
		default:
			p.again = true
		}
		if a.Effective {
			p.twice = p.twice || (p.effective != 0 && p.effective != a.Index)
			p.effective = a.Index
		}
		requests[a.Request] = p
	}
	n := 0
	for _, p := range requests {
		if p.again && p.effective != 0 && !p.twice {
			n++
		}
	}
	return n
}

// snapshots counts states that came in the place of commands: those beyond what the
// server had applied before, which it cannot have read from its own disk.
func snapshots(h *history.History) (installed, commands int) {
	reached := make(map[string]uint64)
	for i := range h.Applied {
		a := &h.Applied[i]
		switch {
		case !a.Restored:
			commands++
		case a.Index > reached[a.Server]:
			installed++
		}
		reached[a.Server] = max(reached[a.Server], a.Index)
	}
	return installed, commands
}

// rejoins counts members that somebody saw again after having lost sight of them.
func rejoins(h *history.History) int {
	n := 0
	seen, lost := make(map[string][]string), make(map[string]map[string]bool)
	for i := range h.Peers {
		p := &h.Peers[i]
		if p.Members == nil {
			continue // it tells of evidence
		}
		if lost[p.Instance] == nil {
			lost[p.Instance] = make(map[string]bool)
		}
		for _, member := range seen[p.Instance] {
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
		seen[p.Instance] = p.Members
	}
	return n
}
