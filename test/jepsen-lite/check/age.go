package check

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// honest checks what instances tell of their age: none is further behind than it
// says, and one that is connected and undisturbed is not behind what its server has.
func honest(f *facts) *finding {
	out := &finding{none: "no instance decided anything"}
	a := f.ages()
	for i := range f.Decisions {
		d := &f.Decisions[i]
		a.follow(d)
		if d.Err != "" || d.Source == history.SourceDefaults || d.Revision == 0 || !f.log.dated(d.Epoch) {
			continue
		}
		out.looked(1)
		acknowledged, reached := a.lacks(d)
		if fresh, lacks := time.Duration(d.Fresh), time.Duration(d.T-acknowledged); d.Fresh > 0 && lacks > fresh+f.o.AgeBy {
			out.fail("%s says that it was the newest %v ago, but what it lacks was acknowledged %v before", showDecision(d), fresh, lacks)
		}
		// What a server says is no newer than what it has.
		if age, lacks := time.Duration(d.Age), time.Duration(d.T-reached); lacks <= age+f.o.AgeBy {
			delete(a.young, d.Instance)
		} else if a.tooYoung(d, reached) {
			out.fail("%s says that it heard a server %v ago, but what it lacks was there %v before", showDecision(d), age, lacks)
		}
		if told := time.Duration(cmp.Or(d.Fresh, d.Age)); f.o.StaleAfter > 0 && !d.Stale && told > f.o.StaleAfter+f.o.AgeBy {
			out.fail("%s is %v old and does not say that it is stale", showDecision(d), told)
		}
		late := time.Duration(d.Until - max(reached, a.since[d.Instance]))
		if d.Connected && late > f.o.Fresh && !f.excused(a.faults, reached, d.Until, d.Instance, d.Server) {
			out.fail("%s is connected to %s, and at %s still lacks what that had %v before", showDecision(d), d.Server, seconds(d.Until), late)
		}
	}
	return out
}

// ages tells how old views are.
type ages struct {
	f       *facts
	acks    reached            // acknowledged writes
	servers map[string]reached // what each server had, by its trace
	faults  []*span
	heard   map[string]string // the server that an instance heard last
	since   map[string]int64  // since when it has been connected there
	young   map[string]int64  // since when an instance has looked younger than it is
}

// reached are places in their order, each with the time at which it or one beyond it
// was first reached.
type reached []arrival

type arrival struct {
	at history.Place
	t  int64
}

func (f *facts) ages() *ages {
	a := &ages{f: f, servers: make(map[string]reached), faults: f.faults(), heard: make(map[string]string), since: make(map[string]int64), young: make(map[string]int64)}
	for i := range f.Ops {
		if op := &f.Ops[i]; acknowledged(op) {
			a.acks = append(a.acks, arrival{f.log.committed(op), op.Return})
		}
	}
	for i := range f.Applied {
		r := &f.Applied[i]
		a.servers[r.Server] = append(a.servers[r.Server], arrival{f.log.place(r.Epoch, r.Revision), r.T})
	}
	a.acks.sort()
	for _, server := range a.servers {
		server.sort()
	}
	return a
}

func (r reached) sort() {
	slices.SortFunc(r, func(a, b arrival) int { return comparePlaces(a.at, b.at) })
	for i := len(r) - 2; i >= 0; i-- {
		r[i].t = min(r[i].t, r[i+1].t)
	}
}

// never is a time that does not come.
const never = math.MaxInt64 / 2

// follow notes to which server an instance is connected.
func (a *ages) follow(d *history.Decision) {
	switch id := d.Instance; {
	case !d.Connected:
		a.since[id] = 0
	case a.since[id] == 0 || a.heard[id] != d.Server:
		a.heard[id], a.since[id] = d.Server, d.T
	}
}

// lacks tells since when a decision's view lacks something: since when it was
// acknowledged, and since when the server that the instance heard last had it as well.
func (a *ages) lacks(d *history.Decision) (acknowledged, reached int64) {
	at := a.f.log.place(d.Epoch, d.Revision)
	i := sort.Search(len(a.acks), func(i int) bool { return at.Before(a.acks[i].at) })
	if i == len(a.acks) {
		return never, never
	}
	lacked := a.acks[i]
	server, traced := a.servers[a.heard[d.Instance]]
	if !traced {
		return lacked.t, lacked.t
	}
	j := sort.Search(len(server), func(j int) bool { return !server[j].at.Before(lacked.at) })
	if j == len(server) {
		return lacked.t, never
	}
	return lacked.t, max(lacked.t, server[j].t)
}

// tooYoung tells whether an instance is to blame that heard a server later than what
// it lacks was there: what a server says may have been long on its way when a cut
// heals, so that an instance looks young for a moment.
func (a *ages) tooYoung(d *history.Decision, lacks int64) bool {
	since, ok := a.young[d.Instance]
	if !ok {
		since = d.T
		a.young[d.Instance] = since
	}
	return time.Duration(d.T-since) > a.f.o.AgeBy && !a.f.excused(a.faults, lacks, d.T, a.heard[d.Instance])
}

// excused tells whether a fault disturbs one of some processes, so that it may be
// behind, between two times. A fault goes on disturbing for as long as it lasted.
func (f *facts) excused(faults []*span, from, to int64, ids ...string) bool {
	for _, s := range faults {
		after := min(time.Duration(s.end-s.begin)+f.o.Fresh, f.o.Heal)
		if s.begin > to || s.end+int64(after) < from {
			continue
		}
		if slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(s.targets, id) }) {
			return true
		}
	}
	return slices.ContainsFunc(ids, func(id string) bool { return f.disturbed(id, from, to) })
}
