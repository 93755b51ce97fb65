package api

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/registry"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// BenchmarkCommitToObeyed measures from the call of a write until each of so many
// sessions has it, each on its own connection, and until the last one's acknowledgement
// is here. There is neither Raft nor disk in it, and clients and server share the
// machine.
func BenchmarkCommitToObeyed(b *testing.B) {
	for _, sessions := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			n := single(b)
			var mu sync.Mutex
			var began time.Time
			var took, last []time.Duration // of each instance, of all
			for i := range sessions {
				s := openOver(b.Context(), b, dial(b, n.addr, grpc.WithInitialWindowSize(windowBytes), grpc.WithInitialConnWindowSize(windowBytes)), helloOf(fmt.Sprintf("i-%04d", i)))
				go obeyAll(s.stream, func() {
					mu.Lock()
					defer mu.Unlock()
					took = append(took, time.Since(began))
				})
			}
			counts := func() registry.Counts {
				tally, err := n.sessions.registry.Tally("default", func(*registry.Instance) bool { return true }, demand(n.replica.View(), "default", 0))
				if err != nil {
					b.Fatal(err)
				}
				defer tally.Close()
				return tally.Counts()
			}
			eventually(b, "all sessions", func() bool { return counts().Obeying == sessions })
			took = nil
			for b.Loop() {
				mu.Lock()
				began = time.Now()
				mu.Unlock()
				revision := n.put(b, flag("a", fmt.Sprint(len(last)))).GetRevision()
				tally, err := n.sessions.registry.Tally("default", func(*registry.Instance) bool { return true }, demand(n.replica.View(), "default", revision))
				if err != nil {
					b.Fatal(err)
				}
				for tally.Counts().Obeying < sessions {
					<-tally.Reached()
				}
				tally.Close()
				last = append(last, time.Since(began))
			}
			for name, took := range map[string][]time.Duration{"": took, "-of-all": last} {
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms"+name)
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms"+name)
			}
		})
	}
}

// obeyAll tells of whatever comes and acknowledges it, until the stream ends.
func obeyAll(stream grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse], obeyed func()) {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return
		}
		ack := &holdfastv1.Ack{Epoch: resp.GetEpoch()}
		switch {
		case resp.GetSnapshot().GetLast():
			ack.Revision = resp.GetSnapshot().GetRevision()
		case resp.GetDelta().GetLast():
			ack.Revision = resp.GetDelta().GetTo()
		default:
			continue
		}
		obeyed()
		if err := stream.Send(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: ack}}); err != nil {
			return
		}
	}
}
