package node

import (
	"maps"

	"github.com/holdfast-dev/holdfast/internal/fleet"
)

// poolTotals are the figures of pools of instances, those that were left included
// where they are totals.
type poolTotals struct {
	pools, members, records              int
	merged, dropped, malformed, oversize uint64
	refused                              map[string]uint64 // by why
}

// totals adds up the pools.
func (p *pools) totals() poolTotals {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := p.gone
	sum.refused = maps.Clone((&fleet.StoreMetrics{}).Refused())
	sum.addRefused(p.gone.refused)
	for _, pool := range p.open {
		sum.pools++
		sum.add(pool.totals())
	}
	return sum
}

// retire keeps the totals of a pool that is left. The caller holds p.mu.
func (p *pools) retire(pool *instancePool) {
	if p.gone.refused == nil {
		p.gone.refused = make(map[string]uint64)
	}
	last := pool.totals()
	last.members, last.records = 0, 0
	p.gone.add(last)
}

func (p *instancePool) totals() poolTotals {
	store := p.Metrics()
	t := poolTotals{records: store.Records, merged: store.Merged, refused: store.Refused()}
	if m := p.joined.Load(); m != nil {
		pool := m.pool.Metrics()
		t.members, t.dropped, t.malformed, t.oversize = pool.Members, pool.Dropped, pool.Malformed, pool.Oversize
	}
	return t
}

func (t *poolTotals) add(other poolTotals) {
	t.members += other.members
	t.records += other.records
	t.merged += other.merged
	t.dropped += other.dropped
	t.malformed += other.malformed
	t.oversize += other.oversize
	t.addRefused(other.refused)
}

func (t *poolTotals) addRefused(refused map[string]uint64) {
	for why, n := range refused {
		t.refused[why] += n
	}
}
