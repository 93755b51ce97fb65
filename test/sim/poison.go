package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/health"
)

// Harm is what lies, or the word of the sick, did to those who are well.
type Harm struct {
	// Opened is the share of instances with a breaker that hearsay opened.
	Opened float64
	// Openings is how many breakers it opened, and Kept how many calls it kept back of
	// each thousand.
	Openings int
	Kept     float64
	// Idle is how many breakers it opened that get no calls; they do not count above.
	Idle int
	// Over is how long it lasted after the lies ended; 0 where there was none then.
	Over time.Duration
}

// measure looks at what hearsay did to those who are meant, while f runs.
func (w *World) measure(meant func(*Instance) bool, f func()) Harm {
	before, calls := w.hearsayCalls(meant)
	from := time.Now()
	f()
	after, allCalls := w.hearsayCalls(meant)
	var h Harm
	all, harmed, opened := 0, 0, map[string]bool{}
	for _, i := range w.instances {
		if !meant(i) {
			continue
		}
		all++
		n := 0
		for _, c := range i.Changes(from, time.Now()) {
			switch {
			case c.To != breaker.Hearsay:
			case i.idle(c.Dependency, c.Target):
				opened[c.Instance.ID+" "+c.Dependency+" "+c.Target] = true
			default:
				n++
			}
		}
		h.Openings += n
		if n > 0 {
			harmed++
		}
	}
	h.Opened = float64(harmed) / float64(max(all, 1))
	h.Idle = len(opened)
	h.Kept = 1000 * float64(after-before) / float64(max(allCalls-calls, 1))
	return h
}

// idle tells whether a target gets no calls.
func (i *Instance) idle(dependency, target string) bool {
	return slices.ContainsFunc(i.lines, func(l line) bool {
		return l.dependency.name == dependency && l.target.Name() == target && l.every == 0
	})
}

// idles counts the targets of a dependency that get no calls; of all if it is not named.
func (w *World) idles(dependency string) int {
	n := 0
	for _, i := range w.instances {
		for _, l := range i.lines {
			if l.every == 0 && (dependency == "" || l.dependency.name == dependency) {
				n++
			}
		}
	}
	return n
}

// hearsayCalls counts the calls that hearsay kept back, and all.
func (w *World) hearsayCalls(meant func(*Instance) bool) (kept, calls uint64) {
	for _, i := range w.instances {
		if !meant(i) {
			continue
		}
		for _, d := range i.guard.Stats().Dependencies {
			for _, t := range d.Targets {
				kept += t.Hearsay
				calls += t.Calls
			}
		}
	}
	return kept, calls
}

// inHearsay counts breakers that are open by hearsay now.
func (w *World) inHearsay() int {
	n := 0
	for _, i := range w.instances {
		for _, d := range w.dependencies {
			n += i.states(d.name)[breaker.Hearsay]
		}
	}
	return n
}

// liarsJoin lets so many liars join, and returns what lets them say something each second
// and what silences them for good.
func (w *World) liarsJoin(liars int) (lie func(what func(*Liar) func(uint64)), hush func()) {
	var all []*Liar
	for n := range liars {
		l, err := w.newLiar(len(w.instances) + w.lied + n)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, l)
	}
	w.Pass(5 * time.Second)
	lie = func(what func(*Liar) func(uint64)) {
		for _, l := range all {
			l.Lie(what(l))
		}
	}
	return lie, func() {
		for _, l := range all {
			l.Hush()
			l.peer.Load().stop()
		}
		w.liars = nil
		w.lied += liars
	}
}

// RunLiars lets so many liars say for a time that everything is open.
func (w *World) RunLiars(liars int, last time.Duration) Harm {
	lie, hush := w.liarsJoin(liars)
	h := w.measure(everybody, func() {
		lie(broken)
		w.Pass(last)
	})
	hush()
	h.Over = w.Until(2*time.Minute, "hearsay ends after the lies", func() bool { return w.inHearsay() == 0 })
	return h
}

func broken(l *Liar) func(uint64) { return l.EverythingIsOpen }
func well(l *Liar) func(uint64)   { return l.EverythingIsWell }

func everybody(*Instance) bool { return true }

// ForgeOthers lets one process say, each second, in the name of so many instances on
// other hosts that everything is open: with their certificates and its own signature.
func (l *Liar) ForgeOthers(victims []*Instance) func(uint64) {
	w := l.world
	return func(sequence uint64) {
		for _, v := range victims {
			_, certificate, err := w.trust.certify(w.plan.Seed, v.serial(), v.ID, v.Place)
			if err != nil {
				w.t.Error(err)
				return
			}
			record := health.Record{Incarnation: 1 << 40, Sequence: sequence}
			for _, d := range w.dependencies {
				record.Reports = append(record.Reports, health.Report{
					Dependency: d.name, Opinion: health.Open, Cause: health.TooManyFailures, Calls: 100_000, Failures: 100_000,
				})
			}
			record.Normalize()
			envelope, err := fleet.Seal(l.key, certificate, &record, time.Now())
			if err != nil {
				w.t.Error(err)
				return
			}
			name := fmt.Sprint("forged ", v.ID)
			l.held.tell(name, envelope)
			l.channel.Spread(name)
		}
	}
}

// Replay passes on, each second, what it has heard of others that found something
// broken, as if it were new.
func (l *Liar) Replay(uint64) {
	l.held.mu.Lock()
	heard := make(map[string][]byte, len(l.held.heard))
	for id, envelope := range l.held.heard {
		heard[id] = fresh(envelope)
	}
	l.held.mu.Unlock()
	for id, envelope := range heard {
		l.held.tell(id, envelope)
		l.channel.Spread(id)
	}
}

// fresh is an envelope whose age is none: version, age, and the rest as it was.
func fresh(envelope []byte) []byte {
	at := 1
	for envelope[at]&0x80 != 0 {
		at++
	}
	return append([]byte{envelope[0], 0}, envelope[at+1:]...)
}
