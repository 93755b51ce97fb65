package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints rows as they come, each column as wide as its title, which may
// carry spaces for that.
type table struct {
	out    io.Writer
	widths []int
}

func newTable(out io.Writer, titles ...string) *table {
	t := &table{out: out}
	for _, title := range titles {
		t.widths = append(t.widths, utf8.RuneCountInString(title))
	}
	t.row(titles...)
	return t
}

func (t *table) row(cells ...string) {
	var line strings.Builder
	for i, cell := range cells {
		_, _ = fmt.Fprintf(&line, "%*s  ", t.widths[i], cell)
	}
	_, _ = fmt.Fprintln(t.out, strings.TrimRight(line.String(), " "))
}
