package cli

import (
	"io"
	"slices"
	"strings"
)

const (
	// diffContext is how many equal lines surround a difference.
	diffContext = 3
	// maxDiffCells bounds the table of the line diff; beyond it the middle is
	// shown as removed and added as a whole.
	maxDiffCells = 4 << 20
)

// diffLine is a line of a diff: op is ' ', '-' or '+'.
type diffLine struct {
	op   byte
	text string
}

// diffLines returns a shortest line diff of two texts.
func diffLines(before, after []string) []diffLine {
	head := 0
	for head < len(before) && head < len(after) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < len(before)-head && tail < len(after)-head &&
		before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	var out []diffLine
	for _, line := range before[:head] {
		out = append(out, diffLine{' ', line})
	}
	out = append(out, diffMiddle(before[head:len(before)-tail], after[head:len(after)-tail])...)
	for _, line := range before[len(before)-tail:] {
		out = append(out, diffLine{' ', line})
	}
	return out
}

// diffMiddle is diffLines by the longest common subsequence.
func diffMiddle(a, b []string) []diffLine {
	var out []diffLine
	if len(a)*len(b) > maxDiffCells {
		for _, line := range a {
			out = append(out, diffLine{'-', line})
		}
		for _, line := range b {
			out = append(out, diffLine{'+', line})
		}
		return out
	}
	width := len(b) + 1
	common := make([]int32, (len(a)+1)*width)
	for i, left := range slices.Backward(a) {
		for j, right := range slices.Backward(b) {
			if left == right {
				common[i*width+j] = common[(i+1)*width+j+1] + 1
			} else {
				common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, diffLine{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[(i+1)*width+j] >= common[i*width+j+1]):
			out = append(out, diffLine{'-', a[i]})
			i++
		default:
			out = append(out, diffLine{'+', b[j]})
			j++
		}
	}
	return out
}

// diff writes a diff with its context; stretches left out are marked.
func (p palette) diff(w io.Writer, lines []diffLine) {
	shown := make([]bool, len(lines))
	for i, l := range lines {
		if l.op == ' ' {
			continue
		}
		for k := max(0, i-diffContext); k <= min(len(lines)-1, i+diffContext); k++ {
			shown[k] = true
		}
	}
	for i, l := range lines {
		if !shown[i] {
			if i == 0 || shown[i-1] {
				writef(w, "%s\n", p.dim("  ..."))
			}
			continue
		}
		text := string(l.op) + " " + printable(l.text)
		switch l.op {
		case '-':
			text = p.red(text)
		case '+':
			text = p.green(text)
		}
		writef(w, "%s\n", text)
	}
}

// splitLines cuts a text into lines without their ends.
func splitLines(s string) []string {
	s = strings.TrimSuffix(s, "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}
