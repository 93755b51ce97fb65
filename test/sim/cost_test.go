package sim

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// cost is what a member costs.
type cost struct {
	sent, received, packets float64 // bytes and packets a second
	heap                    float64 // KiB
	goroutines              float64
	cpu                     float64 // milliseconds a second
}

// cost measures for a time.
func (w *World) cost(over time.Duration) cost {
	before, busy := w.traffic(), cpu()
	w.Pass(over)
	after, used := w.traffic(), cpu()-busy
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	per := float64(len(w.instances))
	return cost{
		sent:     float64(after.SentBytes-before.SentBytes) / over.Seconds() / per,
		received: float64(after.ReceivedBytes-before.ReceivedBytes) / over.Seconds() / per,
		packets:  float64(after.SentPackets-before.SentPackets) / over.Seconds() / per,
		heap:     float64(memory.HeapAlloc) / 1024 / per, goroutines: float64(runtime.NumGoroutine()) / per,
		cpu: float64(used.Microseconds()) / 1000 / over.Seconds() / per,
	}
}

// What gossip costs a member, idle and in an outage. Heap and CPU are those of the whole
// simulated instance, with the guard and its load; of a thousand times the same signature
// one is verified, which real members do for themselves, at some 60 µs each.
func TestCost(t *testing.T) {
	unhurried(t)
	table := NewTable("a member costs", "instances", "while", "bytes/s sent", "received", "packets/s", "goroutines", "heap KiB", "CPU ms/s")
	counts := []int{10, 60}
	if *only > 0 {
		counts = []int{*only}
	} else if *long {
		counts = []int{10, 100, 300}
	}
	for _, n := range counts {
		p := NewPlan(n, *seed)
		p.Fleet = true
		inWorld(t, fmt.Sprint(n, " instances"), p, func(w *World) {
			w.Pass(time.Minute)
			show := func(while string, c cost, most float64) {
				table.Row(n, while, c.sent, c.received, c.packets, c.goroutines, c.heap, fmt.Sprintf("%.2f", c.cpu))
				if c.sent > most {
					w.t.Errorf("%d instances, %s: %.0f bytes a second, want at most %.0f", n, while, c.sent, most)
				}
			}
			show("idle", w.cost(20*time.Second), 2_000)
			w.Dependency("payments").Behave(Always(Refused))
			w.Pass(5 * time.Second)
			show("in the first 25 s of an outage", w.cost(20*time.Second), 100_000)
			w.Pass(15 * time.Second)
			show("in an outage later", w.cost(20*time.Second), 50_000)
		})
	}
	t.Log(table)
}
