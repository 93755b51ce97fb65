package report

import (
	"fmt"
	"html"
	"html/template"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Measures of the drawing, in its own units.
const (
	width, margin, rowHeight = 1200.0, 170.0, 16.0
	bins                     = 200 // pieces of time in which operations are counted
	textUp                   = 4.0
)

// Timeline draws who did what when: faults on top, then servers, clients and
// instances, one below the other on the same axis of time.
func Timeline(h *history.History, run *history.Run) template.HTML {
	end := max(run.Ended, run.Settled, run.Healed)
	if run.Began == 0 || end <= run.Began {
		return "<p>The run has no times to draw.</p>"
	}
	d := &drawing{from: run.Began, to: end}
	d.faults(h)
	d.servers(h)
	d.clients(h)
	d.instances(h)
	return d.finish(run)
}

type drawing struct {
	from, to int64
	row      int
	body     strings.Builder
}

func (d *drawing) x(t int64) float64 {
	t = min(max(t, d.from), d.to)
	return margin + float64(t-d.from)/float64(d.to-d.from)*(width-margin)
}

func (d *drawing) y() float64 { return float64(d.row) * rowHeight }

// label begins a row.
func (d *drawing) label(text, class string) {
	d.row++
	_, _ = fmt.Fprintf(&d.body, `<text x="%g" y="%g" class="%s" text-anchor="end">%s</text>`+"\n",
		margin-6, d.y()+rowHeight-textUp, class, html.EscapeString(text))
}

func (d *drawing) head(text string) {
	d.row++
	d.label(text, "head")
}

// bar draws a piece of time in the present row.
func (d *drawing) bar(from, to int64, class, title string) {
	if to < d.from || from > d.to {
		return
	}
	left, right := d.x(from), d.x(to)
	_, _ = fmt.Fprintf(&d.body, `<rect x="%.1f" y="%.1f" width="%.1f" height="%g" class="%s"><title>%s</title></rect>`+"\n",
		left, d.y()+2, max(right-left, 1.5), rowHeight-4, class, html.EscapeString(title))
}

func (d *drawing) seconds(t int64) float64 { return float64(t-d.from) / 1e9 }

func (d *drawing) finish(run *history.Run) template.HTML {
	height := d.y() + 3*rowHeight
	var out strings.Builder
	_, _ = fmt.Fprintf(&out, `<svg viewBox="0 0 %g %g" xmlns="http://www.w3.org/2000/svg" role="img">`+"\n", width+10, height)
	for _, mark := range []struct {
		t    int64
		what string
	}{{run.Healed, "healed"}, {run.Settled, "settled"}} {
		if mark.t > 0 {
			_, _ = fmt.Fprintf(&out, `<line x1="%.1f" x2="%.1f" y1="0" y2="%g" class="mark"/><text x="%.1f" y="12" class="head">%s</text>`+"\n",
				d.x(mark.t), d.x(mark.t), height, d.x(mark.t)+3, mark.what)
		}
	}
	out.WriteString(d.body.String())
	total := d.seconds(d.to)
	step := 1.0
	for total/step > 20 {
		step *= 5
	}
	for at := 0.0; at <= total; at += step {
		x := d.x(d.from + int64(at*1e9))
		_, _ = fmt.Fprintf(&out, `<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" class="axis"/><text x="%.1f" y="%g">%g s</text>`+"\n",
			x, x, rowHeight, height-2*rowHeight, x, height-rowHeight, at)
	}
	out.WriteString("</svg>\n")
	return template.HTML(out.String()) //nolint:gosec // what comes from outside has been escaped
}

func (d *drawing) faults(h *history.History) {
	type life struct{ steps []history.Fault }
	lives := make(map[int]*life)
	var order []int
	for _, f := range h.Faults {
		if f.Event == history.FaultSkipped {
			continue
		}
		if lives[f.ID] == nil {
			lives[f.ID] = &life{}
			order = append(order, f.ID)
		}
		lives[f.ID].steps = append(lives[f.ID].steps, f)
	}
	d.head("faults")
	rows := make(map[string][]*life)
	var named []string
	for _, id := range order {
		name := lives[id].steps[0].Name
		if rows[name] == nil {
			named = append(named, name)
		}
		rows[name] = append(rows[name], lives[id])
	}
	for _, name := range named {
		d.label(name, "name")
		for _, l := range rows[name] {
			first, last := l.steps[0], l.steps[len(l.steps)-1]
			class, proof := "fault", ""
			for _, step := range l.steps {
				if step.Event == history.FaultToothless {
					class = "bad"
				}
				if step.Proof != "" {
					proof += "\n" + step.Event + ": " + step.Proof
				}
			}
			d.bar(first.T, last.T, class, fmt.Sprintf("%s of %s, %.2f–%.2f s%s", name,
				strings.Join(first.Targets, ", "), d.seconds(first.T), d.seconds(last.T), proof))
		}
	}
}

func (d *drawing) servers(h *history.History) {
	d.head("servers")
	for _, id := range h.Run.Servers {
		d.label(id, "name")
		at, state := d.from, "up"
		for _, s := range h.Servers {
			if s.ID != id {
				continue
			}
			next := state
			switch s.Event {
			case history.ProcessStart, history.ProcessResume:
				next = "up"
			case history.ProcessPause:
				next = "paused"
			case history.ProcessExit:
				next = "down"
			}
			if next != state {
				d.bar(at, s.T, state, state)
				at, state = s.T, next
			}
		}
		d.bar(at, d.to, state, state)
		var led int64
		var term uint64
		for _, l := range h.Leads {
			if l.Server != id {
				continue
			}
			if led > 0 {
				d.bar(led, l.T, "leads", fmt.Sprintf("leads term %d", term))
			}
			if led = 0; l.Leads {
				led, term = l.T, l.Term
			}
		}
		if led > 0 {
			d.bar(led, d.to, "leads", fmt.Sprintf("leads term %d", term))
		}
	}
}

// clients shows per piece of time whether operations that ended in it, or went on all
// through it, were answered.
func (d *drawing) clients(h *history.History) {
	type bin struct{ good, bad, waiting int }
	rows := make(map[string]*[bins]bin)
	var order []string
	for i := range h.Ops {
		op := &h.Ops[i]
		who := op.Client
		if i := strings.LastIndexByte(who, '.'); i > 0 {
			who = who[:i] // the name before it was changed after unknown outcomes
		}
		if rows[who] == nil {
			rows[who] = new([bins]bin)
			order = append(order, who)
		}
		last := d.bin(op.Return)
		for b := d.bin(op.Call); b < last; b++ {
			rows[who][b].waiting++
		}
		// A condition that does not hold is an answer as good as any.
		if op.Outcome == history.OK || op.Code == history.CodeMismatch || op.Code == history.CodeNotFound {
			rows[who][last].good++
		} else {
			rows[who][last].bad++
		}
	}
	slices.Sort(order)
	d.head("clients")
	for _, who := range order {
		d.label(who, "name")
		for b, n := range rows[who] {
			class := ""
			switch {
			case n.good > 0 && n.bad == 0:
				class = "good"
			case n.good > 0:
				class = "mixed"
			case n.bad > 0:
				class = "bad"
			case n.waiting > 0:
				class = "waiting"
			}
			if class != "" {
				from := d.from + int64(b)*(d.to-d.from)/bins
				d.bar(from, from+(d.to-d.from)/bins, class, fmt.Sprintf("%s at %.1f s: %d answered, %d not, %d waiting", who, d.seconds(from), n.good, n.bad, n.waiting))
			}
		}
	}
}

func (d *drawing) bin(t int64) int {
	return int(min(max(t-d.from, 0)*bins/(d.to-d.from), bins-1))
}

func (d *drawing) instances(h *history.History) {
	d.head("instances")
	for _, id := range h.Run.Instances {
		d.label(id, "name")
		var from, until int64
		var class string
		flush := func() {
			if class != "" {
				d.bar(from, until, class, class+" "+fmt.Sprintf("%.2f–%.2f s", d.seconds(from), d.seconds(until)))
			}
		}
		for i := range h.Decisions {
			dec := &h.Decisions[i]
			if dec.Instance != id {
				continue
			}
			now := dec.Source
			switch {
			case dec.Err != "":
				now = "bad"
			case dec.Connected && !dec.Stale:
				now = "connected"
			case dec.Stale:
				now = "stale"
			case now == "":
				now = "cutoff"
			}
			if now != class || dec.T > until+int64(5e8) {
				flush()
				from, class = dec.T, now
			}
			until = max(until, dec.Until)
		}
		flush()
	}
}
