package node

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// minGrowth is how much the heap may grow between two collections, at least. A
	// small state would otherwise be collected dozens of times a second under
	// load; a large one grows by its own size, which is Go's default.
	minGrowth = 64 << 20
	// defaultGCPercent is Go's own.
	defaultGCPercent = 100
	liveHeap         = "/gc/heap/live:bytes"
)

// pacer sets how often the garbage collector runs. Whoever sets GOGC decides
// instead.
type pacer struct {
	off     bool
	percent int
	sample  []metrics.Sample
}

func newPacer() *pacer {
	return &pacer{off: os.Getenv("GOGC") != "", percent: defaultGCPercent, sample: []metrics.Sample{{Name: liveHeap}}}
}

// adjust adapts to the live heap of the last collection.
func (p *pacer) adjust() {
	if p.off {
		return
	}
	metrics.Read(p.sample)
	if p.sample[0].Value.Kind() != metrics.KindUint64 {
		return
	}
	if percent := gcPercent(p.sample[0].Value.Uint64()); percent != p.percent {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
}

// gcPercent returns the setting that lets a live heap grow by minGrowth or by its
// own size, whichever is more. It is rounded, because each change costs a pause.
func gcPercent(live uint64) int {
	if live == 0 {
		return defaultGCPercent // nothing has been collected yet
	}
	percent := int(min(minGrowth*100/live, 1600))
	return max(defaultGCPercent, percent/100*100)
}
