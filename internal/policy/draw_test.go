package policy

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/schema"
)

// bounds returns the ends of a documented range.
func bounds(t rapid.TB, span string) (least, most string) {
	t.Helper()
	least, most, ok := strings.Cut(span, " to ")
	if !ok {
		t.Fatalf("%q is no range", span)
	}
	return least, most
}

func parsed[T any](t rapid.TB, parse func(string) (T, error), text string) T {
	t.Helper()
	x, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func float(s string) (float64, error) { return strconv.ParseFloat(s, 64) }

// object draws a definition, or a patch with nulls, of what the documentation of
// settings says is allowed.
func draw(t *rapid.T, settings []setting, nulls bool) map[string]any {
	object := map[string]any{}
	for _, s := range settings {
		count := rapid.IntRange(0, 1).Draw(t, "present")
		if s.name == "" {
			count *= 2
		}
		for range count {
			name := s.name
			if name == "" {
				name = rapid.SampledFrom([]string{"payment", "order_processing", "/shop.Orders/*", "/shop.Orders/Get", "a b"}).Draw(t, "call")
			}
			if nulls && rapid.IntRange(0, 4).Draw(t, "null") == 0 {
				object[name] = nil
			} else {
				object[name] = drawValue(t, s, nulls)
			}
		}
	}
	return object
}

func drawValue(t *rapid.T, s setting, nulls bool) any {
	switch {
	case s.parts != nil:
		return draw(t, s.parts(), nulls)
	case s.kind == "text" || s.kind == "name":
		return rapid.SampledFrom([]string{"a", "pay-later"}).Draw(t, "text")
	case s.kind == "boolean":
		return rapid.Bool().Draw(t, "boolean")
	case s.kind == "whole number":
		least, most := bounds(t, s.span)
		return rapid.IntRange(parsed(t, strconv.Atoi, least), parsed(t, strconv.Atoi, most)).Draw(t, "number")
	case s.kind == "number":
		least, most := bounds(t, s.span)
		return rapid.Float64Range(parsed(t, float, least), parsed(t, float, most)).Filter(representable).Draw(t, "number")
	case s.kind == "duration":
		least, most := bounds(t, s.span)
		from, to := parsed(t, time.ParseDuration, least), parsed(t, time.ParseDuration, most)
		return schema.DurationText(time.Duration(rapid.Int64Range(int64(from), int64(to)).Draw(t, "duration")))
	case s.kind == "word or number":
		return rapid.SampledFrom([]any{"none", "full", "equal", "decorrelated", 0, 0.25, 1, true, false}).Draw(t, "jitter")
	case s.kind == "word":
		return rapid.SampledFrom(strings.Split(s.span, ", ")).Draw(t, "word")
	case s.span == "reserved":
		return map[string]any{"any": []any{1, nil}}
	case s.span == "codes of gRPC":
		return rapid.SliceOfN(rapid.SampledFrom(ErrorNames()), 0, 4).Draw(t, "codes")
	case strings.HasPrefix(s.span, "up to"):
		return rapid.SampledFrom([]any{[]any{}, []any{0.5}, []any{0.1, 0.2, 0.9}}).Draw(t, "ramp")
	case strings.HasPrefix(s.span, "methods"):
		return rapid.SampledFrom([]any{[]any{}, []any{"*"}, []any{"op", "/a.B/*"}}).Draw(t, "calls")
	case s.kind == "list":
		return rapid.SliceOfN(rapid.SampledFrom(strings.Split(s.span, ", ")), 0, 3).Draw(t, "words")
	}
	t.Fatalf("%s: no way to draw a %s in %q", s.name, s.kind, s.span)
	return nil
}

// representable keeps out what the canonical form refuses.
func representable(x float64) bool { return x == 0 || x > 1e-300 }

// TestRanges holds the documented ranges against what is accepted, at both ends and
// beyond.
func TestRanges(t *testing.T) {
	p := Default()
	tried := 0
	var walk func(settings []setting, wrap func(any) any)
	walk = func(settings []setting, wrap func(any) any) {
		for _, s := range settings {
			name := s.name
			if name == "" {
				name = "some-call"
			}
			inside := func(value any) any { return wrap(map[string]any{name: value}) }
			if s.parts != nil {
				walk(s.parts(), inside)
			}
			var within, beyond []any
			switch s.kind {
			case "whole number":
				least, most := bounds(t, s.span)
				from, to := parsed(t, strconv.Atoi, least), parsed(t, strconv.Atoi, most)
				within, beyond = []any{from, to}, []any{from - 1, to + 1, float64(from) + 0.5}
			case "number":
				least, most := bounds(t, s.span)
				from, to := parsed(t, float, least), parsed(t, float, most)
				within, beyond = []any{from, to}, []any{from - 0.001, to + 0.001}
			case "duration":
				least, most := bounds(t, s.span)
				from, to := parsed(t, time.ParseDuration, least), parsed(t, time.ParseDuration, most)
				within, beyond = []any{from.String(), to.String()}, []any{(from - 1).String(), (to + 1).String()}
			}
			for _, value := range within {
				tried++
				if got := wrong(toJSON(t, inside(value)), CheckPatch); got != nil {
					t.Errorf("%s: %v is refused: %v", name, value, got)
				}
			}
			for _, value := range beyond {
				tried++
				if got := wrong(toJSON(t, inside(value)), CheckPatch); len(got) != 1 {
					t.Errorf("%s: %v: %v", name, value, got)
				}
			}
		}
	}
	walk(p.settings(), func(x any) any { return x })
	if tried < 100 {
		t.Errorf("tried only %d values", tried)
	}
}
