package watch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// next returns the next event that is there without waiting, or none.
func next(tb testing.TB, s *Sub) Event {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Second)
	defer cancel()
	e, err := s.Next(ctx, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		return Event{}
	}
	if err != nil {
		tb.Fatalf("next: %v", err)
	}
	return e
}

func TestCursors(t *testing.T) {
	t.Run("nothing yet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.do(write(put("a", "x", "1")))
			s := c.subscribe("a", Cursor{})
			defer s.Close()
			if e := next(t, s); e.Kind != Snapshot || e.View.Namespace("a").Len() != 1 || s.Cursor() != c.cursor() {
				t.Fatalf("first event %+v", e)
			}
			if e := next(t, s); e.Kind != 0 {
				t.Fatalf("second event %+v", e)
			}
		})
	})
	t.Run("up to date", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.do(write(put("a", "x", "1")))
			at := c.cursor()
			c.do(write(put("b", "x", "1")))
			s := c.subscribe("a", at)
			defer s.Close()
			if e := next(t, s); e.Kind != Progress || e.Revision != 2 {
				t.Fatalf("first event %+v", e)
			}
			if e := next(t, s); e.Kind != 0 {
				t.Fatalf("second event %+v", e)
			}
		})
	})
	t.Run("behind", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.do(write(put("a", "x", "1"), put("a", "y", "1")))
			at := c.cursor()
			c.do(write(put("a", "x", "2")))
			c.do(write(put("a", "x", "3"), del("a", "y")))
			c.do(write(put("b", "x", "1")))
			s := c.subscribe("a", at)
			defer s.Close()
			e := next(t, s)
			d := e.Delta.Delta()
			if e.Kind != Delta || d.From > 1 || d.To != 4 || len(d.Puts) != 1 || len(d.Deletes) != 1 || s.Cursor().Revision != 4 {
				t.Fatalf("first event %+v %+v", e, d)
			}
		})
	})
	t.Run("of an older epoch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.do(write(put("a", "x", "1")))
			at := c.cursor()
			c.do(newEpoch(1, 2))
			s := c.subscribe("a", at)
			defer s.Close()
			if e := next(t, s); e.Kind != Snapshot {
				t.Fatalf("first event %+v", e)
			}
		})
	})
	t.Run("before the floor", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			limits := state.DefaultLimits()
			limits.Tombstones = 1
			c := newServer(t, limits)
			c.do(newEpoch(1, 1), write(put("a", "x", "1"), put("a", "y", "1")))
			at := c.cursor()
			c.do(write(del("a", "x")), write(del("a", "y")))
			s := c.subscribe("a", at)
			defer s.Close()
			if e := next(t, s); e.Kind != Snapshot {
				t.Fatalf("first event %+v", e)
			}
		})
	})
}

func TestCursorAheadWaits(t *testing.T) {
	t.Run("by revision", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.do(write(put("a", "x", "1")))
			at := c.cursor()
			at.Revision = 3
			s := c.subscribe("a", at)
			defer s.Close()
			ticks := make(chan time.Time, 1)
			ticks <- time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if e, err := s.Next(ctx, ticks); err == nil {
				t.Fatalf("told %+v while ahead", e)
			}
			c.do(write(put("a", "x", "2")))
			c.do(write(put("a", "x", "3")))
			c.do(write(put("b", "x", "3")))
			if e := next(t, s); e.Kind != Progress || e.Revision != 4 {
				t.Fatalf("event %+v", e)
			}
		})
	})
	t.Run("by epoch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			at := Cursor{Epoch: c.cursor().Epoch, Set: true}
			at.Epoch.Counter, at.Epoch.Nonce = 2, 2
			s := c.subscribe("a", at)
			defer s.Close()
			if e := next(t, s); e.Kind != 0 {
				t.Fatalf("told %+v while ahead", e)
			}
			c.do(newEpoch(1, 2))
			if e := next(t, s); e.Kind != Progress {
				t.Fatalf("event %+v", e)
			}
		})
	})
	t.Run("into a fork", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			at := Cursor{Epoch: c.cursor().Epoch, Set: true}
			at.Epoch.Counter, at.Epoch.Nonce = 2, 2
			s := c.subscribe("a", at)
			defer s.Close()
			c.do(newEpoch(1, 3))
			if e, err := s.Next(t.Context(), nil); !errors.Is(err, ErrForkedEpoch) {
				t.Fatalf("%+v %v", e, err)
			}
			if m := c.hub.Metrics(); m.Forked != 1 {
				t.Fatalf("metrics %+v", m)
			}
		})
	})
	t.Run("of a server without a lineage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newServer(t, state.DefaultLimits())
			s := c.subscribe("a", newCluster(t).cursor())
			defer s.Close()
			if e := next(t, s); e.Kind != 0 {
				t.Fatalf("told %+v while ahead", e)
			}
			c.do(newEpoch(2, 1))
			if e, err := s.Next(t.Context(), nil); !errors.Is(err, ErrForeignLineage) {
				t.Fatalf("%+v %v", e, err)
			}
		})
	})
}

// TestAheadIsWokenByAnyPublication waits without a timer for what changes another
// namespace only, or none: the server has caught up all the same.
func TestAheadIsWokenByAnyPublication(t *testing.T) {
	for name, publish := range map[string]func(*server){
		"another namespace": func(c *server) { c.do(write(put("b", "x", fmt.Sprint(c.index)))) },
		"a snapshot":        func(c *server) { c.do(write(put("b", "x", fmt.Sprint(c.index)))); c.hub.Publish(c.machine.View(), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.do(write(put("a", "x", "1")))
				at := c.cursor()
				at.Revision = 3
				var told atomic.Int32
				for range 5 {
					s := c.subscribe("a", at)
					go func() {
						defer s.Close()
						if e, err := s.Next(t.Context(), nil); err != nil || e.Kind != Progress || e.Revision != 3 {
							t.Errorf("event %+v %v", e, err)
						}
						told.Add(1)
					}()
				}
				synctest.Wait()
				publish(c)
				synctest.Wait()
				if n := told.Load(); n != 0 {
					t.Errorf("%d were told while ahead", n)
				}
				publish(c)
				synctest.Wait()
				if n := told.Load(); n != 5 {
					t.Errorf("%d of 5 were woken", n)
				}
				c.do(newEpoch(1, 2)) // lets go of those that are left
				synctest.Wait()
			})
		})
	}
}

// TestPublishWaitsForNobody publishes to subscribers of which none takes
// anything, and counts what is kept for them: nothing.
func TestPublishWaitsForNobody(t *testing.T) {
	c := newCluster(t)
	c.do(write(put("a", "x", "1")))
	var subs []*Sub
	for range 1_000 {
		s := c.subscribe("a", Cursor{})
		if e, err := s.Next(t.Context(), nil); err != nil || e.Kind != Snapshot {
			t.Fatalf("%+v %v", e, err)
		}
		subs = append(subs, s)
	}
	c.do(write(put("a", "x", "2")))
	v := c.machine.View()
	if n := testing.AllocsPerRun(1_000, func() { c.hub.Publish(v, []string{"a"}) }); n != 0 {
		t.Errorf("a publication to 1,000 subscribers that take nothing: %v allocations", n)
	}
	for i := range 50 {
		c.do(write(put("a", "x", fmt.Sprint(i))))
	}
	for _, s := range subs {
		e, err := s.Next(t.Context(), nil)
		if err != nil || e.Kind != Delta || e.Revision != 52 || len(e.Delta.Delta().Puts) != 1 {
			t.Fatalf("after 51 changes: %+v %v", e, err)
		}
		s.Close()
	}
}

func TestRefusedCursors(t *testing.T) {
	c := newCluster(t)
	foreign, forked := c.cursor(), c.cursor()
	foreign.Epoch.Lineage[3]++
	forked.Epoch.Nonce++
	if _, err := c.hub.Subscribe("a", foreign); !errors.Is(err, ErrForeignLineage) {
		t.Errorf("foreign: %v", err)
	}
	if _, err := c.hub.Subscribe("a", forked); !errors.Is(err, ErrForkedEpoch) {
		t.Errorf("forked: %v", err)
	}
	if m := c.hub.Metrics(); m.Foreign != 1 || m.Forked != 1 || m.Watchers != 0 || len(c.hub.spaces) != 0 {
		t.Errorf("metrics %+v, %d namespaces", m, len(c.hub.spaces))
	}
}

// TestLineageChange checks that a restore from another cluster resynchronises
// those who watch, and is not taken for a stranger.
func TestLineageChange(t *testing.T) {
	t.Run("restore", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, other := newCluster(t), newServer(t, state.DefaultLimits())
			other.do(newEpoch(2, 1), write(put("a", "x", "1")))
			s := c.subscribe("a", Cursor{})
			defer s.Close()
			next(t, s)
			c.hub.Publish(other.machine.View(), nil)
			if e := next(t, s); e.Kind != Snapshot || e.View.Namespace("a").Len() != 1 || s.Cursor() != other.cursor() {
				t.Fatalf("event %+v", e)
			}
		})
	})
	t.Run("first lineage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newServer(t, state.DefaultLimits())
			s := c.subscribe("a", Cursor{})
			defer s.Close()
			next(t, s)
			c.do(newEpoch(2, 1))
			if e := next(t, s); e.Kind != Snapshot {
				t.Fatalf("event %+v", e)
			}
		})
	})
}

func TestProgress(t *testing.T) {
	t.Run("after silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.do(write(put("a", "x", "1")))
			s := c.subscribe("a", Cursor{})
			defer s.Close()
			next(t, s)
			c.do(write(put("b", "x", "1"))) // does not wake, but moves progress
			ticker := time.NewTicker(5 * time.Second)
			defer ticker.Stop()
			start := time.Now()
			e, err := s.Next(t.Context(), ticker.C)
			if err != nil || e.Kind != Progress || e.Revision != 2 || time.Since(start) != 5*time.Second {
				t.Fatalf("%+v %v after %v", e, err, time.Since(start))
			}
			c.do(write(put("a", "x", "2")))
			<-ticker.C
			if e, err = s.Next(t.Context(), ticker.C); err != nil || e.Kind != Delta {
				t.Fatalf("progress went before data: %+v %v", e, err)
			}
		})
	})
}

func TestClose(t *testing.T) {
	c := newCluster(t)
	one, two := c.subscribe("a", Cursor{}), c.subscribe("a", Cursor{})
	if c.hub.Watchers() != 2 || len(c.hub.spaces) != 1 {
		t.Fatalf("%d watchers, %d namespaces", c.hub.Watchers(), len(c.hub.spaces))
	}
	one.Close()
	one.Close()
	if c.hub.Watchers() != 1 || len(c.hub.spaces) != 1 {
		t.Fatalf("%d watchers, %d namespaces", c.hub.Watchers(), len(c.hub.spaces))
	}
	two.Close()
	if c.hub.Watchers() != 0 || len(c.hub.spaces) != 0 {
		t.Fatalf("%d watchers, %d namespaces", c.hub.Watchers(), len(c.hub.spaces))
	}
}

// TestOneEncoding checks that subscribers at the head share one encoding, also
// when progress left them at different revisions.
func TestOneEncoding(t *testing.T) {
	t.Run("1,000 subscribers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.do(write(put("a", "x", "1")))
			const n = 1_000
			ctx, cancel := context.WithCancel(t.Context())
			got := make(chan []byte, n)
			for i := range n {
				if i%100 == 0 {
					synctest.Wait() // those before are told their revision now
					c.do(write(put("b", "x", fmt.Sprint(i))))
				}
				s := c.subscribe("a", c.cursor())
				go func() {
					defer s.Close()
					for {
						e, err := s.Next(ctx, nil)
						if err != nil {
							return
						}
						if e.Kind == Delta {
							got <- e.Delta.Encode(func(d document.Delta) [][]byte { return [][]byte{fmt.Append(nil, d.Puts[0].ModRevision)} })[0]
						}
					}
				}()
			}
			synctest.Wait()
			for round := range 3 {
				c.do(write(put("a", "x", fmt.Sprint("v", round))))
				synctest.Wait()
				first := <-got
				for range n - 1 {
					if b := <-got; &b[0] != &first[0] {
						t.Fatal("another encoding")
					}
				}
				if m := c.hub.Metrics(); m.Encoded != uint64(round+1) {
					t.Fatalf("%d encodings after %d changes", m.Encoded, round+1)
				}
			}
			cancel()
			synctest.Wait()
			if c.hub.Watchers() != 0 {
				t.Fatalf("%d watchers left", c.hub.Watchers())
			}
		})
	})
}

// TestEpochWakesEverybody waits without a timer, so that only the publication
// can wake.
func TestEpochWakesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s := c.subscribe("a", Cursor{})
		defer s.Close()
		next(t, s)
		told := make(chan Event)
		go func() {
			defer close(told)
			if e, err := s.Next(t.Context(), nil); err == nil {
				told <- e
			}
		}()
		synctest.Wait()
		c.do(newEpoch(1, 2))
		if e := <-told; e.Kind != Snapshot || e.View.Epoch().Counter != 2 {
			t.Fatalf("event %+v", e)
		}
	})
}

// TestWakeOn: who is woken has Next return, whether there is something to tell or not,
// and loses no event by it.
func TestWakeOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.do(write(put("a", "x", "1")))
		at := c.cursor()
		ahead := at
		ahead.Revision++
		for name, from := range map[string]Cursor{"up to date": at, "ahead": ahead} {
			s := c.subscribe("a", from)
			defer s.Close()
			woken := make(chan struct{}, 1)
			s.WakeOn(woken)
			if name == "up to date" {
				if e := next(t, s); e.Kind != Progress {
					t.Errorf("%s: the first event is %+v", name, e)
				}
			}
			woken <- struct{}{}
			if e := next(t, s); e.Kind != Woken || e.View == nil || s.Cursor() != from {
				t.Errorf("%s: woken with %+v at %+v", name, e, s.Cursor())
			}
			if e := next(t, s); e.Kind != 0 {
				t.Errorf("%s: woken twice: %+v", name, e)
			}
		}
		late := c.subscribe("a", Cursor{})
		defer late.Close()
		woken := make(chan struct{}, 1)
		late.WakeOn(woken)
		woken <- struct{}{}
		if e := next(t, late); e.Kind != Snapshot {
			t.Errorf("what there is to tell comes first, not %+v", e)
		}
	})
}
