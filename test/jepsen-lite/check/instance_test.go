package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

const (
	second = int64(time.Second)
	// The life of a simulated instance: it is cut off from the only server for a while,
	// and what it calls is broken before that.
	lifetime = 60 * second
	cutFrom  = 20 * second
	cutUntil = 45 * second
)

// life simulates four writes a second, a server, and an instance that decides, gossips
// and calls a dependency beside two others.
func life(seed uint64) *history.History {
	r := rand.New(rand.NewPCG(seed, 2))
	h := &history.History{Run: history.Run{
		Servers: []string{"s1"}, Instances: []string{"i1"}, Began: second, Healed: cutUntil, Settled: lifetime, Ended: lifetime,
	}}
	packets := int64(0)
	heard, revision := int64(0), uint64(0)
	for n, t := uint64(1), second; t < lifetime; n, t = n+1, t+second/4 {
		value := fmt.Sprintf("c1.%d", n)
		h.Ops = append(h.Ops, history.Op{
			Client: "c1", Server: "s1", F: history.Put, Call: t, Return: t + 5_000_000, Outcome: history.OK, Request: value,
			Cells: []history.Cell{{Key: "a", Value: value}}, Revision: n, Store: n,
		})
		h.Applied = append(h.Applied, history.Applied{
			Server: "s1", Incarnation: 1, T: t + 2_000_000, Index: n, Term: 1, Command: value, State: value, Revision: n, Request: value, Effective: true,
		})
		if t < cutFrom || t >= cutUntil {
			heard, revision = t+10_000_000, n
		}
		packets += 2 + r.Int64N(3)
		now := t + 20_000_000
		h.Decisions = append(h.Decisions, history.Decision{
			Instance: "i1", T: now, Until: now + second/20, N: 400, Key: "a", Value: fmt.Sprintf("c1.%d", revision), Revision: revision,
			Source: "server", Age: now - heard, Fresh: now - heard + r.Int64N(second/5), Took: map[int64]int{512: 398, 5 << 20: r.IntN(3)},
		})
		if d := &h.Decisions[len(h.Decisions)-1]; t < cutFrom || t >= cutUntil {
			d.Connected, d.Server = true, "s1"
		}
		if n%8 == 0 {
			h.Usages = append(h.Usages, history.Usage{ID: "i1", T: now, When: history.UsageRun, Goroutines: 30 + r.IntN(10), FDs: 15 + r.IntN(4), Packets: packets})
		}
		if n%2 == 0 {
			h.Calls = append(h.Calls, history.Calls{Instance: "i1", T: now - second/2, Until: now, Dependency: "payments", Sent: 2, Good: 2})
		}
	}
	h.Usages[0].When, h.Usages[len(h.Usages)-1].When = history.UsageBase, history.UsageEnd
	outage(h, 5*second+r.Int64N(10*second))
	return h
}

// outage lets others find a dependency broken at a time, and the instance after its
// own calls have failed, until the others find it well.
func outage(h *history.History, at int64) {
	said := map[string]history.Said{"i2/payments": {Incarnation: 1, Sequence: 1, Opinion: "open"}}
	h.Peers = append(h.Peers,
		history.Peers{Instance: "i1", T: second, Evidence: map[string]history.Said{}},
		history.Peers{Instance: "i1", T: at, Evidence: said},
		history.Peers{Instance: "i1", T: at + 6*second, Evidence: map[string]history.Said{}})
	h.Guards = append(h.Guards,
		history.Guard{Instance: "i1", T: at + second, Dependency: "payments", From: "closed", To: history.StateHearsay},
		history.Guard{Instance: "i1", T: at + 8*second, Dependency: "payments", From: history.StateHearsay, To: "closed"})
	for i := range h.Calls {
		if c := &h.Calls[i]; c.Until > at && c.T < at+second {
			c.Good, c.Bad = 0, 2
		}
	}
}

// lives are the options of simulated lives, which have little load.
func lives() Options {
	o := simulated()
	o.Throughput = 1
	return o
}

func TestSimulatedLivesPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		verdicts := Judge(life(rapid.Uint64().Draw(t, "seed")), lives())
		for _, v := range verdicts {
			looked := slices.Contains([]string{"C1", "C4", "C8", "G5", "G8", "U1"}, v.Rule)
			if v.Result == Fail || v.Result == Invalid || (looked && v.Result != Pass) {
				t.Errorf("%s %s: %s %q", v.Rule, v.Result, v.Why, v.Evidence)
			}
		}
	})
}

func TestSpoiledLivesAreCaught(t *testing.T) {
	for _, m := range []struct {
		name, rule string
		spoil      func(*rapid.T, *history.History)
	}{
		{"one decision in a few waits while no server is there", "C1", slowApart},
		{"each try to reach a server counts as heard", "C4", func(t *rapid.T, h *history.History) {
			every := rapid.Int64Range(second, 5*second).Draw(t, "tries")
			eachApart(h, func(d *history.Decision) { d.Age = min(d.Age, (d.T-cutFrom)%every) })
		}},
		{"the view counts as the newest", "C4", func(t *rapid.T, h *history.History) {
			fresh := rapid.Int64Range(1, second).Draw(t, "fresh")
			eachApart(h, func(d *history.Decision) { d.Fresh = fresh })
		}},
		{"a verdict is obeyed after the others have fallen silent", "C8", func(t *rapid.T, h *history.History) {
			h.Guards[1].T += rapid.Int64Range(4*second, 20*second).Draw(t, "longer")
		}},
		{"a verdict is obeyed that nobody gave", "C8", func(t *rapid.T, h *history.History) {
			at := rapid.Int64Range(30*second, 50*second).Draw(t, "at")
			h.Guards = append(h.Guards, history.Guard{Instance: "i1", T: at, Dependency: "payments", From: "closed", To: history.StateHearsay})
			h.Calls = nil
		}},
		{"others are heeded though all goes well", "C8", func(_ *rapid.T, h *history.History) {
			for i := range h.Calls {
				h.Calls[i].Good, h.Calls[i].Bad = 2, 0
			}
		}},
		{"evidence does not expire", "G5", func(_ *rapid.T, h *history.History) { h.Peers = h.Peers[:2] }},
		{"everything is passed on again", "G8", func(t *rapid.T, h *history.History) {
			more := rapid.Int64Range(130, 500).Draw(t, "packets per second")
			for i := range h.Usages {
				h.Usages[i].Packets += more * h.Usages[i].T / second
			}
		}},
		{"connections stay", "U1", func(t *rapid.T, h *history.History) {
			end := &h.Usages[len(h.Usages)-1]
			if n := rapid.IntRange(26, 60).Draw(t, "more"); rapid.Bool().Draw(t, "goroutines") {
				end.Goroutines += n
			} else {
				end.FDs += n
			}
		}},
	} {
		t.Run(m.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				h := life(rapid.Uint64().Draw(t, "seed"))
				m.spoil(t, h)
				h.Sort()
				if failed := failures(Judge(h, lives())); !slices.Equal(failed, []string{m.rule}) {
					t.Fatalf("fails %v, want %s", failed, m.rule)
				}
			})
		})
	}
}

func eachApart(h *history.History, change func(*history.Decision)) {
	for i := range h.Decisions {
		if d := &h.Decisions[i]; !d.Connected {
			change(d)
		}
	}
}

func slowApart(t *rapid.T, h *history.History) {
	slow := rapid.IntRange(20, 100).Draw(t, "slow in 400")
	below := rapid.Int64Range(2_000_000, 500_000_000).Draw(t, "below")
	eachApart(h, func(d *history.Decision) { d.Took = map[int64]int{512: 400 - slow, below: slow} })
}
