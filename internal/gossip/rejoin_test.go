package gossip

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

// Members that lost each other for long find each other within half a minute, without
// seeds: also two alone, with nobody else to find them, and however many are dead for good.
func TestLostFindEachOther(t *testing.T) {
	for _, n := range []int{2, 9} {
		synctest.Test(t, func(t *testing.T) {
			settle(t)
			network := mesh.New(21)
			peers := instances(t, network, n)
			until(t, time.Minute, "pool is whole", whole(peers))
			var sides [2][]string
			for i, p := range peers {
				sides[i%2] = append(sides[i%2], p.addr)
				p.mu.Lock()
				p.seeds = nil
				for _, dead := range []string{"10.9.0.1:1", "10.9.0.2:1", "10.9.0.3:1", "10.9.0.4:1", "10.9.0.5:1", "10.9.0.6:1", "10.9.0.7:1", "10.9.0.8:1", "10.9.0.9:1"} {
					p.lose("dead", dead, time.Now().Add(-time.Hour))
				}
				p.mu.Unlock()
			}
			network.Partition(sides[0], sides[1])
			<-time.After(10 * time.Minute)
			if whole(peers)() {
				t.Fatal("nobody was lost")
			}
			network.Heal()
			took := until(t, 30*time.Second, "those who were lost are found", whole(peers))
			t.Logf("%d members found each other in %v", n, took)
		})
	}
}
