package fleet

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/health"
)

// TestFewSpeak: however many find a dependency broken, a few tell.
func TestFewSpeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		e := newEther()
		all := make([]*instance, n)
		for k := range all {
			all[k] = e.instance(t, option{id: fmt.Sprintf("i%03d", k), host: fmt.Sprintf("h%02d", k%33), zone: fmt.Sprintf("z%d", k%33%3)})
			all[k].store.SetPopulation(map[string]health.Population{"checkout": {Hosts: 33, Zones: 3}})
		}
		defer closeAll(all)
		var o outage
		defer o.run(all, func(k int) time.Duration {
			return [...]time.Duration{50, 250, 1000}[k%3]*time.Millisecond + time.Duration(k)*time.Microsecond
		})()
		<-time.After(10 * time.Second)
		o.down.Store(true)
		var before uint64
		for round := range 6 {
			<-time.After(5 * time.Second)
			var published uint64
			opinions := map[health.Opinion]int{}
			all[0].store.look(func(table *health.Table, _ map[string]health.Population) {
				for held := range table.All() {
					for _, r := range held.Record.Reports {
						opinions[r.Opinion]++
					}
				}
			})
			for _, i := range all {
				published += i.member.Stats().Published
			}
			t.Logf("published %d in 5 s, opinions %v, opened %d", published-before, opinions, opened(all))
			if said := opinions[health.Open] + opinions[health.Probing] + opinions[health.Suspects]; round > 2 && (said > 40 || published-before > 100) {
				t.Errorf("%d of %d say so, with %d records in 5 s", said, n, published-before)
			}
			before = published
		}
	})
}
