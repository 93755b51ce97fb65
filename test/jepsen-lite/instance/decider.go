package instance

import (
	"context"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/workload"
)

const (
	// recordLimit is how long a run of like decisions is told as one.
	recordLimit = 900 * time.Millisecond
	// keyEvery is how long one flag is decided by, unless the revision changes.
	keyEvery = 20 * time.Millisecond
	// apartLimit is how long a handle may say something else than the view: handles are
	// pointed at a new view one by one, which takes no time unless the process stands still.
	apartLimit = time.Second
)

// decider decides by one flag after the other, by the view and by a handle, and by the
// pair together with each.
type decider struct {
	id      string
	cp      *client.Client
	servers map[string]string // ids by address
	record  func(any)
	handles map[string]*client.StringFlag

	last  history.Decision
	level client.Level
	times durations
	// apart is since when the handle of each flag has said something else at every turn,
	// on the machine's clock.
	apart map[string]int64
}

func newDecider(id string, cp *client.Client, servers map[string]string, record func(any)) *decider {
	d := &decider{
		id: id, cp: cp, servers: servers, record: record,
		handles: make(map[string]*client.StringFlag), apart: make(map[string]int64),
	}
	for _, key := range workload.DecisionKeys() {
		d.handles[key] = cp.String(key, history.CodeDefault)
	}
	return d
}

func (d *decider) run(ctx context.Context) {
	tick := time.NewTicker(decideEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			d.flush()
			return
		case <-tick.C:
			d.turn()
		}
	}
}

func (d *decider) turn() {
	status := d.cp.Status()
	before := time.Now()
	view := d.cp.View()
	taking := time.Since(before)
	if status.Revision != view.Revision() {
		return // it changed just now; the next turn sees both as they belong together
	}
	d.lookAtMode(status)
	keys, at := workload.DecisionKeys(), history.Now()
	dec := history.Decision{
		Instance: d.id, T: at, N: 2 * perTurn, Key: keys[(view.Revision()+uint64(at/int64(keyEvery)))%uint64(len(keys))],
		Revision: view.Revision(), Epoch: epoch(status), Source: string(status.Source), Age: int64(status.Age),
		Fresh: int64(status.Gossip.Fresh), Connected: status.Connected, Server: d.servers[status.Server],
	}
	var cell history.Cell
	var said string
	var took [2 * perTurn]time.Duration
	for i := range perTurn {
		began := time.Now()
		cell = decide(view, dec.Key)
		between := time.Now()
		said = d.handles[dec.Key].Get()
		took[2*i], took[2*i+1] = between.Sub(began), time.Since(between)
	}
	took[0] += taking // to take the view is a part of the first decision
	dec.Err = d.compare(dec.Key, cell.Value, said, at)
	dec.Value, dec.Absent = cell.Value, cell.Absent
	for _, key := range workload.PairKeys() {
		dec.Pair = append(dec.Pair, decide(view, key))
	}
	dec.Until = history.Now()
	if !d.same(&dec) || dec.T-d.last.T > int64(recordLimit) {
		d.flush()
		d.last = dec
		d.last.N = 0
	}
	d.last.N += dec.N
	d.last.Until = dec.Until
	for _, t := range took {
		d.times.add(t)
	}
}

// compare returns what is wrong if the handle of a flag goes on saying something else
// than the view.
func (d *decider) compare(key, view, handle string, now int64) string {
	if handle == view {
		delete(d.apart, key)
		return ""
	}
	since, ok := d.apart[key]
	if !ok {
		d.apart[key] = now
		return ""
	}
	if apart := time.Duration(now - since); apart > apartLimit {
		return fmt.Sprintf("for %v the handle has said %q and the view %q", apart, handle, view)
	}
	return ""
}

// lookAtMode records a change of the level, which needs no new revision: an override
// ends by the instance's own clock.
func (d *decider) lookAtMode(status client.Status) {
	level := d.cp.Mode(workload.Mode).Level()
	if level.Name == d.level.Name && level.By == d.level.By {
		return
	}
	d.level = level
	u := history.Update{Instance: d.id, T: history.Now(), Revision: status.Revision, Epoch: epoch(status), Source: string(status.Source)}
	if level.Rank > 0 {
		u.Level, u.Override = level.Name, strings.TrimPrefix(level.By, "override/")
	}
	d.record(u)
}

// same tells whether a decision differs from those before it by its times only.
func (d *decider) same(dec *history.Decision) bool {
	l := &d.last
	return l.N > 0 && l.Key == dec.Key && l.Value == dec.Value && l.Revision == dec.Revision && l.Epoch == dec.Epoch &&
		l.Source == dec.Source && l.Err == dec.Err && l.Connected == dec.Connected && l.Server == dec.Server && slices.Equal(l.Pair, dec.Pair)
}

func (d *decider) flush() {
	if d.last.N == 0 {
		return
	}
	d.last.Slowest, d.last.P99, d.last.Took = int64(d.times.slowest), int64(d.times.p99()), d.times.counts
	d.record(d.last)
	d.last, d.times = history.Decision{}, durations{}
}

// durations counts times by what they stayed below: of four steps in each power of two
// of nanoseconds the first that they did not reach.
type durations struct {
	counts  map[int64]int
	n       int
	slowest time.Duration
}

func (d *durations) add(t time.Duration) {
	if d.counts == nil {
		d.counts = make(map[int64]int)
	}
	d.counts[bound(t)]++
	d.n++
	d.slowest = max(d.slowest, t)
}

// bound keeps the three leading bits of a time, and adds one to the last of them.
func bound(t time.Duration) int64 {
	ns := max(int64(t), 0)
	shift := max(bits.Len64(uint64(ns))-3, 0)
	return (ns>>shift + 1) << shift
}

// p99 is what 99 in 100 stay below.
func (d *durations) p99() time.Duration {
	seen := 0
	for _, below := range slices.Sorted(maps.Keys(d.counts)) {
		if seen += d.counts[below]; seen*100 >= d.n*99 {
			return min(time.Duration(below), d.slowest)
		}
	}
	return d.slowest
}
