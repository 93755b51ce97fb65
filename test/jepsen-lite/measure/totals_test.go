package measure_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/measure"
)

func eventful() *history.History {
	return &history.History{
		Faults: slices.Concat(fault(1, "kill-leader", 2, 3, "s1"), fault(2, "kill-leader", 4, 5, "s1"), []history.Fault{
			{ID: 3, Name: "clock-back", Event: history.FaultSkipped}, {ID: 4, Name: "pause", Event: history.FaultBegin}, {ID: 4, Name: "pause", Event: history.FaultToothless},
		}),
		Servers: []history.Server{
			{ID: "s1", Event: history.ProcessStart}, {ID: "s1", Event: history.ProcessExit}, {ID: "s1", Event: history.ProcessStart}, {ID: "i1", Event: history.ProcessStart},
		},
		Leads: []history.Lead{
			{Server: "s1", Term: 2, Leads: true}, {Server: "s1"}, {Server: "s2", Term: 3, Leads: true}, {Server: "s2", Term: 3, Leads: true},
		},
		Ops: []history.Op{
			{F: history.Put, Outcome: history.OK},
			{F: history.Put, Outcome: history.Unknown},
			{F: history.Put, Outcome: history.OK, Duplicate: true},
			{F: history.Get, Outcome: history.OK, Local: true},
			{F: history.Get, Outcome: history.Failed, Probe: true},
		},
		Applied: []history.Applied{
			{Server: "s2", Index: 5, Request: "a", Effective: true},
			{Server: "s3", Index: 5, Request: "a", Effective: true},
			{Server: "s2", Index: 6, Request: "a"}, // the one that was dropped
			{Server: "s2", Index: 7, Request: "b", Effective: true},
			{Server: "s2", Index: 7, Request: "b", Effective: true}, // again after a restart
			{Server: "s2", Index: 8, Request: "c", Effective: true},
			{Server: "s2", Index: 9, Request: "c", Effective: true}, // a bug, and nothing that was dropped
			{Server: "s2", Index: 12, Restored: true},
			{Server: "s2", Index: 12, Restored: true}, // from its own disk
		},
		Peers: []history.Peers{
			{Instance: "i1", Members: []string{"i1", "i2"}},
			{Instance: "i1", Evidence: map[string]history.Said{}},
			{Instance: "i1", Members: []string{"i1"}},
			{Instance: "i1", Members: []string{"i1", "i2"}},
		},
		Guards: []history.Guard{{To: "open"}, {To: "closed"}},
		Watches: []history.Watch{
			{Event: history.WatchOpen}, {Event: history.WatchSnapshot}, {Event: history.WatchDelta}, {Event: history.WatchError}, {Event: history.WatchOpen, Cursor: 4},
		},
		Decisions: []history.Decision{
			{Instance: "i1", N: 100},
			{Instance: "i1", N: 10, Connected: true, Server: "s1"},
			{Instance: "i1", N: 1},
			{Instance: "i1", N: 10, Connected: true, Server: "s1"},
			{Instance: "i2", N: 10, Connected: true, Server: "s1"},
			{Instance: "i1", N: 10, Connected: true, Server: "s2"},
			{Instance: "i1", N: 10, Connected: true, Server: "s2"},
		},
	}
}

func TestTotals(t *testing.T) {
	figures := measure.Of(eventful())
	want := measure.Totals{
		Faults: map[string]measure.Injected{"kill-leader": {Begun: 2, Bitten: 2}, "clock-back": {Skipped: 1}, "pause": {Begun: 1, Toothless: 1}},
		Operations: map[string]measure.Outcomes{
			history.Put: {OK: 2, Unknown: 1}, "get (local)": {OK: 1}, "get (probe)": {Failed: 1},
		},
		Duplicates: 1, Dedup: 1, Commands: 7, Leaders: 2, Snapshots: 1, Starts: 1,
		Decisions: 151, CutOff: 101, Reconnects: 2, Breakers: 1, Rejoins: 1,
		WatchDeltas: 1, WatchSnapshots: 1, WatchResumes: 1, WatchErrors: 1,
	}
	if !reflect.DeepEqual(figures.Totals, want) {
		t.Errorf("counted\n%+v, want\n%+v", figures.Totals, want)
	}
	if missing := figures.Totals.Missing(); missing != nil {
		t.Errorf("missing: %q", missing)
	}
}

// Figures of several runs add up, whatever they are.
func TestAdd(t *testing.T) {
	var all measure.Figures
	for _, h := range []*history.History{eventful(), failovers(), partitions(), eventful(), {}} {
		figures := measure.Of(h)
		all.Add(&figures)
	}
	if faults := all.Totals.AllFaults(); faults != (measure.Injected{Begun: 11, Bitten: 9, Toothless: 2, Skipped: 2}) {
		t.Errorf("faults: %+v", faults)
	}
	if all.Totals.Dedup != 2 || all.Totals.Operations["get (probe)"] != (measure.Outcomes{OK: 1, Failed: 2}) {
		t.Errorf("totals: %+v", all.Totals)
	}
	if len(all.Outages) != 3 || len(all.Agreements) != 2 || all.Decided.Apart.Asked != 100 {
		t.Errorf("figures: %+v", all)
	}
	if missing := (&measure.Totals{}).Missing(); len(missing) < 15 {
		t.Errorf("of nothing, only %q are missing", missing)
	}
}
