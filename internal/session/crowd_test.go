package session

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/mirror"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestCrowdComesBackOneByOne cuts 1,000 instances off for 20 s. When the server
// is back they come over seconds, not at once, and all have what was decided.
func TestCrowdComesBackOneByOne(t *testing.T) {
	size := 1000
	if testing.Short() || raceDetector {
		size = 200
	}
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		srv := n.serve("a:1", &server{truth: w})
		sessions, apps := make([]*Session, size), make([]*app, size)
		for i := range size {
			sessions[i], apps[i] = n.open(func(c *Config) { c.Identity.ID = fmt.Sprint(i) }, "a:1")
		}
		wait(time.Second)
		n.kill("a:1", srv)
		wait(20 * time.Second)
		w.put("a", "2")
		srv = n.serve("a:1", &server{truth: w})
		back := time.Now()
		wait(longestPause + time.Second)
		perTenth := map[int]int{}
		for _, at := range srv.times {
			perTenth[int(at.Sub(back)/(100*time.Millisecond))]++
		}
		most := 0
		for _, c := range perTenth {
			most = max(most, c)
		}
		if len(srv.times) != size || most > max(size/10, 25) { // about 4 percent are expected
			t.Errorf("%d came back, %d of them within 100 ms", len(srv.times), most)
		}
		t.Logf("%d came back in %d tenths of a second, at most %d in one", len(srv.times), len(perTenth), most)
		for i := range size {
			apps[i].has(w)
			end(t, sessions[i], apps[i])
		}
	})
}

// TestOpenAndCloseLeaveNothing opens and closes many sessions, connected and not.
func TestOpenAndCloseLeaveNothing(t *testing.T) {
	cycles := 1000
	if testing.Short() || raceDetector {
		cycles = 100
	}
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		n.serve("a:1", &server{truth: w})
		dir := t.TempDir()
		before, heap := 0, uint64(0)
		for i := range cycles {
			s, a := n.open(func(c *Config) {
				if i%10 == 0 {
					c.Dir = dir
				}
			}, "a:1", "down:1")
			if i%3 > 0 {
				wait(time.Second)
			}
			end(t, s, a)
			synctest.Wait()
			var m runtime.MemStats
			switch i {
			case cycles / 10:
				runtime.GC()
				runtime.ReadMemStats(&m)
				before, heap = runtime.NumGoroutine(), m.HeapAlloc
			case cycles - 1:
				runtime.GC()
				runtime.ReadMemStats(&m)
				if now := runtime.NumGoroutine(); now > before+5 || m.HeapAlloc > heap+(8<<20) {
					t.Errorf("%d goroutines and %d bytes, before %d and %d", now, m.HeapAlloc, before, heap)
				}
			}
		}
	})
}

// TestReconnectsLeaveNothing reconnects one session many times.
func TestReconnectsLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		s, a := n.open(nil, "a:1")
		before := 0
		for i := range 200 {
			srv := n.serve("a:1", &server{truth: w})
			w.put("a", fmt.Sprint(i))
			wait(longestPause + time.Second)
			a.has(w)
			n.kill("a:1", srv)
			wait(time.Second)
			if i == 20 {
				before = runtime.NumGoroutine()
			}
		}
		if now := runtime.NumGoroutine(); now > before+5 {
			t.Errorf("%d goroutines, before %d", now, before)
		}
		end(t, s, a)
	})
}

// TestChaos lets servers die, come back, lag, lie and be restored, and the instance
// restart, in random order. The handler checks all it is given; in the end, with
// honest servers, it has what was decided.
func TestChaos(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func chaos(t *testing.T, r *rand.Rand) {
	t.Helper()
	n, w := newNetwork(t), newTruth()
	w.put("a", "0")
	addrs, up := []string{"a:1", "b:1", "c:1"}, map[string]*server{}
	var honest atomic.Bool
	start := func(addr string) {
		up[addr] = n.serve(addr, &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
			if honest.Load() || rand.IntN(4) > 0 {
				return
			}
			if d := m.GetDelta(); d != nil && len(d.Puts) > 0 {
				d.Puts = d.Puts[1:]
			}
			if s := m.GetSnapshot(); s != nil {
				s.Resources = nil
			}
		}}, make([]bool, r.IntN(2))...)
	}
	dir := filepath.Join(t.TempDir(), "cache")
	floor := mirror.Position{}
	open := func() (*Session, *app) {
		before := floor // which the session may move on from at once
		s, a := n.open(func(c *Config) {
			c.Dir = dir
			c.Handler.(*app).tamper = func(c Change) {
				if err := floor.Admits(c.Position()); err != nil {
					t.Errorf("went back: %v", err)
				}
				floor = c.Position()
			}
		}, addrs...)
		a.mu.Lock()
		defer a.mu.Unlock()
		if before.Set() && (len(a.changes) == 0 || a.changes[0].Position() != before || a.changes[0].Source != Disk) {
			t.Errorf("restarted with %v instead of %s", a.changes, before)
		}
		return s, a
	}
	s, a := open()
	for range 150 {
		addr := addrs[r.IntN(len(addrs))]
		switch r.IntN(7) {
		case 0, 1:
			w.put(string(rune('a'+r.IntN(3))), []string{"", "1", "2", fmt.Sprint(r.Uint64())}[r.IntN(4)])
		case 2:
			w.put("", "")
		case 3, 4:
			if up[addr] == nil {
				start(addr)
			}
		case 5:
			if up[addr] != nil {
				n.kill(addr, up[addr])
				delete(up, addr)
			}
		case 6:
			switch at, _ := w.now(); r.IntN(4) {
			case 0:
				end(t, s, a)
				s, a = open()
			case 1:
				w.become(epochOf(at.Epoch.Counter+1), r.IntN(int(at.Revision)+1))
			}
		}
		wait(time.Duration(r.IntN(3000)) * time.Millisecond)
	}
	honest.Store(true)
	if len(up) == 0 {
		start("a:1")
	}
	wait(5 * time.Minute)
	a.has(w)
	end(t, s, a)
	s, a = open()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	a.has(w)
}
