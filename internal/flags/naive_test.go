package flags

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// The naive evaluator is the oracle of the real one: it decides for a flag from
// the text of its definition and a context as encoding/json reads them, with one
// recursion over values of type any, and is written from the description of the
// language alone. It knows nothing of speed.
//
// Its values are nil, bool, float64, int64 (of attributes only), string, []any and
// map[string]any.

// naiveDecision is a [Decision] with the name of the variant.
type naiveDecision struct {
	variant string
	named   bool // there is a variant; its name may be empty
	reason  Reason
	code    ErrorCode
}

// String shows everything that is compared.
func (d naiveDecision) String() string {
	if !d.named {
		return fmt.Sprintf("no variant, %s %s", d.reason, d.code)
	}
	return fmt.Sprintf("variant %q, %s %s", d.variant, d.reason, d.code)
}

func naiveError(code ErrorCode) naiveDecision { return naiveDecision{reason: Error, code: code} }

// naive evaluates the rules of one flag for one context.
type naive struct {
	key  string
	root map[string]any // the context with $flagd
	v3   bool           // the fractional of version 3
	work *int           // what may still be done; unbounded when nil
}

// naiveTooMuch is what the naive evaluator panics with when it has no work left.
type naiveTooMuch struct{}

// spend takes the size of a value off the work.
func (n naive) spend(value any) {
	if n.work == nil {
		return
	}
	if *n.work--; *n.work < 0 {
		panic(naiveTooMuch{})
	}
	switch x := value.(type) {
	case string:
		*n.work -= len(x)
	case []any:
		for _, element := range x {
			n.spend(element)
		}
	case map[string]any:
		for _, member := range x {
			n.spend(member)
		}
	}
}

// naiveEvaluate decides for a definition and a context.
func naiveEvaluate(key string, spec []byte, now int64, context map[string]any) naiveDecision {
	return naiveDecide(nil, naiveRead(spec), key, now, context)
}

// naiveRead reads a definition; nil when it is none.
func naiveRead(spec []byte) map[string]any {
	var flag map[string]any
	if err := json.Unmarshal(spec, &flag); err != nil {
		return nil
	}
	return flag
}

func naiveDecide(work *int, flag map[string]any, key string, now int64, context map[string]any) naiveDecision {
	if flag == nil {
		return naiveError(ParseError)
	}
	if flag["state"] == "DISABLED" {
		return naiveDecision{reason: Disabled}
	}
	variants, _ := flag["variants"].(map[string]any)
	byDefault := naiveDecision{reason: Default}
	if name, _ := flag["defaultVariant"].(string); name != "" {
		if _, ok := variants[name]; !ok {
			return naiveError(ParseError)
		}
		byDefault = naiveDecision{variant: name, named: true, reason: Default}
	}
	rule, isObject := flag["targeting"].(map[string]any)
	switch {
	case flag["targeting"] != nil && !isObject, !naiveCompiles(rule):
		return naiveError(ParseError)
	case len(rule) == 0 && byDefault.named:
		byDefault.reason = Static
		return byDefault
	case len(rule) == 0:
		return byDefault
	}
	metadata, _ := flag["metadata"].(map[string]any)
	n := naive{key: key, root: naiveRoot(key, now, context), v3: metadata["fractional"] == "v3", work: work}
	result := n.eval(rule, n.root)
	if result == nil {
		return byDefault
	}
	name := naiveString(result)
	if _, ok := variants[name]; !ok {
		return naiveError(General)
	}
	return naiveDecision{variant: name, named: true, reason: TargetingMatch}
}

// naiveRoot is a context as rules see it.
func naiveRoot(key string, now int64, context map[string]any) map[string]any {
	root := map[string]any{}
	maps.Copy(root, context)
	root["$flagd"] = map[string]any{"flagKey": key, "timestamp": float64(now)}
	return root
}

// naiveLazy are the operators that evaluate their operands themselves.
func naiveLazy(name string) bool {
	return slices.Contains([]string{
		"var", "if", "and", "or", "==", "===", "!=", "!==", "<", "<=", ">", ">=", "map", "filter", "reduce", "all", "none", "some",
	}, name)
}

// naiveEager are the operators whose operands are all evaluated first.
func naiveEager(name string) bool {
	return slices.Contains([]string{
		"missing", "missing_some", "!", "!!", "+", "-", "*", "/", "%", "max", "min", "merge", "in", "cat", "substr",
		"starts_with", "ends_with", "sem_ver", "fractional",
	}, name)
}

// naiveCompiles tells whether every object in a rule is empty or one operator.
func naiveCompiles(rule any) bool {
	switch x := rule.(type) {
	case []any:
		for _, element := range x {
			if !naiveCompiles(element) {
				return false
			}
		}
	case map[string]any:
		for name, operands := range x {
			if len(x) > 1 || !naiveLazy(name) && !naiveEager(name) || !naiveCompiles(operands) {
				return false
			}
		}
	}
	return true
}

// eval is the value of a rule where data is what var looks at.
func (n naive) eval(rule, data any) any {
	value := n.evalAny(rule, data)
	n.spend(value)
	return value
}

func (n naive) evalAny(rule, data any) any {
	switch x := rule.(type) {
	case []any:
		values := []any{}
		for _, element := range x {
			values = append(values, n.eval(element, data))
		}
		return values
	case map[string]any:
		for name, operands := range x {
			list, isList := operands.([]any)
			switch {
			case name == "var":
				return n.opVar(operands, data)
			case naiveEager(name):
				// A rule in place of the operands may result in the list of them.
				value := n.eval(operands, data)
				values, ok := value.([]any)
				if !ok {
					values = []any{value}
				}
				return n.eager(name, values, data)
			case isList:
				return n.lazy(name, list, data)
			default:
				return n.lazy(name, []any{operands}, data)
			}
		}
	}
	return rule // {} as well
}

// naiveAt returns an operand, or null where there is none.
func naiveAt(operands []any, i int) any {
	if i < len(operands) {
		return operands[i]
	}
	return nil
}

func (n naive) opVar(rule, data any) any {
	var key any
	otherwise := func() any { return nil }
	if literal, ok := rule.([]any); ok {
		key = n.eval(naiveAt(literal, 0), data)
		otherwise = func() any { return n.eval(naiveAt(literal, 1), data) }
	} else {
		key = n.eval(rule, data)
		if computed, ok := key.([]any); ok {
			key = naiveAt(computed, 0)
			otherwise = func() any { return naiveAt(computed, 1) }
		}
	}
	path := naiveString(key)
	if path == "" {
		return data
	}
	if value, _ := naiveFind(path, data); value != nil {
		return value
	}
	return otherwise()
}

// naiveFind follows a path. What it leads to may be null.
func naiveFind(path string, data any) (value any, found bool) {
	for _, step := range naiveSplit(path) {
		found = false
		switch x := data.(type) {
		case map[string]any:
			data, found = x[step]
		case []any:
			for i := range x {
				if naiveString(float64(i)) == step {
					data, found = x[i], true
				}
			}
		}
		if !found {
			return nil, false
		}
	}
	return data, true
}
