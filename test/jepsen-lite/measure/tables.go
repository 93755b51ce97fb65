package measure

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Table is figures for a reader.
type Table struct {
	Title string
	Notes []string
	Head  []string
	Rows  [][]string
}

// Tables are all that there is something to say in.
func (f *Figures) Tables() []Table {
	return append(f.Measured(), filled(f.faults(), f.operations())...)
}

// Measured are those of them that tell how long something took.
func (f *Figures) Measured() []Table { return filled(f.outages(), f.agreements(), f.decided()) }

func filled(tables ...Table) []Table {
	return slices.DeleteFunc(tables, func(t Table) bool { return len(t.Rows) == 0 })
}

func (f *Figures) outages() Table {
	t := Table{
		Title: "How long writers waited when the leader failed",
		Head:  []string{"leader", "writers", "n", "min", "p50", "p90", "max"},
		Notes: []string{
			"From the begin of the last write that was acknowledged before to the next acknowledgement, the longest such time that has a part within " +
				outageWindow.String() + " of the fault. Writers begin a write every 20 ms, each server in turn, whether or not those before were answered.",
			"For comparison: etcd, three nodes with default timeouts, leader killed, next put accepted after 0.97–1.58 s, median 1.3 s.",
		},
	}
	var worst Outage
	together, stayed := make(map[string][]int64), make(map[string][]int64)
	for _, o := range f.Outages {
		if !o.Led {
			t.Notes = append(t.Notes, fmt.Sprintf("Not a trial: %s at %s of %s, since %s did not lead.", o.Fault, seconds(o.At), o.Run, o.Target))
			continue
		}
		if o.Open {
			t.Notes = append(t.Notes, fmt.Sprintf("Longer than told: %s at %s of %s, where nothing was acknowledged afterwards.", o.Fault, seconds(o.At), o.Run))
		}
		if o.Gap > worst.Gap {
			worst = o
		}
		name := strings.TrimPrefix(o.Fault, failover)
		together[name] = append(together[name], o.Gap)
		stayed[name] = append(stayed[name], o.Stayed...)
	}
	for _, name := range slices.Sorted(maps.Keys(together)) {
		t.Rows = append(t.Rows, spreadRow([]string{name, "who go on to another server at once"}, together[name]))
		t.Rows = append(t.Rows, spreadRow([]string{name, "who stay with a server that did not fail"}, stayed[name]))
	}
	if worst.Gap > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("The longest: %s, %s at %s of %s.", seconds(worst.Gap), worst.Fault, seconds(worst.At), worst.Run))
	}
	return t
}

func (f *Figures) agreements() Table {
	t := Table{
		Title: "How soon everybody agreed after a partition",
		Head:  []string{"cut", "who", "n", "min", "p50", "p90", "max"},
		Notes: []string{"From the heal until the newest revision that had been acknowledged before it was applied by every server, and obeyed by every instance, all connected."},
	}
	type class struct {
		name string
		has  func(*Agreement) bool
	}
	between := func(name string, from, to time.Duration) class {
		return class{name, func(a *Agreement) bool { return a.Cut >= int64(from) && a.Cut < int64(to) }}
	}
	const short, long, most = 10 * time.Second, 30 * time.Second, time.Hour
	classes := []class{
		{"all", func(*Agreement) bool { return true }},
		between("under 10 s", 0, short), between("10–30 s", short, long), between("30 s or longer", long, most),
	}
	shapes := make(map[string]bool)
	for i := range f.Agreements {
		a := &f.Agreements[i]
		shapes[a.Fault] = true
		if a.Open {
			t.Notes = append(t.Notes, fmt.Sprintf("Longer than told: %s, healed at %s of %s after %s: %s came too late to be seen.",
				a.Fault, seconds(a.At), a.Run, seconds(a.Cut), strings.Join(a.Late, ", ")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		classes = append(classes, class{strings.TrimPrefix(name, partition), func(a *Agreement) bool { return a.Fault == name }})
	}
	for _, c := range classes {
		var all, servers, each []int64
		for i := range f.Agreements {
			if a := &f.Agreements[i]; c.has(a) {
				all, servers, each = append(all, a.All), append(servers, a.Servers), append(each, a.Instances...)
			}
		}
		if len(all) == 0 {
			continue
		}
		t.Rows = append(t.Rows, spreadRow([]string{c.name, "everybody"}, all), spreadRow([]string{c.name, "all servers"}, servers))
		if len(each) > 0 {
			t.Rows = append(t.Rows, spreadRow([]string{c.name, "each instance that was cut off"}, each))
		}
	}
	return t
}

func (f *Figures) decided() Table {
	t := Table{
		Title: "How instances decided without any server",
		Head:  []string{"", "instances", "asked", "answered", "share", "p50", "p99", "max", "longest without one"},
		Notes: []string{"The same instances cut off from all servers, and connected while nothing was wrong. Quantiles are bounds at most a quarter above the truth."},
	}
	if f.Decided.Apart.Asked == 0 {
		return t
	}
	row := func(name string, d *Decisions) []string {
		share := "–"
		if d.Asked > 0 {
			share = fmt.Sprintf("%.4g %%", 100*float64(d.Answered)/float64(d.Asked))
		}
		return []string{
			name, fmt.Sprint(d.Instances), fmt.Sprint(d.Asked), fmt.Sprint(d.Answered), share,
			fine(d.quantile(0.5)), fine(d.quantile(0.99)), fine(d.Slowest), seconds(d.Pause),
		}
	}
	apart, connected := &f.Decided.Apart, &f.Decided.Connected
	t.Rows = [][]string{row("cut off", apart), row("connected", connected)}
	if p := connected.quantile(0.99); p > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("p99 cut off / connected: %.2f.", float64(apart.quantile(0.99))/float64(p)))
	}
	return t
}

func (f *Figures) faults() Table {
	t := Table{Title: "Faults by name", Head: []string{"fault", "begun", "bit", "toothless", "skipped"}}
	for _, name := range slices.Sorted(maps.Keys(f.Totals.Faults)) {
		n := f.Totals.Faults[name]
		t.Rows = append(t.Rows, []string{name, fmt.Sprint(n.Begun), fmt.Sprint(n.Bitten), fmt.Sprint(n.Toothless), fmt.Sprint(n.Skipped)})
	}
	return t
}

func (f *Figures) operations() Table {
	t := Table{Title: "Operations by kind", Head: []string{"operation", "ok", "failed", "unknown"}}
	for _, name := range slices.Sorted(maps.Keys(f.Totals.Operations)) {
		n := f.Totals.Operations[name]
		t.Rows = append(t.Rows, []string{name, fmt.Sprint(n.OK), fmt.Sprint(n.Failed), fmt.Sprint(n.Unknown)})
	}
	return t
}

func spreadRow(head []string, samples []int64) []string {
	s := SpreadOf(samples)
	return append(head, fmt.Sprint(s.N), seconds(s.Min), seconds(s.P50), seconds(s.P90), seconds(s.Max))
}

func seconds(ns int64) string { return fmt.Sprintf("%.2f s", float64(ns)/1e9) }

// fine shows a short time with three digits.
func fine(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(ns)/1e6)
	case d >= time.Microsecond:
		return fmt.Sprintf("%.3g µs", float64(ns)/1e3)
	}
	return fmt.Sprintf("%d ns", ns)
}
