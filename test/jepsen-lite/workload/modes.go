package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

const (
	// An override lasts for that long, evenly drawn: some end while everything works, some
	// while nobody leads.
	shortestOverride, longestOverride = 1500 * time.Millisecond, 4 * time.Second
	// afterOverride is the time between the end of one and the next.
	afterOverride = 300 * time.Millisecond
)

// modeClient degrades the mode for a while, again and again. Most overrides end by
// themselves, some are ended before.
type modeClient struct {
	session
	random *rand.Rand
}

func (m *modeClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		m.degrade(ctx)
		pause(ctx, afterOverride)
	}
}

// degrade begins an override and stays until it has ended. Each has a name of its own, so
// that an instance can tell which one it obeys.
func (m *modeClient) degrade(ctx context.Context) {
	ttl := shortestOverride + time.Duration(m.random.Int64N(int64(longestOverride-shortestOverride)))
	levels := levels()
	level, id := levels[m.random.IntN(len(levels))], m.value()
	cell := history.Cell{Key: "override/" + Mode, Value: id}
	key := &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_OVERRIDE, Name: id}
	began := m.write(ctx, history.Op{F: history.Override, Cells: []history.Cell{cell}, TTL: int64(ttl), Level: level}, "degrade",
		&holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
			Key: key, Spec: fmt.Appendf(nil, `{"mode":%q,"level":%q}`, Mode, level), Ttl: durationpb.New(ttl),
		}}})
	if began.Outcome == history.Failed {
		return
	}
	if early := m.random.IntN(4) == 0; early {
		pause(ctx, ttl/2)
		cell.Absent = true
		m.write(ctx, history.Op{F: history.Release, Cells: []history.Cell{cell}}, "restore",
			&holdfastv1.Operation{Action: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{Key: key}}})
		return
	}
	pause(ctx, ttl)
}
