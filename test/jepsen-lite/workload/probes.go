package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

const (
	// probeEvery is how often each server gets a new read, whether or not it has
	// answered those before: a paused server answers them all when it goes on, which is
	// when it might answer from the past.
	probeEvery = 40 * time.Millisecond
	// probeLimit is how long one waits, and probesAtOnce how many there are at most.
	probeLimit   = 6 * time.Second
	probesAtOnce = 160
)

// prober reads from one server at fixed times.
type prober struct {
	server    int
	links     *links
	registers *registers
	record    func(record any)
	random    *rand.Rand
	sent      int
}

func (p *prober) run(ctx context.Context) {
	var reads sync.WaitGroup
	defer reads.Wait()
	places := make(chan struct{}, probesAtOnce)
	tick := time.NewTicker(probeEvery)
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
			continue // the server has been silent for so long that it is not asked more
		}
		p.sent++
		client, key := fmt.Sprintf("probe-%s.%d", p.links.servers[p.server].ID, p.sent), p.registers.watch(p.random)
		reads.Go(func() {
			defer func() { <-places }()
			p.read(ctx, client, key)
		})
	}
}

func (p *prober) read(ctx context.Context, client, key string) {
	op := history.Op{
		Client: client, Server: p.links.servers[p.server].ID, F: history.Get, Probe: true,
		Cells: []history.Cell{{Key: key}}, Call: history.Now(),
	}
	state, conn, err := p.links.state(p.server)
	if err == nil {
		err = get(ctx, state, probeLimit, &op)
	}
	op.Return = history.Now()
	if err != nil {
		f := explain(err)
		op.Outcome, op.Code = history.Failed, f.code
		if f.silent {
			p.links.renew(p.server, conn)
		}
	}
	p.record(op)
}
