package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/load"
	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
)

// Frame is one picture of the shop.
type Frame struct {
	// Since is how long it has run.
	Since time.Duration
	// Servers says how the control plane is; empty leaves it out.
	Servers string
	// Customers is what they get.
	Customers []Customers
	Instances []Instance
}

// Customers is what those who do one thing get.
type Customers struct {
	Op   string
	Read load.Reading
	// LastError is why a call failed last.
	LastError string
}

// Look asks the fleet and reads the load.
func Look(since time.Duration, servers string, customers *load.Load, instances []Instance) Frame {
	frame := Frame{Since: since, Servers: servers, Instances: instances}
	for _, op := range load.Ops() {
		frame.Customers = append(frame.Customers, Customers{Op: op.String(), Read: customers.Read(op), LastError: customers.LastError(op)})
	}
	return frame
}

// style is how something is written: by codes of a terminal, or not.
type style struct{ color bool }

func (s style) good(text string) string { return s.in("32", text) }
func (s style) warn(text string) string { return s.in("33", text) }
func (s style) bad(text string) string  { return s.in("31", text) }
func (s style) bold(text string) string { return s.in("1", text) }
func (s style) dim(text string) string  { return s.in("2", text) }

func (s style) in(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Lines draws the frame for so many columns. What does not fit is left out where all
// is well; other lines may be longer.
func (f Frame) Lines(color bool, columns int) []string {
	s := style{color}
	lines := []string{
		s.bold("  Holdfast shop") + "   " + f.Since.Truncate(time.Second).String() + "   " + f.Servers,
		"",
		s.dim("  customers    per s     p50      p99      ok  degraded  refused  failed  failed ever"),
	}
	for _, c := range f.Customers {
		lines = append(lines, c.line(s))
	}
	for _, c := range f.Customers {
		if c.Read.Recent[load.Failed] > 0 {
			lines = append(lines, s.bad("    "+c.Op+": "+oneLine(c.LastError)))
		}
	}
	plane := len("control plane  ")
	for _, i := range f.Instances {
		plane = max(plane, utf8.RuneCountInString(i.plane(style{})))
	}
	lines = append(lines, "", s.dim("  instance         "+pad("control plane", plane)+" revision  mode        what it calls"))
	for _, i := range f.Instances {
		lines = append(lines, i.line(s, plane, columns))
	}
	return lines
}

func (c Customers) line(s style) string {
	recent := c.Read.Recent
	paint := func(o load.Outcome, width int, how func(string) string) string {
		text := fmt.Sprintf("%*s", width, percent(recent.Share(o)))
		if recent[o] == 0 {
			return text
		}
		return how(text)
	}
	ever := fmt.Sprintf("%12d", c.Read.Total[load.Failed])
	if c.Read.Total[load.Failed] > 0 {
		ever = s.bad(ever)
	}
	return fmt.Sprintf("  %-10s %7.1f %8s %8s %7s %s %s %s %s", c.Op, c.Read.PerSecond, short3(c.Read.P50), short3(c.Read.P99),
		percent(recent.Share(load.OK)), paint(load.Degraded, 9, s.warn), paint(load.Refused, 8, s.warn), paint(load.Failed, 7, s.bad), ever)
}

// plane says how the instance is with the control plane.
func (i Instance) plane(s style) string {
	switch {
	case !i.Up():
		return ""
	case i.Report.GetConnected():
		return s.good(strings.TrimPrefix(i.Report.GetServer(), "127.0.0.1"))
	default:
		return s.warn(fmt.Sprintf("cut off %s (view: %s)", i.CutOff.Truncate(time.Second), i.Report.GetSource()))
	}
}

// line tells of an instance, first of all what is not well.
func (i Instance) line(s style, plane, columns int) string {
	name := fmt.Sprintf("  %-16s ", i.Name)
	if !i.Up() {
		return name + s.bad("down")
	}
	r := i.Report
	level := pad(r.GetLevel(), 11)
	if r.GetLevel() != "normal" {
		level = s.warn(level)
	}
	var calls, well []string
	for _, problem := range r.GetProblems() {
		calls = append(calls, s.bad(problem))
	}
	for _, d := range r.GetDependencies() {
		switch special := i.special(d); {
		case len(special) > 0:
			calls = append(calls, fmt.Sprintf("%s %s, %d/%d", d.GetName(), s.warn(strings.Join(special, ", ")), d.GetInUse(), d.GetLimit()))
		case !strings.HasPrefix(d.GetName(), "server:"): // its own server is worth a word only then
			well = append(well, d.GetName()+s.good(" ok"))
		}
	}
	if n := r.GetPendingPayments(); n > 0 {
		calls = append(calls, s.warn(fmt.Sprintf("%d payments pending", n)))
	}
	told := i.plane(s)
	line := fmt.Sprintf("%s%s%s %8d  %s ", name, told, strings.Repeat(" ", max(0, plane-width(told))), r.GetRevision(), level)
	separator := s.dim(" · ")
	for n := range well {
		longer := slices.Concat(calls, well[:len(well)-n])
		if whole := line + strings.Join(longer, separator); width(whole) <= columns {
			return whole
		}
	}
	return line + strings.Join(calls, separator)
}

// special tells what is not as usual with a dependency.
func (i Instance) special(d *shoppb.Dependency) []string {
	var special []string
	for _, open := range i.Open() {
		if rest, ok := strings.CutPrefix(open, d.GetName()+" "); ok {
			special = append(special, rest)
		}
	}
	if n := i.TurnedAway[d.GetName()]; n > 0 {
		special = append(special, fmt.Sprintf("turns away %.1f/s", n))
	}
	return special
}

// Line is the frame in one line, for what is no terminal.
func (f Frame) Line() string {
	var parts []string
	for _, c := range f.Customers {
		words := []string{fmt.Sprintf("%s %.0f/s p99 %s", c.Op, c.Read.PerSecond, short3(c.Read.P99))}
		for o, n := range c.Read.Recent {
			if n > 0 {
				words = append(words, percent(c.Read.Recent.Share(load.Outcome(o))), load.Outcome(o).String())
			}
		}
		parts = append(parts, strings.Join(words, " "))
	}
	up, connected := 0, 0
	var open, levels []string
	for _, i := range f.Instances {
		if !i.Up() {
			continue
		}
		up++
		if i.Report.GetConnected() {
			connected++
		}
		if level := i.Report.GetLevel(); level != "normal" && !strings.Contains(strings.Join(levels, " "), level) {
			levels = append(levels, level)
		}
		for _, o := range i.Open() {
			open = append(open, i.Name+": "+o)
		}
	}
	parts = append(parts, fmt.Sprintf("%d of %d instances up, %d connected", up, len(f.Instances), connected))
	if len(levels) > 0 {
		parts = append(parts, "mode "+strings.Join(levels, ", "))
	}
	if len(open) > 0 {
		parts = append(parts, strings.Join(open, ", "))
	}
	return fmt.Sprintf("%6s  ", f.Since.Truncate(time.Second)) + strings.Join(parts, " | ")
}

func pad(text string, width int) string {
	if n := utf8.RuneCountInString(text); n < width {
		return text + strings.Repeat(" ", width-n)
	}
	return text
}

// percent does not round to nothing what happened, nor to all what did not.
func percent(share float64) string {
	switch {
	case share > 0 && share < 0.01:
		return "<1 %"
	case share > 0.99 && share < 1:
		return ">99 %"
	default:
		return fmt.Sprintf("%.0f %%", share*100)
	}
}

func short3(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
