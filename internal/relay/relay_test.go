package relay

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/session"
)

// TestFollowsThroughAPeer: who is cut off obeys what a peer hears, small or large, and
// goes back to the server without fetching anything again.
func TestFollowsThroughAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.put(map[string]string{"a": `"1"`})
		all := w.instances(2)
		a, b := all[0], all[1]
		w.cutOff(b, true)
		wait(6 * time.Second)
		snapshots := w.cluster.snapshots
		for name, spec := range map[string]string{"small": `"2"`, "large": strings.Repeat("x", 300<<10)} {
			w.cluster.put(map[string]string{"a": spec})
			took := until(t, 3*time.Second, name, func() bool { return b.at(w.cluster) })
			if b.source() != session.FromPeer || !a.at(w.cluster) || b.revision() != w.cluster.newest() {
				t.Errorf("%s: source %s at %d", name, b.source(), b.revision())
			}
			t.Logf("%s: obeyed after %v", name, took)
		}
		if m := b.relay.Metrics(); m.Deltas == 0 || m.Documents == 0 || m.Poisoned != 0 {
			t.Errorf("metrics %+v", m)
		}
		if s := b.relay.Status(); s.Peer != a.pool.Name() {
			t.Errorf("status %+v", s)
		}
		w.cutOff(b, false)
		until(t, 10*time.Second, "a server confirms", func() bool { return b.source() == session.FromServer })
		if w.cluster.snapshots != snapshots {
			t.Errorf("%d snapshots were fetched from the server", w.cluster.snapshots-snapshots)
		}
	})
}

// TestServersFirst: nobody is asked while a server is there, nor just after.
func TestServersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.put(map[string]string{"a": `"1"`})
		all := w.instances(2)
		w.cutOff(all[1], true)
		synctest.Wait()
		w.cluster.put(map[string]string{"a": `"2"`})
		took := until(t, 10*time.Second, "obeyed", func() bool { return all[1].at(w.cluster) })
		if took < firstPatience || took > lastPatience+time.Second {
			t.Errorf("obeyed after %v", took)
		}
	})
}

// TestOneOfAHundred is the case that the relay is for: one instance reaches a server,
// the others obey within seconds.
func TestOneOfAHundred(t *testing.T) {
	n := 100
	if testing.Short() || raceDetector {
		n = 30
	}
	for name, spec := range map[string]string{"mode": `{"level":"read-only","mode":"storefront"}`, "large": strings.Repeat("y", 200<<10)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.cluster.put(map[string]string{"a": `"1"`})
				all := w.instances(n)
				for _, i := range all[1:] {
					w.cutOff(i, true)
				}
				wait(30 * time.Second)
				w.cluster.put(map[string]string{"storefront": spec})
				obey := func() (n int) {
					for _, i := range all {
						if i.at(w.cluster) {
							n++
						}
					}
					return n
				}
				half := until(t, 10*time.Second, "half", func() bool { return obey() >= n/2 })
				rest := until(t, 10*time.Second, "all", func() bool { return obey() == n })
				busy, served := uint64(0), uint64(0)
				for _, i := range all {
					m := i.relay.Metrics()
					busy, served = busy+m.Busy, max(served, m.Served)
				}
				t.Logf("%d: half after %v, all after %v; %d times busy, at most %d uploads by one", n, half, half+rest, busy, served)
				before, hellos := w.cluster.snapshots, len(w.cluster.hellos)
				for _, i := range all[1:] {
					w.cutOff(i, false)
				}
				until(t, 15*time.Second, "servers are back", func() bool {
					for _, i := range all {
						if i.source() != session.FromServer {
							return false
						}
					}
					return true
				})
				if w.cluster.snapshots != before {
					t.Errorf("%d snapshots by %d hellos", w.cluster.snapshots-before, len(w.cluster.hellos)-hellos)
				}
			})
		})
	}
}

// faulty is a holder with a bug.
type faulty struct{ Holder }

// TestPanicEndsHere: a bug does not end the process, and Close does not wait for ever.
func TestPanicEndsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Namespace: namespace})
		r.Start(faulty{})
		wait(time.Minute)
		r.Close()
	})
}
