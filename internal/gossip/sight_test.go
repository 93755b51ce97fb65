package gossip

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

var (
	sightMembers = flag.String("sight-members", "60", "how many members TestFirstSight has, comma-separated")
	sightSockets = flag.Int("sight-sockets", 20, "how many members TestFirstSightOnLoopback has")
)

// sights are how long it took until shares of the members knew, round by round.
type sights struct{ half, ninety, ninetyNine, all []time.Duration }

func (s *sights) add(took []time.Duration) {
	slices.Sort(took)
	at := func(share float64) time.Duration { return took[min(len(took)-1, int(share*float64(len(took))))] }
	s.half, s.ninety = append(s.half, at(0.5)), append(s.ninety, at(0.9))
	s.ninetyNine, s.all = append(s.ninetyNine, at(0.99)), append(s.all, took[len(took)-1])
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

func (s *sights) String() string {
	var b strings.Builder
	for i, d := range [][]time.Duration{s.half, s.ninety, s.ninetyNine, s.all} {
		fmt.Fprintf(&b, "%s %v (%v)  ", []string{"50 %", "90 %", "99 %", "100 %"}[i],
			median(d).Round(10*time.Microsecond), slices.Max(d).Round(10*time.Microsecond))
	}
	return b.String()
}

// measure spreads news from members chosen at random, one after the other.
func measure(t *testing.T, peers []*peer, rounds int, pause time.Duration, what string, tell func(*Channel, string)) *sights {
	t.Helper()
	var s sights
	packets := func() (packets, bytes uint64) {
		for _, p := range peers {
			packets, bytes = packets+p.Metrics().SentPackets, bytes+p.Metrics().SentBytes
		}
		return packets, bytes
	}
	packets0, bytes0 := packets()
	began := time.Now()
	for round := range rounds {
		origin := peers[rand.IntN(len(peers))]
		key := fmt.Sprint(what, round)
		origin.facts.setLong(key, 1, strings.Repeat("x", 200))
		start := time.Now()
		tell(origin.channel, key)
		until(t, time.Minute, key, allHave(peers, key, 1))
		var took []time.Duration
		for _, p := range peers {
			if p != origin {
				p.facts.mu.Lock()
				took = append(took, p.facts.seen[key].Sub(start))
				p.facts.mu.Unlock()
			}
		}
		s.add(took)
		<-time.After(pause)
	}
	packets1, bytes1 := packets()
	t.Logf("%d members, %s, median (worst) of %d: %s; packets per member and round %.1f, %.0f B/s in all", len(peers), what, rounds, &s,
		float64(packets1-packets0)/float64(rounds*len(peers)), float64(bytes1-bytes0)/time.Since(began).Seconds()/float64(len(peers)))
	return &s
}

// How long news takes, in virtual time, over links of half a millisecond.
func TestFirstSight(t *testing.T) {
	for members := range strings.SplitSeq(*sightMembers, ",") {
		n, err := strconv.Atoi(members)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			settle(t)
			network := mesh.New(61)
			network.Links(mesh.Link{Latency: 500 * time.Microsecond, Spread: 0.3})
			peers := instances(t, network, n)
			until(t, 10*time.Minute, "pool is whole", whole(peers))
			<-time.After(time.Minute)
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			rounds := 20
			news := measure(t, peers, rounds, 3*time.Second, "news", (*Channel).Spread)
			measure(t, peers, rounds, 3*time.Second, "refreshes", (*Channel).Refresh)
			t.Logf("%d members: %d KiB of heap and stacks and %.1f goroutines per member", n,
				int(before.HeapInuse+before.StackInuse)/n>>10, float64(runtime.NumGoroutine())/float64(n))
			if half, ninety := median(news.half), median(news.ninety); half > 5*time.Millisecond || ninety > 10*time.Millisecond {
				t.Errorf("half of the members know after %v, nine in ten after %v", half, ninety)
			}
			network.Links(mesh.Link{Latency: 500 * time.Microsecond, Spread: 0.3, Loss: 0.1})
			measure(t, peers, rounds, 3*time.Second, "news at 10 % loss", (*Channel).Spread)
		})
	}
}

// The same over UDP, with AES.
func TestFirstSightOnLoopback(t *testing.T) {
	if testing.Short() {
		t.Skip("real sockets")
	}
	peers := make([]*peer, *sightSockets)
	for i := range peers {
		config := Config{Name: "u", BindAddr: "127.0.0.1:0", Label: "sight", Profile: Instances, Keys: [][]byte{key(1)}}
		for s := 0; s < i && s < 4; s++ {
			config.Join = append(config.Join, peers[i*s/4].Addr())
		}
		peers[i] = open(t, config)
	}
	until(t, time.Minute, "pool is whole", whole(peers))
	measure(t, peers, 10, 200*time.Millisecond, "news over UDP", (*Channel).Spread)
}
