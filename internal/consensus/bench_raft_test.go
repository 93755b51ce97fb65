package consensus

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
)

// bareFSM does nothing.
type bareFSM struct{}

func (bareFSM) Apply(*raft.Log) any                 { return nil }
func (bareFSM) ApplyBatch(logs []*raft.Log) []any   { return make([]any, len(logs)) }
func (bareFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, io.ErrUnexpectedEOF }
func (bareFSM) Restore(io.ReadCloser) error         { return nil }

// bareRaft is a member that is nothing but the library and raft-boltdb, with the
// same transport and the same limits.
func bareRaft(b *testing.B, id string) (*raft.Raft, raft.Server) {
	b.Helper()
	cfg := Config{ID: id, DataDir: b.TempDir(), BindAddr: "127.0.0.1:0", Timing: SlowTiming(), Logger: slog.New(slog.DiscardHandler)}
	bolt, err := openBolt(cfg.logPath(), false)
	must(b, err)
	s, err := listen(cfg)
	must(b, err)
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: 3, Timeout: rpcTimeout, Logger: newLogger(cfg.Logger),
	})
	cache, err := raft.NewLogCache(logCache, bolt)
	must(b, err)
	rc := cfg.raftConfig(nil)
	rc.BatchApplyCh = false
	r, err := raft.NewRaft(rc, bareFSM{}, cache, bolt, raft.NewInmemSnapshotStore(), trans)
	must(b, err)
	b.Cleanup(func() {
		must(b, r.Shutdown().Error())
		s.handlers.Wait()
		must(b, bolt.Close())
	})
	return r, raft.Server{ID: rc.LocalID, Address: trans.LocalAddr()}
}

// BenchmarkRaft measures the same as BenchmarkPropose without this package: what
// the hardening costs, or saves.
func BenchmarkRaft(b *testing.B) {
	for _, proposers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("proposers=%d", proposers), func(b *testing.B) {
			var members []*raft.Raft
			var configuration raft.Configuration
			for i := range 3 {
				r, server := bareRaft(b, fmt.Sprintf("n%d", i+1))
				members = append(members, r)
				configuration.Servers = append(configuration.Servers, server)
			}
			must(b, members[0].BootstrapCluster(configuration).Error())
			var leader *raft.Raft
			eventually(b, "a leader", func() bool {
				for _, r := range members {
					if r.State() == raft.Leader {
						leader = r
					}
				}
				return leader != nil
			})
			must(b, leader.Barrier(0).Error())
			data := make([]byte, 200)
			measure(b, proposers, func(context.Context) error { return leader.Apply(data, enqueueTimeout).Error() })
		})
	}
}
