package consensus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// percentiles reports the median and the 99th of durations, in milliseconds.
func percentiles(b *testing.B, unit string, all []time.Duration) {
	b.Helper()
	slices.Sort(all)
	at := func(p int) float64 { return float64(all[(len(all)-1)*p/100]) / float64(time.Millisecond) }
	b.ReportMetric(at(50), "p50-ms-"+unit)
	b.ReportMetric(at(99), "p99-ms-"+unit)
}

// measure runs b.N writes by so many proposers at a time.
func measure(b *testing.B, proposers int, write func(context.Context) error) {
	b.Helper()
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range proposers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second) // as a request has
				start := time.Now()
				err := write(ctx)
				cancel()
				if err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	percentiles(b, "write", took)
}

// BenchmarkPropose measures writes of 200 bytes on three nodes with fsync.
func BenchmarkPropose(b *testing.B) {
	for _, proposers := range []int{1, 16, 64, 256} {
		for _, nudge := range []string{"on", "off"} {
			b.Run(fmt.Sprintf("proposers=%d/nudge=%s", proposers, nudge), func(b *testing.B) {
				c := newCluster(b, 3, func(cfg *Config) {
					cfg.Timing = SlowTiming() // a busy disk ends no leadership
					cfg.DisableNudge = nudge == "off"
				})
				for _, s := range c.sites {
					s.sm.forget = true
				}
				leader := c.leader()
				data := make([]byte, 200)
				measure(b, proposers, func(ctx context.Context) error {
					_, _, err := leader.node.Propose(ctx, data)
					return err
				})
				var writes uint64
				for _, s := range c.sites {
					writes += s.node.Metrics().StoreLogs.Count
				}
				b.ReportMetric(float64(b.N*len(c.sites))/float64(writes), "entries/fsync")
			})
		}
	}
}

// BenchmarkFollowerLag measures from applied on the leader to applied on both
// followers, with sparse writes.
func BenchmarkFollowerLag(b *testing.B) {
	for _, nudge := range []string{"on", "off"} {
		b.Run("nudge="+nudge, func(b *testing.B) {
			c := newCluster(b, 3, func(cfg *Config) {
				cfg.Timing = SlowTiming() // a busy disk ends no leadership
				cfg.DisableNudge = nudge == "off"
			})
			leader := c.leader()
			var lags []time.Duration
			for b.Loop() {
				_, _, err := leader.node.Propose(b.Context(), []byte("x"))
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				index := leader.node.AppliedIndex()
				for _, s := range c.sites {
					s.waitApplied(index)
				}
				lags = append(lags, time.Since(start))
				<-time.After(10 * time.Millisecond) // sparse
			}
			percentiles(b, "lag", lags)
		})
	}
}
