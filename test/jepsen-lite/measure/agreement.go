package measure

import (
	"strings"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// partition begins the names of the cuts after which the way back to agreement is
// measured: nothing else is wrong meanwhile.
const partition = "partition-"

// Agreement is how long it took after a cut until everybody had what had been
// acknowledged before it was healed.
type Agreement struct {
	Run   string `json:"run"`
	Fault string `json:"fault"`
	At    int64  `json:"at"`  // of the heal, since the run's begin
	Cut   int64  `json:"cut"` // how long the cut lasted
	// All is until every server had applied, and every instance obeyed and was connected;
	// Servers is that of the servers alone, Instances that of each instance that had been
	// cut off.
	All       int64   `json:"all"`
	Servers   int64   `json:"servers"`
	Instances []int64 `json:"instances,omitempty"`
	// Open: somebody was not there when the next fault began, or at the end, so that All is
	// longer than told. Late says who.
	Open bool     `json:"open,omitempty"`
	Late []string `json:"late,omitempty"`
}

func agreements(h *history.History, faults []*life) []Agreement {
	var out []Agreement
	for i, f := range faults {
		if !strings.HasPrefix(f.name, partition) || !f.bit || !f.ended {
			continue
		}
		a := Agreement{Run: nameOf(h), Fault: f.name, At: f.end - h.Run.Began, Cut: f.end - f.begin}
		a.measure(h, f, next(h, faults, i))
		out = append(out, a)
	}
	return out
}

// measure looks at each server and each instance from the heal until something else
// begins.
func (a *Agreement) measure(h *history.History, f *life, until int64) {
	newest := newestBefore(h, f.end)
	took := func(who string, t int64) int64 {
		if t == 0 {
			a.Open, a.Late, t = true, append(a.Late, who), until
		}
		a.All = max(a.All, t-f.end)
		return t - f.end
	}
	for _, id := range h.Run.Servers {
		a.Servers = max(a.Servers, took(id, applied(h, id, newest, f.end, until)))
	}
	for _, id := range h.Run.Instances {
		t, apart := obeyed(h, id, newest, f, until)
		if d := took(id, t); apart {
			a.Instances = append(a.Instances, d)
		}
	}
}

// newestBefore is the newest place that was acknowledged before a time.
func newestBefore(h *history.History, t int64) history.Place {
	var newest history.Place
	for i := range h.Ops {
		op := &h.Ops[i]
		if at := (history.Place{Epoch: op.Epoch, Revision: op.Revision}); op.Outcome == history.OK && op.Return <= t && newest.Before(at) {
			newest = at
		}
	}
	return newest
}

// applied is when a server came to a place, at the earliest from, or 0 if it had not
// by until.
func applied(h *history.History, server string, newest history.Place, from, until int64) int64 {
	for i := range h.Applied {
		r := &h.Applied[i]
		if r.Server == server && r.T <= until && !(history.Place{Epoch: r.Epoch, Revision: r.Revision}).Before(newest) {
			return max(r.T, from)
		}
	}
	return 0
}

// obeyed is when an instance decided by a place or a later one and was connected, at the
// earliest at the end of the cut, or 0 if it had not by until. Apart tells whether the
// cut had kept it away: from the servers, or by way of its server.
func obeyed(h *history.History, instance string, newest history.Place, cut *life, until int64) (at int64, apart bool) {
	apart = cut.hits(instance)
	for i := range h.Decisions {
		d := &h.Decisions[i]
		if d.Instance != instance || d.Until < cut.begin {
			continue
		}
		if d.T < cut.end {
			// Who said for longer than a moment that it was not connected had lost its server.
			apart = apart || cut.hits(d.Server) || !d.Connected
		}
		if d.T > until {
			break
		}
		if d.Until >= cut.end && d.Connected && !(history.Place{Epoch: d.Epoch, Revision: d.Revision}).Before(newest) {
			return max(d.T, cut.end), apart
		}
	}
	return 0, apart
}
