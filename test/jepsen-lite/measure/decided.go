package measure

import (
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Decided are the decisions of instances while they were cut off from all servers, and
// those of the same instances while they were connected and nothing was wrong.
type Decided struct {
	Apart     Decisions `json:"apart"`
	Connected Decisions `json:"connected"`
}

// Decisions are how many were asked for and answered, and how long that took.
type Decisions struct {
	Instances int `json:"instances"` // each counts once a run
	Asked     int `json:"asked"`
	Answered  int `json:"answered"`
	// Took counts decisions by a bound in ns that they stayed below; Slowest is exact.
	Took    map[int64]int `json:"took,omitempty"`
	Slowest int64         `json:"slowest"`
	// Pause is the longest time between two records of decisions in one piece of time: a
	// decision that is never answered leaves no record.
	Pause int64 `json:"pause"`
}

func (d *Decided) add(o *Decided) {
	d.Apart.add(&o.Apart)
	d.Connected.add(&o.Connected)
}

func (d *Decisions) add(o *Decisions) {
	d.Instances, d.Asked, d.Answered = d.Instances+o.Instances, d.Asked+o.Asked, d.Answered+o.Answered
	d.Slowest, d.Pause = max(d.Slowest, o.Slowest), max(d.Pause, o.Pause)
	if d.Took == nil && len(o.Took) > 0 {
		d.Took = make(map[int64]int)
	}
	for bound, n := range o.Took {
		d.Took[bound] += n
	}
}

// record counts a record of decisions.
func (d *Decisions) record(r *history.Decision) {
	one := Decisions{Asked: r.N, Slowest: r.Slowest, Took: r.Took}
	if r.Err == "" {
		one.Answered = r.N
	}
	d.add(&one)
}

// quantile is the bound that a share of the decisions stayed below, 0 without any.
func (d *Decisions) quantile(share float64) int64 {
	all, seen := 0, 0
	for _, n := range d.Took {
		all += n
	}
	for _, bound := range slices.Sorted(maps.Keys(d.Took)) {
		if seen += d.Took[bound]; float64(seen) >= share*float64(all) {
			return min(bound, d.Slowest)
		}
	}
	return 0
}

// cutsAll tells whether a fault cuts its targets off from all servers.
func cutsAll(name string) bool {
	return slices.ContainsFunc([]string{"net-sdk-from-all", "net-sdk-from-some", "net-alone-all", "net-alone-some", "partition-sdk-"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// piece is a time in which an instance was in one of the two states all along.
type piece struct {
	from, to int64
	apart    bool
}

func decided(h *history.History, faults []*life) Decided {
	by := make(map[string][]*history.Decision)
	for i := range h.Decisions {
		by[h.Decisions[i].Instance] = append(by[h.Decisions[i].Instance], &h.Decisions[i])
	}
	var all Decided
	for _, id := range h.Run.Instances {
		pieces := piecesOf(h, faults, id)
		if !slices.ContainsFunc(pieces, func(p piece) bool { return p.apart }) {
			continue // it was never cut off, so there is nothing to compare with
		}
		var one Decided
		for _, p := range pieces {
			one.during(p, by[id])
		}
		one.Apart.Instances, one.Connected.Instances = 1, 1
		all.add(&one)
	}
	return all
}

// during adds the decisions of one instance in a piece of time.
func (d *Decided) during(p piece, records []*history.Decision) {
	in := &d.Connected
	if p.apart {
		in = &d.Apart
	}
	before := p.from
	for _, r := range records {
		if r.Until < p.from || r.T > p.to {
			continue
		}
		in.Pause, before = max(in.Pause, r.T-before), max(before, r.Until)
		if r.T >= p.from && r.Until <= p.to && (p.apart || r.Connected) {
			in.record(r)
		}
	}
	in.Pause = max(in.Pause, p.to-before)
}

// piecesOf are the times in which an instance was cut off from all servers and nothing
// else happened to it, and those without any fault.
func piecesOf(h *history.History, faults []*life, instance string) []piece {
	var pieces []piece
	free := h.Run.Began
	for _, f := range faults {
		end := f.end
		if !f.ended {
			end = last(h)
		}
		if f.begin > free {
			pieces = append(pieces, piece{from: free, to: f.begin})
		}
		free = max(free, end)
		if cutsAll(f.name) && f.bit && f.hits(instance) {
			pieces = append(pieces, piece{from: f.begin, to: end, apart: true})
		}
	}
	if h.Run.Healed > free {
		pieces = append(pieces, piece{from: free, to: h.Run.Healed})
	}
	return pieces
}
