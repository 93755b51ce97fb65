// Package measure takes figures out of histories: for how long writers waited, how
// soon everybody agreed again, how instances decided without a server, and how much
// happened at all. It judges nothing, and its figures can be added up over many runs.
package measure

import (
	"fmt"
	"slices"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Figures are what one history tells, or several together. Times are nanoseconds.
type Figures struct {
	Totals     Totals      `json:"totals"`
	Outages    []Outage    `json:"outages,omitempty"`
	Agreements []Agreement `json:"agreements,omitempty"`
	Decided    Decided     `json:"decided"`
}

// Of measures a history, whose records are in the order of their times.
func Of(h *history.History) Figures {
	faults := lives(h)
	return Figures{
		Totals: totals(h), Outages: outages(h, faults), Agreements: agreements(h, faults), Decided: decided(h, faults),
	}
}

// Add adds the figures of another run.
func (f *Figures) Add(o *Figures) {
	f.Totals.add(&o.Totals)
	f.Outages = append(f.Outages, o.Outages...)
	f.Agreements = append(f.Agreements, o.Agreements...)
	f.Decided.add(&o.Decided)
}

// life is a fault from its begin to its end.
type life struct {
	name       string
	targets    []string
	begin, end int64
	bit, ended bool
}

// hits tells whether the fault disturbs a process.
func (l *life) hits(id string) bool { return slices.Contains(l.targets, id) }

// lives are the faults that were begun, in the order of their begins.
func lives(h *history.History) []*life {
	var all []*life
	open := make(map[int]*life)
	for i := range h.Faults {
		f := &h.Faults[i]
		l := open[f.ID]
		switch {
		case f.Event == history.FaultBegin:
			l = &life{name: f.Name, targets: f.Targets, begin: f.T}
			open[f.ID] = l
			all = append(all, l)
		case l == nil:
		case f.Event == history.FaultBit:
			l.bit = true
		case f.Event == history.FaultEnd:
			l.end, l.ended = f.T, true
		}
	}
	return all
}

// next is when the fault after the one at i begins, or the end of the history.
func next(h *history.History, faults []*life, i int) int64 {
	if i+1 < len(faults) {
		return faults[i+1].begin
	}
	return last(h)
}

// last is the time of the last thing that clients or instances recorded.
func last(h *history.History) int64 {
	end := max(h.Run.Healed, h.Run.Settled)
	for i := range h.Ops {
		end = max(end, h.Ops[i].Return)
	}
	for i := range h.Decisions {
		end = max(end, h.Decisions[i].Until)
	}
	return end
}

// nameOf tells runs apart.
func nameOf(h *history.History) string { return fmt.Sprintf("%s-%d", h.Run.Scenario, h.Run.Seed) }

// writes tells whether an operation changes registers.
func writes(op *history.Op) bool {
	switch op.F {
	case history.Put, history.CAS, history.Delete, history.Txn:
		return true
	}
	return false
}
