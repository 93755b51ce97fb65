package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Durations is a sample of measured times.
type Durations []time.Duration

// Sorted returns a sorted copy.
func (d Durations) Sorted() Durations {
	s := slices.Clone(d)
	slices.Sort(s)
	return s
}

// Quantile returns the smallest value that at least the share q of the sample
// does not exceed; 0 of an empty sample.
func (d Durations) Quantile(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := d.Sorted()
	i := int(q*float64(len(s))+0.999999) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// String lists a small sample in full after its median and worst.
func (d Durations) String() string {
	if len(d) == 0 {
		return "nothing measured"
	}
	all := make([]string, 0, len(d))
	for _, v := range d.Sorted() {
		all = append(all, Millis(v))
	}
	return fmt.Sprintf("n=%d median=%s p90=%s worst=%s ms; all: %s", len(d),
		Millis(d.Quantile(0.5)), Millis(d.Quantile(0.9)), Millis(d.Quantile(1)), strings.Join(all, " "))
}

// Millis formats a duration in milliseconds with three significant digits or so.
func Millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 100 || ms <= -100:
		return fmt.Sprintf("%.0f", ms)
	case ms >= 10 || ms <= -10:
		return fmt.Sprintf("%.1f", ms)
	default:
		return fmt.Sprintf("%.2f", ms)
	}
}
