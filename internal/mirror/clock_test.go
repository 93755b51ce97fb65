package mirror

import (
	"errors"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
)

func TestClock(t *testing.T) {
	const ms = int64(time.Millisecond)
	var c Clock
	if c.Known() || c.At(5*ms) != 0 {
		t.Error("the zero value knows something")
	}
	c, back := c.Observe(1000, 0)
	if back || c.At(0) != 1000 || c.At(500*ms) != 1500 {
		t.Errorf("goes %d, %d", c.At(0), c.At(500*ms))
	}
	if c, _ = c.Observe(1300, 500*ms); c.At(500*ms) != 1499 { // it sinks by a quarter of one
		t.Errorf("a message that was on its way for 200 ms sets the clock to %d", c.At(500*ms))
	}
	if c, _ = c.Observe(1600, 500*ms); c.At(500*ms) != 1600 {
		t.Errorf("a message that was faster than the others does not count: %d", c.At(500*ms))
	}
	if c, back = Guess(9000, 0).Observe(8000, 0); back || c.At(0) != 9000 {
		t.Errorf("a guess 1 s ahead: %d, back %v", c.At(0), back)
	}
	if c, back = c.Observe(1000, 0); back || c.At(0) != 9000 {
		t.Errorf("a guess that has been confirmed is one no more: %d, back %v", c.At(0), back)
	}
	if c, back = Guess(20_000, 0).Observe(8000, 0); !back || c.At(0) != 8000 {
		t.Errorf("a guess 12 s ahead: %d, back %v", c.At(0), back)
	}
	if c, back = Guess(1000, 0).Observe(8000, 0); back || c.At(0) != 8000 {
		t.Errorf("a guess that was behind: %d, back %v", c.At(0), back)
	}
	for _, hostile := range []int64{-1 << 63, -1, 1<<63 - 1} {
		c, _ := Clock{}.Observe(hostile, 3*ms)
		if got := c.At(3 * ms); got < 0 || got > latest {
			t.Errorf("state time %d is taken for %d", hostile, got)
		}
	}
}

func TestStamp(t *testing.T) {
	s := Stamp{Wall: 1000, State: 5000}
	for wall, want := range map[int64]int64{1000: 5000, 1500: 5500, 200: 5000, 1<<63 - 1: latest} {
		if got := s.At(wall); got != want {
			t.Errorf("at %d: %d, want %d", wall, got, want)
		}
	}
	if got := (Stamp{Wall: 1000}).At(2000); got != 0 {
		t.Errorf("of an unknown state time: %d", got)
	}
}

// TestResume takes a cache file up to the mark only where nothing was different.
func TestResume(t *testing.T) {
	cache := applied(t, New("default", Position{}), snapshot(Position{epoch(1), 5}, "", flag("a", "1", 5)))
	for name, c := range map[string]struct {
		mark Mark
		at   uint64
		want error
	}{
		"no mark":           {Mark{}, 5, nil},
		"mark at the cache": {Mark{Position: cache.Position(), Root: cache.Root()}, 5, nil},
		"mark behind":       {Mark{Position: Position{epoch(1), 4}}, 5, nil},
		"same content":      {Mark{Position: Position{epoch(1), 9}, Root: cache.Root()}, 9, nil},
		"other content":     {Mark{Position: Position{epoch(1), 9}, Root: document.Root{1}}, 0, ErrRoot},
		"later epoch":       {Mark{Position: Position{epoch(2), 5}, Root: cache.Root()}, 0, ErrGap},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := c.mark.Resume(cache)
			if !errors.Is(err, c.want) || err == nil && m.Position() != (Position{epoch(1), c.at}) {
				t.Errorf("got %v, %v", m, err)
			}
		})
	}
}

// TestClockThatRunsFast stays near state time however long the instance lives.
func TestClockThatRunsFast(t *testing.T) {
	const ms, fast = int64(time.Millisecond), 10_000 // 100 ppm
	var c Clock
	var mono, wrong int64
	for state := int64(1); state < 90*24*3600*1000; state += 5000 {
		before := c.At(mono)
		mono = state*ms + state*ms/fast
		late := state % 40
		if c, _ = c.Observe(state-late, mono); c.At(mono) < before {
			t.Fatalf("goes back from %d to %d", before, c.At(mono))
		}
		wrong = max(wrong, c.At(mono)-state)
	}
	if wrong > 100 {
		t.Errorf("is %d ms ahead", wrong)
	}
	// Cut off, it runs at the own pace; one message does not set it back far.
	cut := mono + int64(time.Hour)
	if next, back := c.Observe(c.At(mono), cut); back || c.At(cut)-next.At(cut) > 2000 {
		t.Errorf("went back by %d ms, back %v", c.At(cut)-next.At(cut), back)
	}
}
