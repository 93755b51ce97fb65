package clock

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		pass(time.Minute)
		if c.Now() != int64(time.Minute) || !c.Wall().Equal(time.Now()) {
			t.Errorf("it is %v", time.Duration(c.Now()))
		}
		now := c.Now()
		ctxEnd := time.Now().Add(time.Second)
		if got := c.Deadline(now, time.Second); !got.Equal(ctxEnd) || time.Until(got) != time.Second {
			t.Errorf("the deadline is %v", got)
		}
		for name, deadline := range map[string]time.Time{"monotonic": ctxEnd, "wall": ctxEnd.Round(0)} {
			if left := c.Left(deadline, now); left != time.Second {
				t.Errorf("%s: %v left", name, left)
			}
		}
	})
}

// What is left counts from the time that was told, not from when it is asked.
func TestLeftReadsNoClock(t *testing.T) {
	c := New()
	now := c.Now()
	deadline := c.Deadline(now, time.Hour)
	if left := c.Left(deadline, now-int64(time.Minute)); left != time.Hour+time.Minute {
		t.Errorf("%v is left", left)
	}
	if left := time.Until(deadline); left > time.Hour || left < time.Hour-time.Minute {
		t.Errorf("the deadline is in %v", left)
	}
}

func TestManual(t *testing.T) {
	wall := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	c := Manual(wall)
	c.Advance(time.Hour)
	if c.Now() != int64(time.Hour) || !c.Wall().Equal(wall.Add(time.Hour)) {
		t.Errorf("it is %v, %v", c.Now(), c.Wall())
	}
	// Contexts go by the clock of the process.
	if left := Until(c.Deadline(c.Now(), time.Hour)); left < 59*time.Minute || left > time.Hour {
		t.Errorf("%v left", left)
	}
	coarse := NewCoarse(c)
	defer coarse.Close()
	for range 100 {
		coarse.Now()
	}
	c.Advance(1)
	if coarse.Now() != c.Now() || coarse.Exact() != c.Now() {
		t.Error("a coarse one is late")
	}
}

// busy reads the clock until the ticker runs.
func busy(c *Coarse) {
	for c.note.Load() == 0 {
		c.Now()
	}
}

func TestCoarseIsAtMostATickLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exact := New()
		c := NewCoarse(exact)
		defer c.Close()
		pass(time.Hour)
		busy(c)
		last, late := c.Now(), 0
		for range 10_000 {
			pass(137 * time.Microsecond)
			synctest.Wait()
			now := c.Now()
			if now < last || now > exact.Now() || exact.Now()-now > int64(tick) {
				t.Fatalf("it tells %v after %v at %v", now, last, exact.Now())
			}
			if now != exact.Now() {
				late++
			}
			last = now
		}
		if late < 5000 {
			t.Errorf("it was exact but for %d times: the ticker did not run", late)
		}
	})
}

// While nobody reads it, and while somebody does rarely, nothing runs and it is
// exact; what was noted does not stay.
func TestCoarseStopsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exact := New()
		c := NewCoarse(exact)
		defer c.Close()
		pass(time.Second)
		for range 3 {
			busy(c)
			for range 100 { // a read now and then does not keep it
				pass(10 * tick)
				c.Now()
			}
			synctest.Wait()
			if c.note.Load() != 0 {
				t.Fatal("the ticker runs still")
			}
			for range 100 {
				pass(2 * tick)
				if c.Now() != exact.Now() {
					t.Fatal("it is late without a ticker")
				}
			}
			if c.note.Load() != 0 {
				t.Fatal("rare reads start the ticker")
			}
			c.Exact()
			if pass(time.Hour); c.Now() != exact.Now() {
				t.Fatal("Exact leaves a note that nobody renews")
			}
		}
	})
}

// A ticker that gets no chance to run: Exact renews the note for all, and does not
// set it back.
func TestCoarseStarved(t *testing.T) {
	now := Manual(time.Unix(0, 0))
	c := NewCoarse(now)
	now.Advance(time.Hour)
	c.note.Store(now.Now()) // as if there were a ticker
	now.Advance(time.Second)
	if got := c.Now(); got != int64(time.Hour) {
		t.Errorf("it is not late: %v", got)
	}
	if got := c.Exact(); got != int64(time.Hour+time.Second) || c.Now() != got {
		t.Errorf("it tells %v, and then %v", got, c.Now())
	}
	if c.renew(int64(time.Hour)); c.Now() != int64(time.Hour+time.Second) {
		t.Errorf("it goes back to %v", c.Now())
	}
}

func TestCoarseCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exact := New()
		c := NewCoarse(exact)
		pass(time.Second)
		busy(c)
		c.Close()
		c.Close()
		if c.note.Load() != 0 {
			t.Error("the ticker runs still")
		}
		for range 100 {
			c.Now()
		}
		pass(tick / 2)
		if c.Now() != exact.Now() {
			t.Error("it is late after Close")
		}
	})
}

// The ticker stops and starts while many read.
func TestCoarseStress(t *testing.T) {
	exact := New()
	c := NewCoarse(exact)
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			last := int64(0)
			for n := range 20_000 {
				before := exact.Now()
				now := c.Now()
				if n%64 == i {
					if now = c.Exact(); now < before {
						t.Errorf("Exact tells %v at %v", now, before)
						return
					}
				}
				if now > exact.Now() {
					t.Errorf("it tells %v at %v", now, exact.Now())
					return
				}
				if last = now; n%5000 == 0 {
					time.Sleep(20 * tick) //nolint:forbidigo // lets the ticker stop
				}
			}
			_ = last
		})
	}
	readers.Wait()
	c.Close()
}

func BenchmarkNow(b *testing.B) {
	c := New()
	b.ReportAllocs()
	for b.Loop() {
		c.Now()
	}
}

func BenchmarkCoarse(b *testing.B) {
	c := NewCoarse(New())
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		c.Now()
	}
}

func BenchmarkCoarseParallel(b *testing.B) {
	c := NewCoarse(New())
	defer c.Close()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Now()
		}
	})
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble
}
