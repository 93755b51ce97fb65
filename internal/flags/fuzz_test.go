package flags

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// FuzzCompile compiles any bytes, which may also be no canonical JSON.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"defaultVariant":"off","state":"ENABLED","targeting":{"if":[{"ends_with":[{"var":"email"},"@x"]},"on"]},"variants":{"off":false,"on":true}}`))
	f.Add([]byte(`{"state":"ENABLED","targeting":{"fractional":[["a",1e9],["b",{"inn":[]}]]},"variants":{"a":1}}`))
	f.Fuzz(func(t *testing.T, spec []byte) {
		flag, violations := Compile(oracleKey, spec)
		if flag == nil || flag.Key() != oracleKey {
			t.Fatalf("%q: no flag, or the wrong one", spec)
		}
		if len(violations) > schema.MaxViolations {
			t.Fatalf("%q: %d violations", spec, len(violations))
		}
		for _, v := range violations {
			if strings.TrimSpace(v.Message) == "" || !utf8.ValidString(v.String()) {
				t.Fatalf("%q: violation %q", spec, v)
			}
		}
		decision := decisionOf(flag.Evaluate(oracleNow, Attribute{TargetingKey, String("u")}, Attribute{"email", String("a@x")}))
		if (decision.reason == Error) != (decision.code != NoError) || decision.reason == Error && decision.named {
			t.Fatalf("%q: %s", spec, decision)
		}
		if decision.code == ParseError && len(violations) == 0 {
			t.Fatalf("%q: no violation, and yet %s", spec, decision)
		}
		canonical, err := document.Canonical(spec)
		if err != nil {
			if len(violations) == 0 {
				t.Fatalf("%q: no violation, and yet %v", spec, err)
			}
			return
		}
		again, violationsAgain := Compile(oracleKey, canonical)
		got := decisionOf(again.Evaluate(oracleNow, Attribute{TargetingKey, String("u")}, Attribute{"email", String("a@x")}))
		if got != decision || !reflect.DeepEqual(violations, violationsAgain) {
			t.Fatalf("%q: %s and %v, but canonical %s and %v", spec, decision, violations, got, violationsAgain)
		}
	})
}

// FuzzEvaluate compares both evaluators.
func FuzzEvaluate(f *testing.F) {
	f.Add(`{"if":[{"ends_with":[{"var":"email"},"@x"]},"on","off"]}`, `{"email":"a@x"}`, uint64(1))
	f.Add(`{"fractional":[{"cat":[{"var":"$flagd.flagKey"},{"var":"user.id"}]},["on",50],["off",50]]}`, `{"user":{"id":7}}`, uint64(2))
	f.Add(`{"reduce":[{"map":[[1,2,3],{"*":[{"var":""},2]}]},{"+":[{"var":"current"},{"var":"accumulator"}]},0]}`, `{}`, uint64(3))
	f.Fuzz(func(t *testing.T, rule, context string, seed uint64) {
		spec, err := document.Canonical(fmt.Appendf(nil,
			`{"defaultVariant":"off","state":"ENABLED","targeting":%s,"variants":{"off":"0","on":"1","true":"2","1":"3","2,4":"4","":"5"}}`, rule))
		if err != nil {
			t.Skip("no JSON")
		}
		attributes, err := ParseAttributes([]byte(context))
		if err != nil {
			t.Skip("no context")
		}
		seen := contextOf(attributes)
		if !naiveCan(spec, seen) {
			t.Skip("more than the naive evaluator can do")
		}
		flag, _ := Compile(oracleKey, spec)
		compare(t, flag, spec, seen, attributes)
		compare(t, flag, spec, seen, attributesOf(seen, rand.New(rand.NewPCG(seed, 0))))
	})
}

// naiveCan tells whether the naive evaluator can decide in reasonable time. What
// it can, the real one must be able to.
func naiveCan(spec []byte, context map[string]any) (can bool) {
	defer func() {
		switch failure := recover().(type) {
		case nil, naiveTooMuch:
		default:
			panic(failure)
		}
	}()
	work := 1 << 14
	naiveDecide(&work, naiveRead(spec), oracleKey, oracleNow, context)
	return true
}

// FuzzSemver compares both evaluators for sem_ver, with operands that are known
// when the rule is compiled, and that are not.
func FuzzSemver(f *testing.F) {
	for _, op := range []string{"=", "!=", "<", "<=", ">", ">=", "^", "~"} {
		f.Add("1.2.3", op, "v1.2.4-rc.1+build")
	}
	f.Fuzz(func(t *testing.T, a, op, b string) {
		if !utf8.ValidString(a + "|" + op + "|" + b) {
			t.Skip("no JSON")
		}
		context := map[string]any{"a": a, "op": op, "b": b}
		attributes := []Attribute{{"a", String(a)}, {"op", String(op)}, {"b", String(b)}}
		v := func(name string) any { return map[string]any{"var": name} }
		for _, operands := range [][]any{{v("a"), v("op"), v("b")}, {v("a"), op, b}, {a, op, v("b")}, {a, op, b}} {
			spec := canonicalOf(t, map[string]any{
				"state": "ENABLED", "variants": map[string]any{"true": true, "false": false}, "targeting": map[string]any{"sem_ver": operands},
			})
			flag, _ := Compile(oracleKey, spec)
			compare(t, flag, spec, context, attributes)
		}
	})
}

// FuzzFractional compares both evaluators for fractional, of both versions, with
// buckets that are known when the rule is compiled, and that are not.
func FuzzFractional(f *testing.F) {
	f.Add("key", "user-1", int64(50), int64(50), 0.5)
	f.Fuzz(func(t *testing.T, seed, targetingKey string, weight1, weight2 int64, number float64) {
		const most = document.MaxInteger
		if !utf8.ValidString(seed+"|"+targetingKey) || weight1 < -most || weight1 > most || weight2 < -most || weight2 > most || number != number || number-number != 0 {
			t.Skip("no JSON")
		}
		context := map[string]any{TargetingKey: targetingKey, "seed": seed, "weight": float64(weight1), "number": number}
		context["object"] = map[string]any{seed: number, targetingKey: []any{weight1, nil, true}, "": map[string]any{}}
		v := func(name string) any { return map[string]any{"var": name} }
		// So many buckets that a wrong hash hits another one.
		many, variants := []any{}, map[string]any{"a": 1, "b": 2, "c": 3}
		for i := range 64 {
			name := fmt.Sprint(i)
			many, variants[name] = append(many, []any{name}), i
		}
		for _, operands := range [][]any{
			{[]any{"a", weight1}, []any{"b", weight2}},
			{v("seed"), []any{"a", v("weight")}, []any{"b", weight2}, []any{"c"}},
			{seed, []any{"a", weight1}, []any{"b", weight2}},
			many,
			append([]any{v("number")}, many...),
			append([]any{v("seed")}, many...),
			append([]any{map[string]any{"cat": []any{v("seed"), "-", v(TargetingKey)}}}, many...),
			append([]any{v("object")}, many...),
		} {
			for _, version := range []string{"v2", "v3"} {
				spec := canonicalOf(t, map[string]any{
					"state": "ENABLED", "variants": variants, "targeting": map[string]any{"fractional": operands},
					"metadata": map[string]any{"fractional": version},
				})
				flag, _ := Compile(oracleKey, spec)
				compare(t, flag, spec, context, attributesOf(context, rand.New(rand.NewPCG(1, 1))))
			}
		}
	})
}

// FuzzParseAttributes reads attributes and writes them, beside encoding/json and
// the canonical form.
func FuzzParseAttributes(f *testing.F) {
	f.Add([]byte(`{"b":[1,2.5,-0,1e300,9007199254740993,"\u00e9\ud83d\ude00"],"a":{"x":null,"":true}}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		canonical, refused := document.Canonical(text)
		attributes, err := ParseAttributes(text)
		if err != nil {
			if refused == nil && canonical[0] == '{' {
				t.Fatalf("%q is canonical %s, but: %v", text, canonical, err)
			}
			return
		}
		for i := range attributes[min(1, len(attributes)):] {
			if attributes[i].Key >= attributes[i+1].Key {
				t.Fatalf("%q: keys %q and %q", text, attributes[i].Key, attributes[i+1].Key)
			}
		}
		written := Object(attributes...).AppendJSON(nil)
		if refused == nil && !bytes.Equal(written, canonical) {
			t.Fatalf("%q is written %s, canonical %s", text, written, canonical)
		}
		var was, is any
		if err := json.Unmarshal(text, &was); err != nil {
			t.Fatalf("%q is read, but: %v", text, err)
		}
		if err := json.Unmarshal(written, &is); err != nil || !reflect.DeepEqual(was, is) {
			t.Fatalf("%q became %s, %v", text, written, err)
		}
		again, err := ParseAttributes(written)
		if err != nil || !bytes.Equal(Object(again...).AppendJSON(nil), written) {
			t.Fatalf("%q became %s, which is read as %s, %v", text, written, Object(again...).AppendJSON(nil), err)
		}
	})
}
