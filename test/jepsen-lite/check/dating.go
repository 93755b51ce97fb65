package check

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// moment is a time and the epoch that was seen up to it, or from it on.
type moment struct {
	t     int64
	epoch uint64
}

// dated returns the operations with the epoch of answers that did not tell it, such
// as that there is no register: the one that was seen before and is seen after. Where
// a restore came between, the answer is of no use.
func dated(ops []history.Op) []history.Op {
	var before, after []moment
	last := uint64(0)
	for i := range ops {
		if op := &ops[i]; op.Outcome == history.OK && op.Epoch > 0 {
			before = append(before, moment{op.Return, op.Epoch})
			after = append(after, moment{op.Call, op.Epoch})
			last = max(last, op.Epoch)
		}
	}
	byTime := func(a, b moment) int { return cmp.Compare(a.t, b.t) }
	slices.SortFunc(before, byTime)
	slices.SortFunc(after, byTime)
	for i := 1; i < len(before); i++ {
		before[i].epoch = max(before[i].epoch, before[i-1].epoch)
	}
	for i := len(after) - 2; i >= 0; i-- {
		after[i].epoch = min(after[i].epoch, after[i+1].epoch)
	}
	first := uint64(math.MaxUint64)
	for _, m := range after {
		first = min(first, m.epoch)
	}
	whole := slices.Clone(ops)
	for i := range whole {
		op := &whole[i]
		if op.Epoch > 0 {
			continue
		}
		low, high := first, last
		if j := sort.Search(len(before), func(j int) bool { return before[j].t > op.Call }); j > 0 {
			low = before[j-1].epoch
		}
		if j := sort.Search(len(after), func(j int) bool { return after[j].t >= op.Return }); j < len(after) {
			high = after[j].epoch
		}
		switch {
		case low == high:
			op.Epoch = low
		case op.F == history.Get:
			op.Outcome = history.Unknown
		case op.Outcome == history.Failed:
			op.Code = ""
		}
	}
	return whole
}
