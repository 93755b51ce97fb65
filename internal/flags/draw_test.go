package flags

import (
	"encoding/json"
	"maps"
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// drawer draws rules that make sense mostly: an operator gets operands of the
// kinds that it is made for, and now and then others.
type drawer struct{ t *rapid.T }

func (d drawer) one(of ...string) string { return rapid.SampledFrom(of).Draw(d.t, "one") }

// chance is true one time in n.
func (d drawer) chance(n int) bool { return rapid.IntRange(1, n).Draw(d.t, "chance") == n }

func (d drawer) count(least, most int) int { return rapid.IntRange(least, most).Draw(d.t, "count") }

// text is a string, often one that something is special about.
func (d drawer) text() string {
	if d.chance(8) {
		return rapid.String().Draw(d.t, "text")
	}
	return d.one("", "a", "b", "abc", "x@holdfast.dev", "holdfast", "true", "false", "null", "on", "off", "0", "1", "2", "10", "-1", "1.5", " 5 ",
		"\u00a05\ufeff", "0x10", "1e3", "1_0", "Infinity", "-Infinity", "NaN", ".5", "5.", "1.2.3", "v1.2.3", "V2.0", "2", "2.0.0-alpha.1", "2.0.0-alpha.beta",
		"2.0.0+build.7", "1.2.3.4", "01.2.3", "1.2-a", "ß", "é", "e\u0301", "日本語", "😀x", "\uffff", "\U0001f600", "a,b", "[object Object]", "\x00")
}

// number is a number that a definition may hold.
func (d drawer) number() float64 {
	if d.chance(8) {
		return rapid.Float64Range(-1e6, 1e6).Draw(d.t, "number")
	}
	return rapid.SampledFrom([]float64{
		0, 1, 2, 3, -1, -2, 5, 10, 0.5, 1.5, -0.5, 3.14, 0.1, 0.2, 100, 1e-7, 1.5e-10, 0.000001, 1 << 31, math.MaxInt32, 1<<53 - 1, -(1<<53 - 1),
	}).Draw(d.t, "number")
}

// wideNumber is a number that only a context may hold. Beyond 2^53 an integer is
// another number than a float.
func (d drawer) wideNumber() any {
	return rapid.SampledFrom([]any{
		math.Copysign(0, -1), float64(1 << 53), 1e20, 1e21, 123456789012345680000.0, 1e300, -1e308, 1e100, 5e-324, math.MaxFloat64,
		float64(1 << 62), float64(1 << 63), float64(-1 << 63), float64(1 << 64),
		int64(1<<53 + 1), int64(-1<<53 - 1), int64(1 << 62), int64(math.MaxInt64), int64(math.MaxInt64 - 1), int64(math.MinInt64),
	}).Draw(d.t, "number")
}

func (d drawer) scalar() any {
	switch d.count(0, 5) {
	case 0:
		return nil
	case 1:
		return d.chance(2)
	case 2, 3:
		return d.number()
	default:
		return d.text()
	}
}

// names are the attributes of contexts and what they should be.
func names() map[string]string {
	return map[string]string{
		"email": "text", "plan": "text", "version": "text", "targetingKey": "text", "ü": "text", "s": "text", "a.b": "text",
		"age": "number", "n": "number", "m": "number", "0": "number", "admin": "bool", "b": "bool", "nul": "null",
		"texts": "texts", "numbers": "numbers", "objects": "objects", "mixed": "list", "user": "object", "$flagd": "object", "": "text",
	}
}

// context draws attributes, most of them there and of the kind that they
// should be.
func (d drawer) context() map[string]any {
	context := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(names())) {
		switch {
		case d.chance(6):
		case d.chance(12):
			context[name] = d.value(2)
		default:
			context[name] = d.attribute(names()[name])
		}
	}
	return context
}

func (d drawer) attribute(kind string) any {
	switch kind {
	case "text":
		return d.text()
	case "number":
		if d.chance(4) {
			return d.wideNumber()
		}
		return d.number()
	case "bool":
		return d.chance(2)
	case "null":
		return nil
	case "object":
		return map[string]any{"name": d.text(), "n": d.number(), "tags": d.attribute("texts"), "home": map[string]any{"city": d.text(), "zip": d.scalar()}}
	}
	list := []any{}
	for range d.count(0, 4) {
		switch kind {
		case "texts":
			list = append(list, d.text())
		case "numbers":
			list = append(list, d.number())
		case "objects":
			list = append(list, map[string]any{"name": d.text(), "n": d.number()})
		default:
			list = append(list, d.value(1))
		}
	}
	return list
}

// value draws any value, nested up to depth.
func (d drawer) value(depth int) any {
	switch {
	case depth == 0 || d.chance(2):
		return d.scalar()
	case d.chance(2):
		list := []any{}
		for range d.count(0, 3) {
			list = append(list, d.value(depth-1))
		}
		return list
	default:
		object := map[string]any{}
		for range d.count(0, 3) {
			object[d.one("name", "n", "a", "b", "", "tags")] = d.value(depth - 1)
		}
		return object
	}
}

// path draws what var looks for.
func (d drawer) path(kind string) any {
	switch {
	case d.chance(20):
		return d.scalar()
	case d.chance(6):
		return d.one("", "user", "user.home", "$flagd", "$flagd.flagKey", "$flagd.timestamp", "texts.0", "texts.00", "texts.-1", "texts.+1", "texts.1.0", "texts.length",
			"objects.0.name", "objects.1.n", "email.0", "email.length", "missing", "missing.x", ".", "n.", ".n", "..", "../n", "a\\.b", "mixed.0.name", "nul.x", "current.n",
			"user.home.zip", "user.tags.2", "0.0", "__proto__", "__proto__.x")
	}
	switch kind {
	case "text":
		return d.one("email", "plan", "version", "targetingKey", "ü", "s", "user.name", "user.home.city", "name", "accumulator", "current", "")
	case "number":
		return d.one("age", "n", "m", "0", "user.n", "numbers.0", "n", "current", "accumulator", "")
	case "bool":
		return d.one("admin", "b")
	case "list":
		return d.one("texts", "numbers", "objects", "mixed", "user.tags", "tags")
	default:
		return d.one(slices.Sorted(maps.Keys(names()))...)
	}
}

// definition draws a definition, canonical, that has a variant for the decision
// in this context, mostly.
func (d drawer) definition(key string, now int64, context map[string]any) []byte {
	flag := map[string]any{"state": "ENABLED"}
	rule := d.rule("any", d.count(1, 4))
	if _, isObject := rule.(map[string]any); isObject || d.chance(2) {
		flag["targeting"] = rule
	}
	variants := map[string]any{"a": "A", "true": "T", "1": "O"}
	n := naive{key: key, v3: d.chance(4), root: naiveRoot(key, now, context)}
	if n.v3 {
		flag["metadata"] = map[string]any{"fractional": "v3"}
	}
	if naiveCompiles(rule) && !d.chance(10) {
		variants[naiveString(n.eval(rule, n.root))] = "found"
	}
	flag["variants"] = variants
	switch d.count(0, 9) {
	case 0:
		flag["defaultVariant"] = nil
	case 1:
		flag["defaultVariant"] = ""
	case 2:
	default:
		flag["defaultVariant"] = "a"
	}
	if d.chance(40) {
		flag["state"] = "DISABLED"
	}
	return canonicalOf(d.t, flag)
}

type fatal interface{ Fatalf(string, ...any) }

func canonicalOf(t fatal, value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("%v: %v", value, err)
	}
	canonical, err := document.Canonical(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return canonical
}
