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

// Show shows frames until ctx ends: in place on a terminal, otherwise as a line
// now and then.
func Show(ctx context.Context, out io.Writer, size Size, color bool, look func(context.Context) Frame) {
	_, _, terminal := size()
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
		if columns, rows, ok := size(); terminal && ok {
			lines := fit(frame.Lines(color), columns, rows)
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

// fit cuts lines to what the terminal can hold without scrolling or wrapping.
func fit(lines []string, columns, rows int) []string {
	if keep := max(1, rows-1); len(lines) > keep {
		lines = lines[:keep]
	}
	for i, line := range lines {
		lines[i] = cut(line, columns)
	}
	return lines
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
