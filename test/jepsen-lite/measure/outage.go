package measure

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

const (
	// failover begins the names of the faults whose cost for writers is measured: each
	// strikes the leader of a cluster that is whole.
	failover = "failover-"
	// outageWindow is for how long after its begin a gap is put down to a fault.
	outageWindow = 15 * time.Second
	// whole is for how long before each fault everything was well: a gap that is not over
	// then is the next fault's.
	whole = time.Second
)

// Outage is how long writers waited because of one fault.
type Outage struct {
	Run    string `json:"run"`
	Fault  string `json:"fault"`
	Target string `json:"target"`
	At     int64  `json:"at"` // since the run's begin
	// Led: the target led when the fault began, by its own trace. Without that it is no
	// trial.
	Led bool `json:"led"`
	// Gap is the longest time without an acknowledgement for all writers together, as one
	// sees it who goes on to another server at once; Stayed is that of those who stay with
	// one server, for each server that the fault did not strike.
	Gap    int64   `json:"gap"`
	Stayed []int64 `json:"stayed,omitempty"`
	// Open: no acknowledgement ended the gap, so that it is longer than told.
	Open bool `json:"open,omitempty"`
}

// ack is an acknowledged write.
type ack struct{ call, ret int64 }

// outages measures every fault of the leader under which writers probed: those who
// begin a write at fixed times, whatever became of those before.
func outages(h *history.History, faults []*life) []Outage {
	all, by, stopped := acks(h)
	if len(all) == 0 {
		return nil
	}
	var out []Outage
	for i, f := range faults {
		if !strings.HasPrefix(f.name, failover) || !f.bit || len(f.targets) == 0 {
			continue
		}
		o := Outage{Run: nameOf(h), Fault: f.name, Target: f.targets[0], At: f.begin - h.Run.Began, Led: led(h, f.targets[0], f.begin)}
		until := min(f.begin+int64(outageWindow), stopped)
		if i+1 < len(faults) {
			until = min(until, faults[i+1].begin-int64(whole))
		}
		o.Gap, o.Open = gap(all, f.begin, until)
		for _, id := range h.Run.Servers {
			if !f.hits(id) {
				longest, open := gap(by[id], f.begin, until)
				o.Stayed = append(o.Stayed, longest)
				o.Open = o.Open || open
			}
		}
		out = append(out, o)
	}
	return out
}

// acks are the acknowledged writes of the probing writers, all of them and by server,
// in the order of their acknowledgements, and when the last write was begun.
func acks(h *history.History) (all []ack, by map[string][]ack, stopped int64) {
	by = make(map[string][]ack)
	for i := range h.Ops {
		op := &h.Ops[i]
		if !op.Probe || !writes(op) {
			continue
		}
		stopped = max(stopped, op.Call)
		if op.Outcome == history.OK {
			a := ack{op.Call, op.Return}
			all = append(all, a)
			by[op.Server] = append(by[op.Server], a)
		}
	}
	order := func(a, b ack) int { return cmp.Compare(a.ret, b.ret) }
	slices.SortFunc(all, order)
	for _, some := range by {
		slices.SortFunc(some, order)
	}
	return all, by, stopped
}

// gap is the longest time between two acknowledgements that has a part between from
// and until. It is counted from the begin of the last write that was acknowledged before
// it: what was begun after that had to wait. Open tells that nothing was acknowledged
// after it.
func gap(acks []ack, from, until int64) (longest int64, open bool) {
	first, _ := slices.BinarySearchFunc(acks, from, func(a ack, t int64) int { return cmp.Compare(a.ret, t) })
	since := from
	if first > 0 {
		since = slices.MaxFunc(acks[:first], func(a, b ack) int { return cmp.Compare(a.call, b.call) }).call
	}
	for _, a := range acks[first:] {
		longest, since = max(longest, a.ret-since), max(since, a.call)
		if a.ret > until {
			return longest, false
		}
	}
	return max(longest, until-since), until-since > longest
}

// led tells whether a server led at a time, as it saw itself.
func led(h *history.History, server string, at int64) bool {
	leads := false
	for i := range h.Leads {
		if l := &h.Leads[i]; l.Server == server && l.T <= at {
			leads = l.Leads
		}
	}
	return leads
}
