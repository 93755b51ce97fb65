package pace_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/pace"
)

// naive counts tokens in whole numbers: a token is one event, in nanoseconds times rate.
type naive struct {
	tokens, rate, burst int64
	at                  int64
}

const token = int64(time.Second)

func (n *naive) take(now, events int64) bool {
	n.tokens = min(n.burst*token, n.tokens+(now-n.at)*n.rate)
	n.at = now
	if n.tokens < events*token {
		return false
	}
	n.tokens -= events * token
	return true
}

// TestTwin holds a bucket against one that counts tokens, at rates whose events take
// whole nanoseconds.
func TestTwin(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's
		rates := []int64{1, 2, 4, 5, 10, 100, 200, 1000}
		rate, burst := rates[r.IntN(len(rates))], 1+r.Int64N(20)
		limit := pace.Limit{Rate: float64(rate), Burst: float64(burst)}
		twin := naive{tokens: burst * token, rate: rate, burst: burst}
		var b pace.Bucket
		now, passed := int64(0), 0
		for range 2000 {
			if r.IntN(3) > 0 {
				now += r.Int64N(2 * token / rate)
			}
			if r.IntN(200) == 0 {
				now += token * r.Int64N(100)
			}
			events := 1 + r.Int64N(min(burst, 3))
			wait := b.Wait(now, float64(events), limit)
			got, want := b.Take(now, float64(events), limit), twin.take(now, events)
			if got != want || got != (wait == 0) {
				t.Fatalf("seed %d, at %d: %d events at %+v: passed %v, to wait %s, want %v", seed, now, events, limit, got, wait, want)
			}
			if got {
				passed++
				continue
			}
			if now += int64(wait); r.IntN(2) == 0 { // just then, or just before
				now--
			}
		}
		if passed < 100 {
			t.Errorf("seed %d: only %d passed", seed, passed)
		}
	}
}

// TestOddRates: rounding neither holds back a burst nor adds to it.
func TestOddRates(t *testing.T) {
	for _, rate := range []float64{0.1, 1.5, 3, 7, 333, 1000} {
		for burst := 1.0; burst < 50; burst++ {
			var b pace.Bucket
			got := 0
			for range 100 {
				if b.Take(7, 1, pace.Limit{Rate: rate, Burst: burst}) {
					got++
				}
			}
			if got != int(burst) {
				t.Errorf("%d passed at once, %v a second, want %v", got, rate, burst)
			}
		}
	}
}

func TestTooMany(t *testing.T) {
	var b pace.Bucket
	if b.Take(int64(time.Hour), 6, pace.Limit{Rate: 1, Burst: 5}) {
		t.Error("more than the burst has passed")
	}
	if !b.Take(int64(time.Hour), 5, pace.Limit{Rate: 1, Burst: 5}) {
		t.Error("and was counted")
	}
}

// TestClockSetBack: the bucket is empty at worst, and fills again.
func TestClockSetBack(t *testing.T) {
	limit := pace.Limit{Rate: 2, Burst: 10}
	var b pace.Bucket
	b.Take(int64(24*time.Hour), 1, limit)
	if b.Take(int64(time.Hour), 1, limit) {
		t.Error("as if nothing had been taken")
	}
	if got := b.Wait(int64(time.Hour), 10, limit); got != 5*time.Second {
		t.Errorf("full after %s, want 5 s", got)
	}
	if !b.Take(int64(time.Hour+500*time.Millisecond), 1, limit) {
		t.Error("empty until the clock is where it was")
	}
}

func TestConcurrent(t *testing.T) {
	var b pace.Bucket
	var passed atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200_000 {
				if b.Take(0, 1, pace.Limit{Rate: 1, Burst: 1_000_000}) {
					passed.Add(1)
				}
			}
		})
	}
	group.Wait()
	if passed.Load() != 1_000_000 {
		t.Errorf("%d passed", passed.Load())
	}
}

func BenchmarkTake(b *testing.B) {
	b.ReportAllocs()
	var p pace.Bucket
	now := int64(0)
	for b.Loop() {
		now += int64(time.Millisecond)
		p.Take(now, 1, pace.Limit{Rate: 500, Burst: 10})
	}
}
