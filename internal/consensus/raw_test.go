package consensus

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

type rawFSM struct{}

func (rawFSM) Apply(*raft.Log) any                 { return nil }
func (rawFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (rawFSM) Restore(io.ReadCloser) error         { return nil }
func (rawFSM) ApplyBatch(l []*raft.Log) []any      { return make([]any, len(l)) }

// BenchmarkRaw is the library alone, with its defaults and raft-boltdb.
func BenchmarkRaw(b *testing.B) {
	for _, proposers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("proposers=%d", proposers), func(b *testing.B) {
			var rafts []*raft.Raft
			var c raft.Configuration
			for i := range 3 {
				dir := b.TempDir()
				bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "raft.db"), BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}})
				must(b, err)
				defer bolt.Close()
				lg := newLogger(slog.New(slog.DiscardHandler))
				trans, err := raft.NewTCPTransportWithLogger("127.0.0.1:0", nil, 3, 10*time.Second, lg)
				must(b, err)
				defer trans.Close()
				rc := raft.DefaultConfig()
				rc.LocalID = raft.ServerID(fmt.Sprint(i))
				rc.Logger = lg
				rc.NoLegacyTelemetry = true
				rc.MaxAppendEntries = 256
				cache, _ := raft.NewLogCache(512, bolt)
				r, err := raft.NewRaft(rc, rawFSM{}, cache, bolt, raft.NewInmemSnapshotStore(), trans)
				must(b, err)
				rafts = append(rafts, r)
				c.Servers = append(c.Servers, raft.Server{ID: rc.LocalID, Address: trans.LocalAddr()})
			}
			must(b, rafts[0].BootstrapCluster(c).Error())
			var leader *raft.Raft
			eventually(b, "leader", func() bool {
				for _, r := range rafts {
					if r.State() == raft.Leader {
						leader = r
					}
				}
				return leader != nil
			})
			must(b, leader.Barrier(0).Error())
			data := make([]byte, 200)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range proposers {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						if err := leader.Apply(data, 0).Error(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			for _, r := range rafts {
				r.Shutdown().Error()
			}
		})
	}
}
