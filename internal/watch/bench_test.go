package watch

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
)

// BenchmarkPublish publishes a change to 1,000 subscribers and waits until all
// have it. "publish-ns" is what it costs the applying goroutine.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 1_000} {
		b.Run(fmt.Sprintf("subscribers=%d", n), func(b *testing.B) {
			c := newCluster(b)
			ctx, cancel := context.WithCancel(b.Context())
			var have atomic.Int64
			all := make(chan struct{}, 1)
			var subscribers sync.WaitGroup
			for range n {
				s := c.subscribe("a", Cursor{})
				subscribers.Go(func() {
					defer s.Close()
					for {
						e, err := s.Next(ctx, nil)
						if err != nil {
							return
						}
						if e.Kind == Delta {
							e.Delta.Encode(func(document.Delta) [][]byte { return nil })
						}
						if have.Add(1)%int64(n) == 0 {
							all <- struct{}{}
						}
					}
				})
			}
			<-all
			var publish int64
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				results, err := c.machine.Apply(entriesOf(b, i))
				if err != nil {
					b.Fatal(err)
				}
				v, touched := c.machine.View(), results[0].Touched
				b.StartTimer()
				publish += timed(func() { c.hub.Publish(v, touched) })
				<-all
			}
			b.StopTimer()
			b.ReportMetric(float64(publish)/float64(b.N), "publish-ns/op")
			b.ReportMetric(float64(c.hub.Metrics().Encoded)/float64(b.N), "encodings/op")
			cancel()
			subscribers.Wait()
		})
	}
}

func entriesOf(b failer, i int) []state.Entry {
	return []state.Entry{{Index: uint64(i + 2), Term: 1, Data: encode(b, write(put("a", "x", fmt.Sprint(i))))}}
}

func timed(f func()) int64 {
	start := time.Now()
	f()
	return time.Since(start).Nanoseconds()
}
