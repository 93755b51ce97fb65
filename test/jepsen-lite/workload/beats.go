package workload

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

const (
	// beatEvery is how often a write is begun, whatever became of those before: so it is
	// seen how long nobody can write, also while all who wait for an answer are silent.
	beatEvery = 20 * time.Millisecond
	// beatLimit is how long one waits, and beatsAtOnce how many do at most.
	beatLimit   = time.Second
	beatsAtOnce = 150
	// deadAfter is how long a connection may answer nothing before another is made: longer
	// than the servers need for a new leader, so that the wait for one is not disturbed.
	deadAfter = 4 * time.Second
	// beatKeys is how many registers take turns: no two writes of one overlap.
	beatKeys = 60
)

// metronome writes at fixed times, to one server after the other, and never again what
// was not answered.
type metronome struct {
	links  *links
	record func(record any)
	sent   int
	heard  []atomic.Int64 // by server, when it last answered
}

func newMetronome(links *links, record func(record any)) *metronome {
	return &metronome{links: links, record: record, heard: make([]atomic.Int64, len(links.servers))}
}

func (m *metronome) run(ctx context.Context) {
	var writes sync.WaitGroup
	defer writes.Wait()
	places := make(chan struct{}, beatsAtOnce)
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case places <- struct{}{}:
		default:
			continue
		}
		n := m.sent
		m.sent++
		writes.Go(func() {
			defer func() { <-places }()
			m.write(context.WithoutCancel(ctx), n)
		})
	}
}

// write is the n-th write. Each is a client of its own and happens once.
func (m *metronome) write(ctx context.Context, n int) {
	server := n % len(m.links.servers)
	client := fmt.Sprintf("beat-%d", n)
	cell := history.Cell{Key: fmt.Sprintf("beat-%d-%d", n%beatKeys, n/beatKeys/opsPerRegister), Value: client}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	op := history.Op{
		Client: client, Server: m.links.servers[server].ID, F: history.Put, Probe: true, Attempts: 1,
		Request: hex.EncodeToString(id), Cells: []history.Cell{cell}, Outcome: history.Failed, Call: history.Now(),
	}
	ctx, cancel := context.WithTimeout(ctx, beatLimit)
	defer cancel()
	state, conn, err := m.links.state(server)
	var response *holdfastv1.ApplyResponse
	if err == nil {
		response, err = state.Apply(ctx, &holdfastv1.ApplyRequest{
			RequestId: id, Operations: []*holdfastv1.Operation{put(cell.Key, cell.Value)}, Reason: "beat", ClaimedActor: "beat",
		})
	}
	op.Return = history.Now()
	if err == nil {
		answered(&op, response)
		m.heard[server].Store(op.Return)
	} else {
		f := explain(err)
		op.Code = f.code
		if !f.definite {
			op.Outcome = history.Unknown
		}
		if f.silent && op.Return-m.heard[server].Load() > int64(deadAfter) {
			m.heard[server].Store(op.Return)
			m.links.renew(server, conn)
		}
	}
	m.record(op)
}
