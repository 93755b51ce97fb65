package flags

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// allOperators are all that the language has.
func allOperators() []string {
	return strings.Fields(`var if and or == === != !== < <= > >= map filter reduce all none some missing missing_some ! !! + - * / % max min merge in cat substr
		starts_with ends_with sem_ver fractional`)
}

// combinations are all lists of so many of the values.
func combinations(values []any, size int) [][]any {
	if size == 0 {
		return [][]any{{}}
	}
	var all [][]any
	for _, rest := range combinations(values, size-1) {
		for _, value := range values {
			all = append(all, append(append([]any{}, rest...), value))
		}
	}
	return all
}

// TestEveryOperatorAgrees gives every operator every value in every place: as
// attributes, as a list that takes the place of the operands, and as literals.
func TestEveryOperatorAgrees(t *testing.T) {
	some := []any{nil, true, -2.0, 1.5, "a", "1.5", []any{"b", 1.0}}
	more := append([]any{
		false, 0.0, 1.0, "", "true",
		[]any{},
		math.Copysign(0, -1), 1e21, 1e-7, 1e308, int64(1<<53 + 1), float64(1 << 53), "abc", "ß", " 2 ", "0x10", "-Infinity", "x", "2.0.0", "v1", "^", ">",
		[]any{"a"},
		[]any{[]any{"a", 1.0}, nil},
		[]any{[]any{"a", 1.0}, 2.0},
		[]any{"a", 1.5},
		[]any{"a", -1e19},
		[]any{[]any{"a"}, []any{"b", 2.0}},
		map[string]any{},
		map[string]any{"a": 1.5, "x": nil},
	}, some...)
	for _, name := range allOperators() {
		t.Run(name, func(t *testing.T) {
			everyCombination(t, name, more, 0)
			everyCombination(t, name, more, 1)
			everyCombination(t, name, more, 2)
			everyCombination(t, name, some, 3)
		})
	}
}

// TestTextsAsNumbersAgree reads texts as numbers, and writes numbers as texts.
func TestTextsAsNumbersAgree(t *testing.T) {
	var contexts []map[string]any
	for _, text := range []string{
		"", " ", "0", "-0", "+1", "-1", "--1", "+-1", "- 1", "1.", ".1", ".", "-.5", "1e3", "1E-3", "1e", "e1", "1e+", "1e+2", "1e-+2", "1e400", "-1e400", "1e-400",
		"0x1F", "0XaF", "0xg", "0x/", "0x:", "0x@", "0xG", "0x`", "0x", "-0x1", "0b102", "0b11", "0o17", "0o8", "0O7", "0B1", "0x1.8", "0x1p4", "0xfffffffffffffffff",
		"0x20000000000001", "0x20000000000003", "0x" + strings.Repeat("f", 300), "1_000", "1,000", "1n", "١", "Infinity", "+Infinity", "-Infinity", "infinity", "Inf", "NaN",
		"\t\n\v\f\r 1", "1\u00a0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000\ufeff", "\u200b1", "\u180e1", "\u00851", "1 2", "00012", "1\x00",
		"9007199254740993", "0.1", "123456789012345680000", "1e21", "999999999999999934463", "0.000001", "0.0000001", "1.5e-10", "5e-324", "2e-324", "1.7976931348623159e308",
		"1e100", "1.5e200", "1e-100", strings.Repeat("9", 400), "0." + strings.Repeat("3", 400),
	} {
		contexts = append(contexts, map[string]any{"x": text})
	}
	x := map[string]any{"var": "x"}
	agreeAll(t, map[string]any{"+": []any{x}}, contexts)
	agreeAll(t, map[string]any{"cat": []any{map[string]any{"==": []any{x, 1}}, map[string]any{"<": []any{x, 1}}, map[string]any{"*": []any{x, 1.1}}}}, contexts)
	for _, context := range contexts {
		agreeAll(t, map[string]any{"+": []any{context["x"]}}, contexts[:1])
	}
}

func everyCombination(t *testing.T, name string, values []any, size int) {
	t.Helper()
	vars := []any{}
	for i := range size {
		vars = append(vars, map[string]any{"var": strconv.Itoa(i)})
	}
	list := combinations(values, size)
	contexts := make([]map[string]any, len(list))
	for i, operands := range list {
		contexts[i] = map[string]any{"all": operands, TargetingKey: "u"}
		for j, operand := range operands {
			contexts[i][strconv.Itoa(j)] = operand
		}
	}
	agreeAll(t, map[string]any{name: vars}, contexts)
	agreeAll(t, map[string]any{name: map[string]any{"var": "all"}}, contexts)
	if size == 1 {
		agreeAll(t, map[string]any{name: vars[0]}, contexts)
	}
	for i, operands := range list {
		if size < 3 && literal(operands) {
			agreeAll(t, map[string]any{name: operands}, contexts[i:i+1])
			if size == 1 {
				agreeAll(t, map[string]any{name: operands[0]}, contexts[i:i+1])
			}
		}
	}
}

// literal tells whether a definition can hold a value.
func literal(value any) bool {
	switch x := value.(type) {
	case float64:
		return math.Abs(x) < 1<<53
	case int64:
		return false
	case []any:
		for _, element := range x {
			if !literal(element) {
				return false
			}
		}
	}
	return true
}

// agreeAll compares both evaluators for one rule, with a variant for each result
// that there is.
func agreeAll(t *testing.T, rule any, contexts []map[string]any) {
	t.Helper()
	variants := map[string]any{"default": 1}
	if naiveCompiles(rule) {
		for _, context := range contexts {
			n := naive{key: oracleKey, root: naiveRoot(oracleKey, oracleNow, context)}
			if result := n.eval(rule, n.root); result != nil {
				variants[naiveString(result)] = 2
			}
		}
	}
	spec := canonicalOf(t, map[string]any{"state": "ENABLED", "defaultVariant": "default", "variants": variants, "targeting": rule})
	flag, _ := Compile(oracleKey, spec)
	definition := naiveRead(spec)
	random := rand.New(rand.NewPCG(1, 1))
	for _, context := range contexts {
		want := naiveDecide(nil, definition, oracleKey, oracleNow, context)
		if got := decisionOf(flag.Evaluate(oracleNow, attributesOf(context, random)...)); got != want {
			t.Errorf("rule %s\ncontext %s\nevaluated %s\nnaive     %s", jsonOf(rule), jsonOf(context), got, want)
		}
	}
}
