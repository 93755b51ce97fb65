package check

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// recovers checks that everything works again after the heal: every server takes a
// write, and everybody can be asked and has caught up.
func recovers(f *facts) *finding {
	out := &finding{none: "the run has no time without faults"}
	if f.Run.Healed == 0 {
		return out
	}
	deadline := f.Run.Healed + int64(f.o.Heal)
	out.looked(1)
	switch {
	case f.Run.Settled == 0:
		out.fail("not everybody could be asked for the last time within %v of the heal", f.o.Heal)
	case f.Run.Settled > max(deadline, f.Run.Settling+int64(f.o.Heal)/4): // who is asked later answers sooner
		out.fail("it took %v after the heal until everybody could be asked", time.Duration(f.Run.Settled-f.Run.Healed))
	}
	writable := make(map[string]bool)
	for i := range f.Ops {
		op := &f.Ops[i]
		if writes(op) && op.Outcome == history.OK && op.Call >= f.Run.Healed && op.Return <= deadline {
			writable[op.Server] = true
		}
	}
	for _, id := range f.Run.Servers {
		out.looked(1)
		if len(f.Ops) > 0 && !writable[id] {
			out.fail("no write succeeded by way of %s within %v of the heal", id, f.o.Heal)
		}
	}
	newest := f.newestAcknowledged()
	for i := range f.Ends {
		end := &f.Ends[i]
		out.looked(1)
		switch at := f.log.place(end.Epoch, end.Revision); {
		case end.Err != "":
			out.fail("%s %s could not be asked at the end: %s", end.Who, end.ID, end.Err)
		case at.Before(newest) && end.T > deadline:
			out.fail("%s %s is at %v at the end, but %v was acknowledged", end.Who, end.ID, at, newest)
		case at.Before(newest):
			out.doubt("%s %s was asked before the deadline and is at %v, but %v was acknowledged", end.Who, end.ID, at, newest)
		}
	}
	return out
}

// available checks that the larger side acknowledges writes while only a minority of
// the servers is disturbed. Each fault that begins gives it time to find its feet.
func available(f *facts) *finding {
	out := &finding{none: "no fault left a majority of the servers alone for long enough"}
	var returns []int64
	for i := range f.Ops {
		if op := &f.Ops[i]; writes(op) && op.Outcome == history.OK {
			returns = append(returns, op.Return)
		}
	}
	slices.Sort(returns)
	faults := f.faults()
	edges := f.edges(faults)
	for i := 1; i < len(edges); i++ {
		from, to := edges[i-1], edges[i]
		if time.Duration(to-from) <= f.o.Failover || !f.minority(faults, from) {
			continue
		}
		out.looked(1)
		j, _ := slices.BinarySearch(returns, from)
		last := from
		for _, t := range append(slices.Clone(returns[j:]), to) {
			t = min(t, to)
			if gap := time.Duration(t - last); gap > f.o.Failover {
				out.fail("no write was acknowledged for %v from %s on, though only a minority was disturbed: %s", gap, seconds(last), namesAt(faults, from))
				break
			}
			if last = t; t == to {
				break
			}
		}
	}
	return out
}

// edges are the times, in order, at which the servers need time to find their feet: a
// fault of a server begins, or ends after it was one too many. The last is the end
// of the faults.
func (f *facts) edges(faults []*span) []int64 {
	var edges []int64
	for _, s := range faults {
		if !s.began || !slices.ContainsFunc(s.targets, func(id string) bool { return slices.Contains(f.Run.Servers, id) }) {
			continue
		}
		edges = append(edges, s.begin)
		if !f.minority(faults, s.end-1) {
			edges = append(edges, s.end)
		}
	}
	healed := cmp.Or(f.Run.Healed, f.lastMoment())
	edges = slices.DeleteFunc(edges, func(t int64) bool { return healed > 0 && t > healed })
	if len(edges) == 0 {
		return nil
	}
	if healed == 0 {
		for _, s := range faults {
			healed = max(healed, s.end)
		}
	}
	slices.Sort(edges)
	return append(edges, healed)
}

// minority tells that no majority of the servers is disturbed at a time.
func (f *facts) minority(faults []*span, t int64) bool {
	hit := make(map[string]bool)
	for _, s := range faults {
		if !s.began || s.begin > t || s.end <= t {
			continue
		}
		for _, id := range s.targets {
			if slices.Contains(f.Run.Servers, id) {
				hit[id] = true
			}
		}
	}
	return 2*len(hit) < len(f.Run.Servers)
}

func namesAt(faults []*span, t int64) string {
	var names []string
	for _, s := range faults {
		if s.began && s.begin <= t && s.end > t {
			names = append(names, s.name+" of "+strings.Join(s.targets, " "))
		}
	}
	return strings.Join(names, ", ")
}

// everyFaultBit checks that each fault was shown to have had its effect.
func everyFaultBit(f *facts) *finding {
	out := &finding{none: "no fault was injected"}
	for _, s := range f.faults() {
		if s.skipped {
			out.none = "every fault was skipped, the last because: " + s.proof
			continue
		}
		out.looked(1)
		switch {
		case s.toothless:
			out.void("%s of %s at %s did not bite: %s", s.name, strings.Join(s.targets, " "), seconds(s.begin), s.proof)
		case !s.bit:
			out.void("%s of %s at %s was not shown to bite", s.name, strings.Join(s.targets, " "), seconds(s.begin))
		case !s.ended:
			out.void("%s of %s at %s was never ended", s.name, strings.Join(s.targets, " "), seconds(s.begin))
		}
	}
	return out
}

// throughput checks that enough happened for the run to prove anything.
func throughput(f *facts) *finding {
	out := &finding{none: "the run has no load"}
	end := cmp.Or(f.Run.Healed, f.lastMoment())
	if len(f.Ops) == 0 || end <= f.Run.Began {
		return out
	}
	done := 0
	for i := range f.Ops {
		if op := &f.Ops[i]; op.Outcome == history.OK && op.Call < end {
			done++
		}
	}
	out.looked(done)
	if rate := float64(done) / time.Duration(end-f.Run.Began).Seconds(); rate < f.o.Throughput {
		out.void("%.1f operations per second succeeded, at least %.1f must", rate, f.o.Throughput)
	}
	return out
}

// mayEnd are the beginnings of the names of faults that end a process, as they
// should: it does not go on with a sick disk.
var mayEnd = []string{"disk-", "power-", "failover-disk-"}

// diesOnlyWhenTold checks that no process ended by itself.
func diesOnlyWhenTold(f *facts) *finding {
	out := &finding{none: "no process ended"}
	told := make(map[string]bool)
	faults := f.faults()
	for i := range f.Servers {
		s := &f.Servers[i]
		switch s.Event {
		case history.ProcessKill, history.ProcessStop:
			told[s.ID] = true
		case history.ProcessStart:
			told[s.ID] = false
		case history.ProcessExit:
			out.looked(1)
			if told[s.ID] || slices.ContainsFunc(faults, func(fault *span) bool { return fault.explains(s) }) {
				continue
			}
			out.fail("%s ended by itself at %s with code %d: %s", s.ID, seconds(s.T), s.Code, s.What)
		}
	}
	return out
}

// explains tells whether a fault may have ended a process.
func (s *span) explains(exit *history.Server) bool {
	return s.began && slices.Contains(s.targets, exit.ID) && s.begin <= exit.T && exit.T <= s.end+int64(endsWithin) &&
		slices.ContainsFunc(mayEnd, func(prefix string) bool { return strings.HasPrefix(s.name, prefix) })
}

// endsWithin is how long after such a fault a process may still end of it.
const endsWithin = 2 * time.Second

// servers is the name under which all servers are judged together: load moves from
// one to the other, and what it needs with it.
const servers = "the servers together"

// backToBase checks that processes use at the end what they used at first. An
// instance that was started anew is not compared.
func backToBase(f *facts) *finding {
	out := &finding{none: "no process told what it uses"}
	base, end, count := make(map[string]history.Usage), make(map[string]history.Usage), make(map[string]int)
	for id, usages := range by(f.Usages, func(u *history.Usage) string { return u.ID }) {
		first, last := bounds(usages)
		if first == nil || last == nil {
			continue
		}
		group := servers
		if !slices.Contains(f.Run.Servers, id) {
			if group = id; f.startedBetween(id, first.T, last.T) {
				continue
			}
		}
		base[group], end[group] = sum(base[group], first), sum(end[group], last)
		count[group]++
	}
	for _, id := range slices.Sorted(maps.Keys(end)) {
		n := count[id]
		out.looked(n)
		goroutines, fds := f.o.Goroutines, f.o.FDs
		if id != servers {
			goroutines, fds = f.o.InstanceGoroutines, f.o.InstanceFDs
		}
		if end[id].Goroutines-base[id].Goroutines > n*goroutines {
			out.fail("%s: %d goroutines at the end, %d at first", id, end[id].Goroutines, base[id].Goroutines)
		}
		if end[id].FDs-base[id].FDs > n*fds {
			out.fail("%s: %d files open at the end, %d at first", id, end[id].FDs, base[id].FDs)
		}
		if end[id].RSS-base[id].RSS > int64(n)*f.o.RSS {
			out.fail("%s: %d KiB at the end, %d at first", id, end[id].RSS>>10, base[id].RSS>>10)
		}
	}
	return out
}

// bounds are the first base and the last end of what a process used.
func bounds(usages []*history.Usage) (base, end *history.Usage) {
	for _, u := range usages {
		switch {
		case u.When == history.UsageBase && base == nil:
			base = u
		case u.When == history.UsageEnd:
			end = u
		}
	}
	return base, end
}

func sum(a history.Usage, b *history.Usage) history.Usage {
	a.Goroutines += b.Goroutines
	a.FDs += b.FDs
	a.RSS += b.RSS
	return a
}
