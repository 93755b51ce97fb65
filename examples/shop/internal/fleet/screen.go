package fleet

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// How often a picture is shown, on a terminal and elsewhere.
const (
	redrawEvery = 500 * time.Millisecond
	lineEvery   = 5 * time.Second
)

// Size returns the columns and rows of a terminal; false where there is none.
type Size func() (columns, rows int, ok bool)

// Above is what was printed before the first frame.
type Above struct {
	// Lines is how many lines it has.
	Lines int
	// Elsewhere says where to read it when the terminal cannot hold it; empty where
	// that is not worth a line.
	Elsewhere string
}

// Show shows frames until ctx ends: in place on a terminal, otherwise as a line
// now and then.
func Show(ctx context.Context, out io.Writer, size Size, color bool, above Above, look func(context.Context) Frame) {
	columns, rows, terminal := size()
	every := lineEvery
	if terminal {
		every = redrawEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	drawn := 0
	for {
		frame := look(ctx)
		if ctx.Err() != nil {
			return
		}
		if c, r, ok := size(); terminal && ok {
			if c != columns || r != rows {
				// What was drawn may be wrapped now: nobody knows how far up it begins.
				columns, rows, drawn, above.Lines = c, r, 0, r
				_, _ = io.WriteString(out, "\x1b[2J\x1b[H")
			}
			lines := above.fit(frame.Lines(color, columns), columns, rows)
			_, _ = io.WriteString(out, redraw(drawn, lines))
			drawn = len(lines)
		} else {
			_, _ = fmt.Fprintln(out, frame.Line())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// fit cuts lines to what the terminal can hold without scrolling or wrapping, and
// adds where to read what they push out of it.
func (a Above) fit(lines []string, columns, rows int) []string {
	keep := max(1, rows-1)
	if a.Elsewhere != "" && a.Lines+len(lines) > keep {
		lines = append(lines[:min(len(lines), keep-1)], a.Elsewhere)
	} else {
		lines = lines[:min(len(lines), keep)]
	}
	for i, line := range lines {
		lines[i] = cut(line, columns)
	}
	return lines
}

// width is how many columns a line takes, codes for colours aside.
func width(line string) int {
	n, code := 0, false
	for _, r := range line {
		switch {
		case r == '\x1b':
			code = true
		case code:
			code = r != 'm'
		default:
			n++
		}
	}
	return n
}

// cut shortens a line to a width, codes for colours aside.
func cut(line string, width int) string {
	var b strings.Builder
	seen, code := 0, false
	for _, r := range line {
		switch {
		case r == '\x1b':
			code = true
		case code:
			code = r != 'm'
		case seen >= width:
			continue
		default:
			seen++
		}
		b.WriteRune(r)
	}
	return b.String()
}

// redraw writes lines over those that were drawn before.
func redraw(drawn int, lines []string) string {
	var b strings.Builder
	if drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", drawn)
	}
	b.WriteString("\r\x1b[J")
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	return b.String()
}
