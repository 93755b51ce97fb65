package sim

import (
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// Outage is what came of a dependency that died and came back.
type Outage struct {
	// Calls a second before.
	Before float64
	// FailFast is how long each breaker took to keep calls back.
	FailFast []time.Duration
	// Sent calls reached it in the first ten seconds.
	Sent int
	// Probes are the calls in each second of the outage after the first fifteen.
	Probes []int
	// Back is how long after it came back three quarters, and 99 in a hundred, of the
	// calls of before reached it again.
	Back, Full time.Duration
	// First are the calls of the first three seconds after it came back.
	First []int
	// Trips counts breakers that opened again while they let more and more calls
	// through, or after.
	Trips int
}

// shut is how long an outage lasts before what is left of its calls are probes.
const shut = 15 * time.Second

// RunOutage kills a dependency for a time, and lets it come back.
func (w *World) RunOutage(name string, how Answer, last time.Duration, back func(full float64) Behaviour) Outage {
	d := w.Dependency(name)
	var o Outage
	const calm = 5 * time.Second
	w.Pass(calm)
	w.Pass(time.Until(w.start.Add(time.Since(w.start).Truncate(bucket) + bucket)))
	dead := time.Now()
	o.Before = float64(d.Arrived(dead.Add(-calm), dead)) / calm.Seconds()
	d.Behave(Always(how))
	w.Pass(last)
	returned := time.Now()
	w.t.Logf("%s was dead for %v", name, last)
	o.FailFast = w.failFast(name, dead, returned)
	o.Sent = d.Arrived(dead, dead.Add(10*time.Second))
	o.Probes = d.PerSecond(dead.Add(shut), returned)
	d.Behave(back(o.Before))
	o.Back, o.Full = never, never
	for range 180 {
		w.Pass(time.Second)
		flow := float64(d.Arrived(time.Now().Add(-time.Second), time.Now())) / o.Before
		if o.Back == never && flow >= 0.75 {
			o.Back = time.Since(returned)
		}
		if flow >= 0.75 && w.closed(name) >= 0.99 {
			o.Full = time.Since(returned)
			break
		}
	}
	o.First = d.PerSecond(returned, returned.Add(3*time.Second))
	w.Pass(5 * time.Second)
	for _, c := range w.Changes(returned, time.Now()) {
		if c.Dependency == name && c.To == breaker.Open && (c.From == breaker.Recovering || c.From == breaker.Closed) {
			o.Trips++
		}
	}
	d.Behave(Always(Well))
	return o
}

// closed returns the share of a dependency's breakers that let all calls through.
func (w *World) closed(name string) float64 {
	closed, all := 0, 0
	for _, i := range w.instances {
		for state, n := range i.states(name) {
			all += n
			if state == breaker.Closed {
				closed += n
			}
		}
	}
	return float64(closed) / float64(all)
}

// mean and most of figures.
func mean(all []int) float64 {
	total := 0
	for _, n := range all {
		total += n
	}
	return float64(total) / float64(max(len(all), 1))
}

func most(all []int) int { return slices.Max(append(all, 0)) }
