package check

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// show writes an operation as evidence.
func show(op *history.Op) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", op.Client, op.F)
	for i, c := range op.Cells {
		if i > 0 {
			b.WriteString(" and")
		}
		b.WriteString(" " + showCell(c))
	}
	fmt.Fprintf(&b, " [%s, %s]", seconds(op.Call), seconds(op.Return))
	if op.Outcome != history.OK {
		fmt.Fprintf(&b, " %s %s", op.Outcome, op.Code)
	}
	if op.Server != "" {
		fmt.Fprintf(&b, " at %s", op.Server)
	}
	if op.Revision > 0 {
		fmt.Fprintf(&b, " → %d", op.Revision)
	}
	return strings.TrimRight(b.String(), " ")
}

func showCell(c history.Cell) string {
	value := c.Value
	if c.Absent {
		value = "nothing"
	}
	text := c.Key + "=" + value
	if c.Revision > 0 {
		text += fmt.Sprintf("@%d", c.Revision)
	}
	if c.Expects {
		text += fmt.Sprintf(" if %d", c.Expect)
	}
	return text
}

// String implements fmt.Stringer.
func (v version) String() string {
	if v.absent {
		return fmt.Sprintf("nothing@%d", v.at.Revision)
	}
	return fmt.Sprintf("%s@%d", v.value, v.at.Revision)
}

// seconds writes a time of the history.
func seconds(t int64) string { return fmt.Sprintf("%.3fs", time.Duration(t).Seconds()) }

func showDecision(d *history.Decision) string {
	return fmt.Sprintf("%s at %s: %s=%s by %s@%d", d.Instance, seconds(d.T), d.Key, d.Value, d.Source, d.Revision)
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
