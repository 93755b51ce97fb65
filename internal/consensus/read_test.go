package consensus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestReadersShareABarrier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var barriers int
		r := &reads{barrier: func() (uint64, error) {
			barriers++
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			return uint64(barriers), nil
		}}
		var wg sync.WaitGroup
		read := func(want uint64) {
			wg.Go(func() {
				round := r.join()
				<-round.done
				if round.index != want {
					t.Errorf("read %d, want %d", round.index, want)
				}
			})
			synctest.Wait()
		}
		read(1)
		for range 50 {
			read(2) // the first barrier had started before they came
		}
		time.Sleep(1500 * time.Millisecond) //nolint:forbidigo // virtual time
		read(3)
		wg.Wait()
		if barriers != 3 {
			t.Errorf("%d barriers", barriers)
		}
		r.close()
		if r.join() != nil {
			t.Error("joined after close")
		}
	})
}

func TestReadIndex(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	written := leader.propose("x")
	index, err := leader.node.ReadIndex(testCtx(t))
	if err != nil || index < written {
		t.Fatalf("read index %d, %v; written at %d", index, err, written)
	}
	follower := c.follower(leader)
	follower.waitApplied(index) // the barrier's own index would never come
	if !follower.sm.has("x") {
		t.Error("the follower has not applied the write")
	}
	if _, err := follower.node.ReadIndex(testCtx(t)); !isNotLeader(err, leader) {
		t.Errorf("read index on a follower: %v", err)
	}
	c.isolate(leader)
	if _, err := leader.node.ReadIndex(testCtx(t)); err == nil || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("read index without a quorum: %v", err)
	}
}

func TestWaitApplied(t *testing.T) {
	t.Parallel()
	var a applied
	stop := make(chan struct{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.wait(ended, stop, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
	a.advance(5)
	must(t, a.wait(ended, stop, 5)) // reached already
	close(stop)
	if err := a.wait(t.Context(), stop, 6); !errors.Is(err, ErrUnavailable) {
		t.Errorf("stopped: %v", err)
	}
	if len(a.waiters) != 0 {
		t.Errorf("%d waiters left behind", len(a.waiters))
	}
}

// Whoever waits is woken by the index itself, not by a clock.
func TestWaitAppliedDoesNotPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var a applied
		var woken atomic.Int32
		for range 3 {
			go func() {
				must(t, a.wait(t.Context(), nil, 5))
				woken.Add(1)
			}()
		}
		synctest.Wait()
		for _, step := range []struct {
			index uint64
			want  int32
		}{{4, 0}, {5, 3}} {
			a.advance(step.index)
			synctest.Wait() // no time passes meanwhile
			if got := woken.Load(); got != step.want {
				t.Errorf("%d woken at %d, want %d", got, step.index, step.want)
			}
		}
	})
}

// Whatever the order of waits, cancellations and advances: exactly those are
// woken whose index has been reached.
func TestWaitersAgainstNaiveTwin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a applied
		var all []*waiter
		reached := uint64(0)
		removed := make(map[*waiter]bool)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				if w := a.add(rapid.Uint64Range(1, 30).Draw(t, "index")); w != nil {
					all = append(all, w)
				}
			case 2:
				reached = max(reached, rapid.Uint64Range(0, 30).Draw(t, "advance"))
				a.advance(reached)
			case 3:
				if len(all) > 0 {
					w := all[rapid.IntRange(0, len(all)-1).Draw(t, "remove")]
					removed[w] = removed[w] || w.index > reached
					a.remove(w)
				}
			}
			waiting := 0
			for _, w := range all {
				select {
				case <-w.done:
					if w.index > reached {
						t.Fatalf("woken for %d at %d", w.index, reached)
					}
				default:
					if w.index <= reached && !removed[w] {
						t.Fatalf("still waiting for %d at %d", w.index, reached)
					}
					if !removed[w] {
						waiting++
					}
				}
			}
			if len(a.waiters) != waiting {
				t.Fatalf("%d in the heap, %d waiting", len(a.waiters), waiting)
			}
		}
	})
}
