package sim

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// Table is printed with columns in line.
type Table struct {
	title string
	rows  [][]string
}

// NewTable returns a table with a heading for each column.
func NewTable(title string, columns ...string) *Table {
	return &Table{title: title, rows: [][]string{columns}}
}

// Row adds a row.
func (t *Table) Row(cells ...any) {
	row := make([]string, len(cells))
	for n, c := range cells {
		switch c := c.(type) {
		case time.Duration:
			row[n] = short(c)
		case float64:
			row[n] = fmt.Sprintf("%.1f", c)
		default:
			row[n] = fmt.Sprint(c)
		}
	}
	t.rows = append(t.rows, row)
}

func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", t.title)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		_, _ = fmt.Fprintf(w, "  %s\n", strings.Join(row, "\t"))
	}
	_ = w.Flush()
	return b.String()
}

// never stands for what did not happen.
const never = time.Duration(-1)

func short(d time.Duration) string {
	switch {
	case d == never:
		return "never"
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// Percentile returns the smallest value that a share of all are not above; never sorts
// behind all others.
func Percentile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return never
	}
	sorted := slices.SortedFunc(slices.Values(all), func(a, b time.Duration) int {
		switch {
		case a == b:
			return 0
		case a == never:
			return 1
		case b == never:
			return -1
		}
		return int(a - b)
	})
	at := int(share*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

// failFast returns, for each breaker of a dependency that gets calls, how long after a
// moment it began to keep them back; never for one that did not.
func (w *World) failFast(dependency string, from, to time.Time) []time.Duration {
	return w.failFastOf(w.instances, dependency, from, to)
}

func (w *World) failFastOf(some []*Instance, dependency string, from, to time.Time) []time.Duration {
	var all []time.Duration
	for _, i := range some {
		first := map[string]time.Duration{}
		for _, c := range i.Changes(from, to) {
			if _, known := first[c.Target]; !known && c.Dependency == dependency && closedOff(c.To) {
				first[c.Target] = c.At - from.Sub(w.start)
			}
		}
		for n := range i.lines {
			l := &i.lines[n]
			if l.dependency.name != dependency || l.every == 0 {
				continue
			}
			took, ok := first[l.target.Name()]
			if !ok {
				took = never
			}
			all = append(all, took)
		}
	}
	return all
}

func closedOff(s breaker.State) bool {
	return s == breaker.Open || s == breaker.HalfOpen || s == breaker.Hearsay
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
