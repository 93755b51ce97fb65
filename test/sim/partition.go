package sim

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
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

// Split is what a fleet did while it was apart, and after.
type Split struct {
	// FailFast is how long it took, on each side, until all breakers of a dependency
	// that died kept calls back; Probes how many calls went there from each side after
	// the first five seconds; Back how long until all let all calls through when it was
	// well again, or never if the split ended first.
	FailFast, Back [2]time.Duration
	Probes         [2]int
	// Whole is how long after healing all knew each other, and Agreed until all held the
	// same evidence.
	Whole, Agreed time.Duration
	// Resurrected breakers opened after healing, of the dependency that was well again
	// before; Ghosts are instances that still hold the word of one that crashed
	// meanwhile, thirty seconds after healing.
	Resurrected, Ghosts int
}

const (
	splitDown = 10 * time.Second // how long the first dependency is dead
	splitLast = 5 * time.Second  // how long before healing the second one dies
	agreeing  = 30 * time.Second // how soon after healing all have to hold the same evidence
	mending   = 2 * time.Minute  // and how soon to know each other, which evidence does not need
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
	r.FailFast, r.Probes = w.dieApart("payments", sides)
	lost := len(sides[0]) - 1
	w.crash(sides[0][lost])
	sides[0] = sides[0][:lost]
	w.Pass(time.Until(cut.Add(time.Second + splitDown)))
	well := time.Now()
	w.Dependency("payments").Behave(Always(Well))
	r.Back = [2]time.Duration{never, never}
	for time.Since(cut) < last-splitLast && slices.Contains(r.Back[:], never) {
		w.Pass(bucket)
		for n, side := range sides {
			if r.Back[n] == never && allClosed(side, "payments") {
				r.Back[n] = time.Since(well)
			}
		}
	}
	w.Pass(time.Until(cut.Add(last - splitLast)))
	w.Dependency("stock").Behave(Always(Refused))
	w.Pass(time.Until(cut.Add(last)))
	w.network.Heal()
	healed := time.Now()
	r.Whole, r.Agreed = never, never
	for time.Since(healed) < agreeing || r.Whole == never && time.Since(healed) < mending {
		w.Pass(5 * bucket)
		if r.Whole == never && w.whole() {
			r.Whole = time.Since(healed)
		}
		if r.Agreed == never && w.agree() {
			r.Agreed = time.Since(healed)
		}
	}
	for _, c := range w.Changes(healed, time.Now()) {
		if c.Dependency == "payments" && (c.To == breaker.Open && c.From != breaker.HalfOpen || c.To == breaker.Hearsay) {
			r.Resurrected++
		}
	}
	r.Ghosts = w.ghosts()
	w.Dependency("stock").Behave(Always(Well))
	return r
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

// dieApart kills a dependency, and looks at both sides for eight seconds.
func (w *World) dieApart(name string, sides [2][]*Instance) (fast [2]time.Duration, probes [2]int) {
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
		probes[n] = int(calls[n].Load())
	}
	return fast, probes
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

// agree tells whether all hold the same evidence.
func (w *World) agree() bool {
	first := ""
	for n, i := range w.instances {
		held := i.peer.Load().held()
		if n == 0 {
			first = held
		} else if held != first {
			return false
		}
	}
	return true
}

// held describes the evidence that an instance holds, ages apart.
func (p *peer) held() string {
	keys := p.store.Keys()
	slices.Sort(keys)
	var all []string
	for _, key := range keys {
		all = append(all, fmt.Sprintf("%s %x", key, p.store.Digest(key)))
	}
	return fmt.Sprint(all)
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
