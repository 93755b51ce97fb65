package cli

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30m": 30 * time.Minute, "2h": 2 * time.Hour, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "1.5d": 36 * time.Hour,
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0s": 0, "500ms": 500 * time.Millisecond,
	} {
		if got, err := parseDuration(s); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "30", "-5m", "1w", "d", "1dd", "1d-2h", "1d+2h", "+1h", "1e3d", "infd", "nand", "0x10d", "999999999d", "1 h", "h", "1d 2h", "106000d1000000h"} {
		if got, err := parseDuration(s); err == nil {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
}

func TestParseForHasBounds(t *testing.T) {
	for _, s := range []string{"999ms", "0s", "30d1s", "31d", "x"} {
		if _, err := parseFor(s); exitCodeOf(err) != exitUsage || !strings.Contains(err.Error(), "--for") {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"1s", "30d"} {
		if _, err := parseFor(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestHuman(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", -time.Hour: "0s", 999 * time.Millisecond: "0s", time.Second: "1s", 61 * time.Second: "1m1s", time.Hour: "1h",
		time.Hour + 5*time.Second: "1h", 49 * time.Hour: "2d1h", 30 * 24 * time.Hour: "30d",
	} {
		if got := human(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if got := humanRemaining(30*time.Minute - time.Millisecond); got != "30m" {
		t.Errorf("just under 30m: %s", got)
	}
	if got := humanRemaining(0); got != "due" {
		t.Errorf("nothing left: %s", got)
	}
	for d, want := range map[time.Duration]string{300 * time.Millisecond: "300ms", time.Microsecond: "1ms", 2 * time.Second: "2s", 0: "0s"} {
		if got := humanLimit(d); got != want {
			t.Errorf("limit %v: %s, want %s", d, got, want)
		}
	}
	if got := humanCount(1234567); got != "1,234,567" {
		t.Errorf("count: %s", got)
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
		if got := humanBytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestHumanReadsBack holds human against its own reader: at most the third unit
// and what is below it gets lost.
func TestHumanReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(maxFor)).Draw(t, "d"))
		back, err := parseDuration(human(d))
		if err != nil || back > d || d-back >= max(time.Second, d/20) {
			t.Fatalf("%v reads %s, which is %v, %v", d, human(d), back, err)
		}
	})
}

func TestDidYouMean(t *testing.T) {
	names := []string{"read-only", "cache-only", "basic", "offline"}
	for typed, want := range map[string]string{
		"readonly": `did you mean "read-only"?`, "READ-ONLY": `did you mean "read-only"?`, "baisc": `did you mean "basic"?`,
		"cache": `did you mean "cache-only"?`, "zzz": "", "": "",
	} {
		if got := didYouMean(typed, names); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}

// TestDistanceLaws compares with what a distance has to be.
func TestDistanceLaws(t *testing.T) {
	word := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		limit := rapid.IntRange(0, 10).Draw(t, "limit")
		far := distance(a, b, 100)
		if far != distance(b, a, 100) || (far == 0) != (a == b) || far > max(len(a), len(b)) {
			t.Fatalf("distance of %q and %q is %d, back %d", a, b, far, distance(b, a, 100))
		}
		if got := distance(a, b, limit); got != min(far, limit+1) {
			t.Fatalf("distance of %q and %q up to %d is %d, without limit %d", a, b, limit, got, far)
		}
	})
}

// TestDiffRebuildsBothSides checks the law of a diff: without the added lines it
// is the text before, without the removed ones the text after.
func TestDiffRebuildsBothSides(t *testing.T) {
	text := rapid.SliceOfN(rapid.StringMatching("[ab]"), 0, 12)
	rapid.Check(t, func(t *rapid.T) {
		before, after := text.Draw(t, "before"), text.Draw(t, "after")
		var x, y []string
		for _, l := range diffLines(before, after) {
			if l.op != '+' {
				x = append(x, l.text)
			}
			if l.op != '-' {
				y = append(y, l.text)
			}
		}
		if strings.Join(x, "\n") != strings.Join(before, "\n") || strings.Join(y, "\n") != strings.Join(after, "\n") {
			t.Fatalf("%q to %q: %v", before, after, diffLines(before, after))
		}
	})
}

func TestDiffShowsContext(t *testing.T) {
	before := strings.Split("a b c d e f g h i j", " ")
	after := strings.Split("a b c d e F g h i j", " ")
	var b strings.Builder
	palette{}.diff(&b, diffLines(before, after))
	want := "  ...\n  c\n  d\n  e\n- f\n+ F\n  g\n  h\n  i\n  ...\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestDiffOfHugeTextsIsBounded(t *testing.T) {
	var before, after []string
	for range 5000 {
		before, after = append(before, "x"), append(after, "y")
	}
	if got := len(diffLines(before, after)); got != 10000 {
		t.Errorf("%d lines", got)
	}
}

func TestTableAlignsAndNeverBreaksTheTerminal(t *testing.T) {
	tb := table{}
	tb.row("NAME", "REASON")
	tb.row("ä", "x\x1b[31m\ny")
	tb.row("longer", "")
	var b strings.Builder
	if err := tb.write(&b); err != nil {
		t.Fatal(err)
	}
	if want := "NAME    REASON\nä       x\uFFFD[31m y\nlonger\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestShellQuote(t *testing.T) {
	for s, want := range map[string]string{"storefront": "storefront", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "zone=eu-1": "zone=eu-1"} {
		if got := shellQuote(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

func TestParseAddresses(t *testing.T) {
	for list, want := range map[string]string{
		"a": "a:7400", "a:1, b:2,": "a:1 b:2", "::1": "[::1]:7400", "[::1]": "[::1]:7400", "[::1]:5": "[::1]:5", "10.0.0.1": "10.0.0.1:7400",
	} {
		got, err := parseAddresses(list)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %v, %v; want %s", list, got, err, want)
		}
	}
	for _, list := range []string{"", ",", "http://a", "a:b:c", "a b", "a:"} {
		if got, err := parseAddresses(list); exitCodeOf(err) != exitUsage {
			t.Errorf("%q: %v, %v; want an error", list, got, err)
		}
	}
}

func TestOverrideNames(t *testing.T) {
	half := 50.0
	full := 100.0
	for _, test := range []struct {
		spec overrideSpec
		want string
	}{
		{overrideSpec{Mode: "storefront"}, `^mode-storefront$`},
		{overrideSpec{Mode: "storefront", Scope: &scopeSpec{Percent: &full}}, `^mode-storefront$`},
		{overrideSpec{Mode: "storefront", Scope: &scopeSpec{Percent: &half}}, `^mode-storefront-[0-9a-f]{8}$`},
		{overrideSpec{Breaker: "payments", Method: "/a.B/C"}, `^breaker-payments-[0-9a-f]{8}$`},
		{overrideSpec{Flag: strings.Repeat("ä", 150)}, `^flag-ä{97}-[0-9a-f]{8}$`},
	} {
		if got := test.spec.name(); !match(t, test.want, got) {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
	a := overrideSpec{Mode: "m", Scope: &scopeSpec{Selector: "zone in (b,a), service=x"}}
	b := overrideSpec{Mode: "m", Scope: &scopeSpec{Selector: "service=x,zone in (a,b)"}}
	if a.name() != b.name() || !a.same(&b) {
		t.Errorf("equal scopes have different names: %s, %s", a.name(), b.name())
	}
}

func TestExitCodesAreDocumentedOnce(t *testing.T) {
	last := -1
	for _, row := range ExitCodes() {
		if row.Code <= last || row.Name == "" || row.Meaning == "" {
			t.Errorf("row %+v after %d", row, last)
		}
		last = row.Code
	}
	for c := range codes.Code(17) {
		if code := statusExit(c); !documented(code) {
			t.Errorf("%v exits with %d, which is not documented", c, code)
		}
	}
}

func documented(code int) bool {
	for _, row := range ExitCodes() {
		if row.Code == code {
			return true
		}
	}
	return false
}

func match(t *testing.T, pattern, s string) bool {
	t.Helper()
	ok, err := regexp.MatchString(pattern, s)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}
