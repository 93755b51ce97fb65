package relay

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSupplyGrows: where a transfer takes long, members get the document from those
// that got it before, not all from the first.
func TestSupplyGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.put(map[string]string{"a": `"1"`})
		all := w.instances(30)
		for _, i := range all[1:] {
			w.cutOff(i, true)
		}
		wait(10 * time.Second)
		w.mesh.Shape(40*time.Millisecond, 0)
		large := map[string]string{}
		for name := range strings.SplitSeq("abcdefgh", "") { // a chunk each
			large[name] = strings.Repeat("x", sheafBytes)
		}
		w.cluster.put(large)
		root := w.cluster.head(2).Root
		took := until(t, time.Minute, "all obey", func() bool {
			for _, i := range all {
				if i.session.Mirror().Root() != root {
					return false
				}
			}
			return true
		})
		busy, most := uint64(0), uint64(0)
		for _, i := range all {
			m := i.relay.Metrics()
			busy, most = busy+m.Busy, max(most, m.Served)
		}
		t.Logf("all obey after %v; %d times busy, at most %d uploads by one", took, busy, most)
		// One after the other two at a time would take 15 transfers; 5 rounds are ideal.
		if most > 20 || took > 15*time.Second {
			t.Errorf("after %v, with %d uploads by one", took, most)
		}
	})
}
