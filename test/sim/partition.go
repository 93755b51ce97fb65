package sim

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/health"
)

// Shape is how a fleet falls apart: those who are apart, from the rest.
type Shape struct {
	Name   string
	Apart  func(*World, *Instance) bool
	OneWay bool // those apart hear the rest, and are not heard
}

func halves(w *World, i *Instance) bool   { return i.N%w.plan.Hosts < w.plan.Hosts/2 }
func minority(w *World, i *Instance) bool { return i.N%w.plan.Hosts < max(w.plan.Hosts/10, 1) }

// Shapes are those that are looked at.
func Shapes() []Shape {
	return []Shape{{"halves", halves, false}, {"a tenth", minority, false}, {"halves, one way", halves, true}}
}

// Split is what a fleet did while it was apart, and after. What there are two of is of
// either side: those apart, and the rest.
type Split struct {
	// FailFast is how long it took, when a dependency died at the beginning, until all
	// breakers of a side kept calls back, and Late the same of one that died just before
	// the end, when each side had long lost sight of the other.
	FailFast, Late [2]time.Duration
	// Heeded is how many breakers opened because of what others on their side said, of both
	// dependencies; a side of fewer hosts than a quorum has no say.
	Heeded [2]int
	// Calls is how many went to the first one after its first five seconds, Probes how
	// often a breaker tried it meanwhile and until all let all calls through again, and
	// Back how long that took when it was well again; never if the split ended first.
	Calls, Probes [2]int
	Back          [2]time.Duration
	// Whole is how long after healing all knew each other, and Agreed until all held the
	// same evidence, for good as far as was looked.
	Whole, Agreed time.Duration
	// Flaps is how many of each two instances, at most, lost sight of each other once more
	// after that, when a suspicion ended that had been taken back where it did not reach;
	// Flapping is for how long at most.
	Flaps    int
	Flapping time.Duration
	// Resurrected breakers opened after healing, of the dependency that was well again
	// before; Ghosts are instances that still hold the word of one that crashed
	// meanwhile, thirty seconds after healing.
	Resurrected, Ghosts int
	// Sent is what a member sent a second, in bytes, in the last minute apart, and Healing
	// what it sent in the thirty seconds after.
	Sent, Healing float64
}

const (
	splitDown = 10 * time.Second // how long the first dependency is dead
	splitLast = 5 * time.Second  // how long before healing the second one dies
	mending   = 30 * time.Second // how soon after healing all have to know each other, and hold the same evidence
	watched   = 2 * mending      // how long is looked whether it lasts
	flapping  = 15 * time.Second // how long one may lose sight of another for a last time
)

// RunPartition takes a fleet apart for a time. Meanwhile payments dies and comes back,
// stock dies and stays dead until after healing, and an instance crashes.
func (w *World) RunPartition(s Shape, last time.Duration) Split {
	var r Split
	sides, addrs := w.sides(s)
	if w.network.CutGroup(addrs[0], addrs[1]); !s.OneWay {
		w.network.CutGroup(addrs[1], addrs[0])
	}
	cut := time.Now()
	w.Pass(time.Second)
	died := time.Now()
	r.FailFast, r.Calls = w.dieApart("payments", sides)
	lost := len(sides[0]) - 1
	w.crash(sides[0][lost])
	sides[0] = sides[0][:lost]
	w.Pass(time.Until(died.Add(splitDown)))
	well := time.Now()
	r.Back = w.backApart("payments", sides, cut.Add(last-splitLast))
	for n := range sides {
		r.Probes[n] = came(sides[n], breaker.HalfOpen, "payments", died, time.Now())
	}
	w.Pass(time.Until(cut.Add(last - time.Minute)))
	from, sent := time.Now(), w.sent()
	w.Pass(time.Until(cut.Add(last - splitLast)))
	r.Sent = (w.sent() - sent) / max(time.Since(from).Seconds(), 1)
	late := time.Now()
	w.Dependency("stock").Behave(Always(Refused))
	held := history{}
	for time.Now().Before(cut.Add(last)) {
		w.Pass(5 * bucket)
		held.agree(w.instances, time.Now())
	}
	for n := range sides {
		r.Heeded[n] = came(sides[n], breaker.Hearsay, "payments", died, well) + came(sides[n], breaker.Hearsay, "stock", late, time.Now())
		r.Late[n] = Percentile(w.failFastOf(sides[n], "stock", late, time.Now()), 1)
	}
	w.network.Heal()
	w.heal(&r, held)
	w.Dependency("stock").Behave(Always(Well))
	return r
}

// heal looks at what happens when all links are whole again. The history is of the last
// seconds before.
func (w *World) heal(r *Split, held history) {
	healed, sent := time.Now(), w.sent()
	r.Whole, r.Agreed = never, never
	lost := time.Duration(0)
	for time.Since(healed) < watched {
		w.Pass(5 * bucket)
		since := time.Since(healed)
		if strangers := w.strangers(); strangers == 0 {
			r.Whole, lost = first(r.Whole, since), 0
		} else if r.Whole != never {
			lost += 5 * bucket
			r.Flaps, r.Flapping = max(r.Flaps, strangers), max(r.Flapping, lost)
		}
		if held.agree(w.instances, time.Now()) {
			r.Agreed = first(r.Agreed, since)
		} else {
			r.Agreed = never
		}
		if r.Healing == 0 && since >= mending {
			r.Healing = (w.sent() - sent) / since.Seconds()
			r.Ghosts = w.ghosts()
		}
	}
	for _, c := range w.Changes(healed, time.Now()) {
		if c.Dependency == "payments" && (c.To == breaker.Open && c.From != breaker.HalfOpen || c.To == breaker.Hearsay) {
			r.Resurrected++
		}
	}
}

func first(was, now time.Duration) time.Duration {
	if was != never {
		return was
	}
	return now
}

// sent is what members have sent so far, in bytes, on average.
func (w *World) sent() float64 { return float64(w.traffic().SentBytes) / float64(len(w.instances)) }

// backApart lets a dependency be well again, and tells how long either side took to let
// all calls through; never beyond an end.
func (w *World) backApart(name string, sides [2][]*Instance, end time.Time) [2]time.Duration {
	well := time.Now()
	w.Dependency(name).Behave(Always(Well))
	back := [2]time.Duration{never, never}
	for time.Now().Before(end) && slices.Contains(back[:], never) {
		w.Pass(bucket)
		for n, side := range sides {
			if back[n] == never && allClosed(side, name) {
				back[n] = time.Since(well)
			}
		}
	}
	return back
}

// came counts how often breakers of a dependency came into a state.
func came(some []*Instance, state breaker.State, name string, from, to time.Time) int {
	n := 0
	for _, i := range some {
		for _, c := range i.Changes(from, to) {
			if c.Dependency == name && c.To == state {
				n++
			}
		}
	}
	return n
}

// strangers counts, of each two instances, those that do not know each other.
func (w *World) strangers() int {
	alive := map[string]bool{}
	for _, i := range w.instances {
		alive[i.addr()] = true
	}
	n := 0
	for _, i := range w.instances {
		n += len(alive)
		for _, m := range i.peer.Load().pool.Members() {
			if alive[m.Addr] {
				n--
			}
		}
	}
	return n
}

// sides returns the instances apart and the rest, and their addresses.
func (w *World) sides(s Shape) (sides [2][]*Instance, addrs [2][]string) {
	for _, i := range w.instances {
		n := 1
		if s.Apart(w, i) {
			n = 0
		}
		sides[n] = append(sides[n], i)
		addrs[n] = append(addrs[n], i.addr())
	}
	return sides, addrs
}

// hosts counts those of either side.
func (w *World) hosts(s Shape) (n [2]int) {
	sides, _ := w.sides(s)
	for side, some := range sides {
		all := map[string]bool{}
		for _, i := range some {
			all[i.Host] = true
		}
		n[side] = len(all)
	}
	return n
}

// dieApart kills a dependency, and looks at both sides for eight seconds.
func (w *World) dieApart(name string, sides [2][]*Instance) (fast [2]time.Duration, late [2]int) {
	var calls [2]atomic.Int64
	side := map[*Instance]int{}
	for n := range sides {
		for _, i := range sides[n] {
			side[i] = n
		}
	}
	from := time.Now()
	w.Dependency(name).Behave(func(i *Instance, now time.Time) Answer {
		if now.Sub(from) > 5*time.Second {
			calls[side[i]].Add(1)
		}
		return Refused
	})
	w.Pass(splitDown - 2*time.Second)
	for n := range sides {
		fast[n] = Percentile(w.failFastOf(sides[n], name, from, time.Now()), 1)
		late[n] = int(calls[n].Load())
	}
	return fast, late
}

// crash ends an instance without a word.
func (w *World) crash(i *Instance) {
	i.stop()
	w.crashed = append(w.crashed, i)
	w.instances = slices.DeleteFunc(slices.Clone(w.instances), func(other *Instance) bool { return other == i })
}

// ghosts counts the instances that hold evidence of one that crashed.
func (w *World) ghosts() int {
	n := 0
	for _, i := range w.instances {
		keys := i.peer.Load().store.Keys()
		if slices.ContainsFunc(w.crashed, func(c *Instance) bool { return slices.Contains(keys, c.ID) }) {
			n++
		}
	}
	return n
}

// Nobody lacks what another has held for missing, or holds an older version of what
// another has held for behind: a record takes a moment to travel, and it is said again
// each five seconds, which is repaired with the next probe of membership where it is
// lost.
const (
	missing = 2 * time.Second
	behind  = 6 * time.Second
)

// history is when each version of a record was first held by anybody.
type history map[string][]edition

type edition struct {
	digest uint64
	at     time.Time
}

// agree looks at what all hold, and tells whether nobody lacks, or is behind with, what
// somebody else holds. What is about to be forgotten may be so by some before others.
func (h history) agree(instances []*Instance, now time.Time) bool {
	held := make([]map[string]uint64, len(instances))
	for n, i := range instances {
		held[n] = i.peer.Load().held()
		for key, digest := range held[n] {
			if !slices.ContainsFunc(h[key], func(e edition) bool { return e.digest == digest }) {
				h[key] = append(h[key], edition{digest, now})
			}
		}
	}
	for key, editions := range h {
		for n := range held {
			since, late := now.Add(missing-health.TTL), missing
			if digest, holds := held[n][key]; holds {
				since, late = editions[slices.IndexFunc(editions, func(e edition) bool { return e.digest == digest })].at, behind
			}
			if slices.ContainsFunc(editions, func(e edition) bool { return e.at.After(since) && now.Sub(e.at) > late }) {
				return false
			}
		}
	}
	return true
}

// held is the evidence that an instance holds, ages apart.
func (p *peer) held() map[string]uint64 {
	all := map[string]uint64{}
	for _, key := range p.store.Keys() {
		if digest := p.store.Digest(key); digest != 0 {
			all[key] = digest
		}
	}
	return all
}

func allClosed(some []*Instance, dependency string) bool {
	for _, i := range some {
		for state := range i.states(dependency) {
			if state != breaker.Closed {
				return false
			}
		}
	}
	return true
}
