package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/load"
	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
)

func frame() Frame {
	return Frame{
		Since: 83*time.Second + time.Millisecond, Servers: "3 of 3 servers up",
		Customers: []Customers{
			{Op: "browse", Read: load.Reading{Total: load.Counts{load.OK: 400}, Recent: load.Counts{load.OK: 40}, PerSecond: 10, P50: 2 * time.Millisecond, P99: 1500 * time.Millisecond}},
			{Op: "checkout", LastError: "rpc error:\n no", Read: load.Reading{
				Total: load.Counts{1, 1, 0, 7}, Recent: load.Counts{load.Degraded: 997, load.Failed: 3}, PerSecond: 250,
			}},
		},
		Instances: []Instance{
			{Name: "orders-1", TurnedAway: map[string]float64{"payments": 2.5}, Report: &shoppb.ReportResponse{
				Connected: true, Server: "127.0.0.1:7400", Revision: 12, Level: "read-only", PendingPayments: 4,
				Dependencies: []*shoppb.Dependency{
					{Name: "payments", InUse: 3, Limit: 64, Breakers: []*shoppb.Breaker{{Target: "/shop.Payments/Charge", State: "open"}}},
					{Name: "server:orders"},
					{Name: "inventory", Breakers: []*shoppb.Breaker{{Target: "/shop.Inventory/Reserve", State: "closed"}}},
				},
			}},
			{Name: "payments-1", CutOff: 12345 * time.Millisecond, Report: &shoppb.ReportResponse{Source: "disk", Level: "normal", Revision: 11}},
			{Name: "payments-2", Report: &shoppb.ReportResponse{}, Err: errors.New("gone")},
		},
	}
}

func TestLines(t *testing.T) {
	want := `  Holdfast shop   1m23s   3 of 3 servers up

  customers    per s     p50      p99      ok  degraded  refused  failed  failed ever
  browse        10.0   2.0 ms    1.5 s   100 %       0 %      0 %     0 %            0
  checkout     250.0        -        -     0 %     >99 %      0 %    <1 %            7
    checkout: rpc error: no

  instance         control plane            revision  mode        what it calls
  orders-1         :7400                          12  read-only   payments Charge open, turns away 2.5/s, 3/64 · 4 payments pending · inventory ok
  payments-1       cut off 12s (view: disk)       11  normal`
	if got := strings.Join(frame().Lines(false, 200), "\n"); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "\n  payments-2       down") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for i, line := range frame().Lines(true, 200) {
		if plain := frame().Lines(false, 200)[i]; cut(line, 1000) != line || uncolored(line) != plain {
			t.Errorf("with colours\n%q\nwithout\n%q", line, plain)
		}
		if got := uncolored(cut(line, 9)); len([]rune(got)) > 9 {
			t.Errorf("cut to 9: %q", got)
		}
	}
}

// What is well gives way to what is not.
func TestNarrow(t *testing.T) {
	line := func(color bool, columns int) string { return uncolored(frame().Lines(color, columns)[8]) }
	whole := line(false, 200)
	for _, color := range []bool{false, true} {
		if got := line(color, len([]rune(whole))); got != whole {
			t.Errorf("it fits, but is %q", got)
		}
		if got := line(color, len([]rune(whole))-1); !strings.HasSuffix(got, "4 payments pending") {
			t.Errorf("too long by one: %q", got)
		}
		if got := cut(line(color, 90), 90); !strings.Contains(got, "payments Charge open") {
			t.Errorf("in 90 columns: %q", got)
		}
	}
}

// What was printed above is gone after a change of size, and may never have fitted.
func TestShowOnATerminalThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1100*time.Millisecond)
		defer cancel()
		var out strings.Builder
		asked := 0
		size := func() (int, int, bool) {
			asked++
			return 80, map[bool]int{true: 60, false: 24}[asked <= 3], true
		}
		Show(ctx, &out, size, false, Above{Lines: 30, Elsewhere: "what to try: there"}, func(context.Context) Frame { return frame() })
		before, after, changed := strings.Cut(out.String(), "\x1b[2J\x1b[H")
		if !changed || strings.Count(before, "Holdfast shop") != 2 || strings.Contains(before, "what to try") {
			t.Errorf("before the change:\n%q", before)
		}
		if !strings.HasPrefix(after, "\r\x1b[J") || !strings.HasSuffix(after, "down\nwhat to try: there\n") {
			t.Errorf("after the change:\n%q", after)
		}
	})
}

func TestHintsThatDoNotFit(t *testing.T) {
	for rows, want := range map[int]string{54: "x", 53: "try", 24: "try", 23: "try", 2: "try"} {
		lines := strings.Split(strings.Repeat("x\n", 22)+"x", "\n")
		got := Above{Lines: 30, Elsewhere: "try"}.fit(lines, 80, rows)
		if last := got[len(got)-1]; last != want || len(got) >= rows {
			t.Errorf("%d rows: %d lines, the last %q, want %q", rows, len(got), last, want)
		}
	}
}

func TestCutOffSince(t *testing.T) {
	at := time.Unix(0, 0)
	i := Instance{Name: "a"}
	for n, want := range []time.Duration{0, 0, time.Second, 2 * time.Second, 0, 0} {
		i = i.next(&shoppb.ReportResponse{Connected: n == 0 || n == 4}, at.Add(time.Duration(n)*time.Second))
		if i.CutOff != want || i.Name != "a" {
			t.Errorf("after %d s: cut off for %s, want %s", n, i.CutOff, want)
		}
	}
}

func uncolored(line string) string {
	for {
		before, rest, found := strings.Cut(line, "\x1b[")
		if !found {
			return line
		}
		_, after, _ := strings.Cut(rest, "m")
		line = before + after
	}
}

func TestLine(t *testing.T) {
	want := " 1m23s  browse 10/s p99 1.5 s 100 % ok | checkout 250/s p99 - >99 % degraded <1 % failed | " +
		"2 of 3 instances up, 1 connected | mode read-only | orders-1: payments Charge open"
	if got := frame().Line(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A terminal is redrawn in place and never scrolls; elsewhere each picture is one
// line.
func TestShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		show := func(terminal bool, span time.Duration) string {
			ctx, cancel := context.WithTimeout(t.Context(), span)
			defer cancel()
			var out strings.Builder
			Show(ctx, &out, func() (int, int, bool) { return 40, 6, terminal }, false, Above{}, func(context.Context) Frame { return frame() })
			return out.String()
		}
		on := show(true, 1100*time.Millisecond)
		if got := strings.Count(on, "\x1b[5A"); got != 2 || strings.Count(on, "\n") != 15 {
			t.Errorf("3 pictures of 5 lines go back %d times:\n%q", got, on)
		}
		for line := range strings.Lines(on) {
			if len([]rune(uncolored(strings.TrimRight(line, "\n")))) > 40+len("\x1b[5A\r\x1b[J") {
				t.Errorf("too wide: %q", line)
			}
		}
		if off := show(false, 11*time.Second); strings.Count(off, "\n") != 3 || strings.Contains(off, "\x1b") {
			t.Errorf("11 s without a terminal:\n%s", off)
		}
	})
}

func TestTurnedAway(t *testing.T) {
	report := &shoppb.ReportResponse{Dependencies: []*shoppb.Dependency{{Name: "orders", Breakers: []*shoppb.Breaker{
		{Target: "/shop.Orders/Place", Rejected: 3, CrowdedOut: 4}, {Target: "/shop.Orders/Quote", CrowdedOut: 1},
	}}}}
	if got := turnedAway(report)["orders"]; got != 8 {
		t.Errorf("turned away %d, want 8", got)
	}
}
