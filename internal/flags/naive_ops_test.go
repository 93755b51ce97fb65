package flags

import (
	"cmp"
	"math"
	"strings"
)

// naiveTruthy tells whether a value counts as true.
func naiveTruthy(value any) bool {
	switch x := value.(type) {
	case nil:
		return false
	case bool:
		return x
	case float64:
		return x != 0
	case int64:
		return x != 0
	case string:
		return x != ""
	case []any:
		return len(x) > 0
	case map[string]any:
		return len(x) > 0
	default:
		panic("no value")
	}
}

// naiveNumber is the number that a value stands for, or NaN.
func naiveNumber(value any) float64 {
	switch x := value.(type) {
	case nil:
		return 0
	case bool:
		if x {
			return 1
		}
		return 0
	case float64:
		return x
	case int64:
		return float64(x)
	case string:
		return naiveNumberOfText(x)
	default:
		return math.NaN()
	}
}

// naiveCompound tells whether a value is a list or an object.
func naiveCompound(value any) bool {
	switch value.(type) {
	case []any, map[string]any:
		return true
	default:
		return false
	}
}

// lazy evaluates the operators that do not need all their operands, or look at
// other data for some.
func (n naive) lazy(name string, rules []any, data any) any {
	switch name {
	case "if":
		for len(rules) > 1 {
			if naiveTruthy(n.eval(rules[0], data)) {
				return n.eval(rules[1], data)
			}
			rules = rules[2:]
		}
		return n.eval(naiveAt(rules, 0), data)
	case "and", "or":
		var last any
		for _, rule := range rules {
			last = n.eval(rule, data)
			if naiveTruthy(last) == (name == "or") {
				break
			}
		}
		return last
	case "map", "filter", "reduce", "all", "none", "some":
		return n.iterate(name, rules, data)
	default:
		return n.compareAll(name, rules, data)
	}
}

// compareAll tells whether every two neighbours compare so.
func (n naive) compareAll(name string, rules []any, data any) bool {
	if len(rules) < 2 {
		return name == "!=" || name == "!=="
	}
	for i := range rules[1:] {
		if !naiveCompare(name, n.eval(rules[i], data), n.eval(rules[i+1], data)) {
			return false
		}
	}
	return true
}

func naiveCompare(name string, a, b any) bool {
	switch name {
	case "===":
		if naiveIsNumber(a) && naiveIsNumber(b) {
			return naiveCompare("==", a, b)
		}
		return !naiveCompound(a) && !naiveCompound(b) && a == b
	case "!==":
		return !naiveCompare("===", a, b)
	case "!=":
		return !naiveCompare("==", a, b)
	}
	order, ok := naiveOrder(a, b)
	switch {
	case name == "==" && (a == nil || b == nil):
		return a == nil && b == nil
	case name == "==":
		return ok && order == 0
	case name == "<":
		return ok && order < 0
	case name == "<=":
		return ok && order <= 0
	case name == ">":
		return ok && order > 0
	default:
		return ok && order >= 0
	}
}

func naiveIsNumber(value any) bool {
	switch value.(type) {
	case float64, int64:
		return true
	default:
		return false
	}
}

// naiveOrder compares two strings as texts, two integers as integers, and other
// values as numbers.
func naiveOrder(a, b any) (order int, ok bool) {
	wholeA, isWholeA := a.(int64)
	wholeB, isWholeB := b.(int64)
	if isWholeA && isWholeB {
		return cmp.Compare(wholeA, wholeB), true
	}
	textA, isTextA := a.(string)
	textB, isTextB := b.(string)
	if isTextA && isTextB {
		return strings.Compare(textA, textB), true
	}
	switch x, y := naiveNumber(a), naiveNumber(b); {
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	default:
		return 0, x == y
	}
}

// iterate evaluates the operators that go through a list.
func (n naive) iterate(name string, rules []any, data any) any {
	list, isList := n.eval(naiveAt(rules, 0), data).([]any)
	mapper := naiveAt(rules, 1)
	if name == "reduce" {
		accumulator := n.eval(naiveAt(rules, 2), data)
		if len(rules) < 3 && len(list) > 0 {
			accumulator, list = list[0], list[1:]
		}
		for _, element := range list {
			accumulator = n.eval(mapper, map[string]any{"current": element, "accumulator": accumulator})
		}
		return accumulator
	}
	mapped, kept := []any{}, []any{}
	for _, element := range list {
		value := n.eval(mapper, element)
		mapped = append(mapped, value)
		if naiveTruthy(value) {
			kept = append(kept, element)
		}
	}
	switch name {
	case "map":
		return mapped
	case "filter":
		return kept
	case "all":
		return isList && len(list) > 0 && len(kept) == len(list)
	case "some":
		return len(kept) > 0
	default:
		return len(kept) == 0
	}
}

// eager evaluates the operators that need the values of their operands.
func (n naive) eager(name string, operands []any, data any) any {
	switch name {
	case "missing":
		return naiveMissing(operands, data)
	case "missing_some":
		return naiveMissingSome(operands, data)
	case "!":
		return !naiveTruthy(naiveAt(operands, 0))
	case "!!":
		return naiveTruthy(naiveAt(operands, 0))
	case "merge":
		return naiveMerge(operands)
	case "in":
		return len(operands) > 1 && naiveIn(operands[0], operands[1])
	case "cat":
		text := ""
		for _, operand := range operands {
			text += naiveString(operand)
		}
		return text
	case "substr":
		return naiveSubstr(operands)
	case "starts_with", "ends_with":
		return naiveAffix(name, operands)
	case "sem_ver":
		if len(operands) == 3 {
			return naiveSemver(operands[0], operands[1], operands[2])
		}
		return nil
	case "fractional":
		return n.fractional(operands)
	default:
		return naiveArithmetic(name, operands)
	}
}

func naiveMissing(keys []any, data any) []any {
	missing := []any{}
	for _, key := range keys {
		if _, found := naiveFind(naiveString(key), data); !found {
			missing = append(missing, key)
		}
	}
	return missing
}

func naiveMissingSome(operands []any, data any) any {
	keys, _ := naiveAt(operands, 1).([]any)
	missing := naiveMissing(keys, data)
	if float64(len(keys)-len(missing)) < naiveNumber(naiveAt(operands, 0)) {
		return missing
	}
	return []any{}
}

// naiveArithmetic folds numbers from the left. What is no number, and what no
// JSON number can be, is null.
func naiveArithmetic(name string, operands []any) any {
	switch {
	case name == "+":
		operands = append([]any{0.0}, operands...)
	case name == "*":
		operands = append([]any{1.0}, operands...)
	case name == "-" && len(operands) == 1:
		operands = []any{0.0, operands[0]}
	case name == "/" && len(operands) == 1:
		operands = []any{1.0, operands[0]}
	case len(operands) == 0, name == "%" && len(operands) == 1:
		return nil
	}
	result := naiveNumber(operands[0])
	for _, operand := range operands[1:] {
		x := naiveNumber(operand)
		switch name {
		case "+":
			result += x
		case "-":
			result -= x
		case "*":
			result *= x
		case "/":
			result /= x
		case "%":
			result = math.Mod(result, x)
		case "max":
			if x > result || math.IsNaN(x) {
				result = x
			}
		case "min":
			if x < result || math.IsNaN(x) {
				result = x
			}
		}
	}
	if math.IsNaN(result) || math.IsInf(result, 0) {
		return nil
	}
	return result
}

func naiveMerge(operands []any) []any {
	merged := []any{}
	for _, operand := range operands {
		if list, ok := operand.([]any); ok {
			merged = append(merged, list...)
		} else {
			merged = append(merged, operand)
		}
	}
	return merged
}

func naiveIn(item, haystack any) bool {
	switch x := haystack.(type) {
	case string:
		return item != nil && !naiveCompound(item) && strings.Contains(x, naiveString(item))
	case []any:
		for _, element := range x {
			if naiveCompare("===", item, element) {
				return true
			}
		}
	}
	return false
}

// naiveSubstr counts in code points.
func naiveSubstr(operands []any) any {
	if source := naiveAt(operands, 0); source == nil || naiveCompound(source) {
		return nil
	}
	text := []rune(naiveString(operands[0]))
	from := naiveInteger(naiveAt(operands, 1))
	if from < 0 {
		from = math.Max(float64(len(text))+from, 0)
	}
	text = text[int(math.Min(from, float64(len(text)))):]
	if len(operands) > 2 {
		length := naiveInteger(operands[2])
		if length < 0 {
			length = math.Max(float64(len(text))+length, 0)
		}
		text = text[:int(math.Min(length, float64(len(text))))]
	}
	return string(text)
}

// naiveInteger is a number without its fraction; what is no number is 0.
func naiveInteger(value any) float64 {
	number := naiveNumber(value)
	if math.IsNaN(number) {
		return 0
	}
	return math.Trunc(number)
}

func naiveAffix(name string, operands []any) any {
	if len(operands) != 2 {
		return nil
	}
	text, ok := operands[0].(string)
	affix, okAffix := operands[1].(string)
	switch {
	case !ok || !okAffix:
		return nil
	case name == "starts_with":
		return strings.HasPrefix(text, affix)
	default:
		return strings.HasSuffix(text, affix)
	}
}
