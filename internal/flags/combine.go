package flags

import (
	"math"
	"strconv"
	"unsafe"
)

// arithmetic evaluates the operators on numbers. What has no number as its result
// is null.
func (m *machine) arithmetic(o op, args []Value) Value {
	if len(args) == 0 {
		switch o {
		case opAdd:
			return Int(0)
		case opMultiply:
			return Int(1)
		default:
			return Value{}
		}
	}
	x := m.number(args[0])
	if len(args) == 1 {
		switch o { //nolint:exhaustive // the others are the operand itself
		case opSubtract:
			x = -x
		case opDivide:
			x = 1 / x
		case opRemainder:
			return Value{}
		}
	}
	for i := 1; i < len(args); i++ {
		if x = calculate(o, x, m.number(args[i])); math.IsInf(x, 0) {
			return Value{}
		}
	}
	return Float(x)
}

func calculate(o op, x, y float64) float64 {
	switch o {
	case opAdd:
		return x + y
	case opSubtract:
		return x - y
	case opMultiply:
		return x * y
	case opDivide:
		return x / y
	case opRemainder:
		return math.Mod(x, y)
	case opMin:
		return math.Min(x, y)
	case opMax:
		return math.Max(x, y)
	default:
		return math.NaN()
	}
}

// merge joins lists and what is no list.
func (m *machine) merge(args []Value) Value {
	n := 0
	for _, v := range args {
		if v.typ == ListType {
			n += len(v.list())
		} else {
			n++
		}
	}
	if !m.spend(n) {
		return Value{}
	}
	out := m.memory().list(n)[:0]
	for _, v := range args {
		if v.typ == ListType {
			out = append(out, v.list()...)
		} else {
			out = append(out, v)
		}
	}
	return List(out...)
}

// missing returns those of the keys that lead to nothing.
func (m *machine) missing(keys []Value, who *subject, data Value) Value {
	if !m.spend(len(keys)) {
		return Value{}
	}
	out := m.memory().list(len(keys))[:0]
	for _, key := range keys {
		if _, ok := m.walkText(who, data, m.text(key).str()); !ok {
			out = append(out, key)
		}
	}
	return List(out...)
}

// missingSome returns the missing ones of a list of keys, nothing if there are
// enough others.
func (m *machine) missingSome(args []Value, who *subject, data Value) Value {
	if len(args) < 2 || args[1].typ != ListType {
		return List()
	}
	keys := args[1].list()
	missing := m.missing(keys, who, data)
	need := m.number(args[0])
	if missing.typ != ListType || math.IsNaN(need) || float64(len(keys)-len(missing.list())) >= need {
		return List()
	}
	return missing
}

// concat evaluates "cat".
func (m *machine) concat(args []Value) Value {
	if len(args) == 1 {
		return m.text(args[0])
	}
	s := m.memory()
	from := len(s.bytes)
	for _, v := range args {
		if !m.appendText(v) {
			return Value{}
		}
	}
	return s.end(from)
}

// text returns a value as a string.
func (m *machine) text(v Value) Value {
	switch v.typ { //nolint:exhaustive // the others are made
	case StringType:
		return v
	case NullType:
		return String("")
	}
	s := m.memory()
	from := len(s.bytes)
	if !m.appendText(v) {
		return String("")
	}
	return s.end(from)
}

// appendText appends a value as a string to the memory: null as nothing, elements
// of lists with commas between them. It returns false when the budget is spent.
func (m *machine) appendText(v Value) bool {
	s := m.memory()
	switch v.typ {
	case NullType:
	case BoolType, IntType, FloatType:
		s.bytes = appendScalar(s.bytes, v)
	case StringType:
		if !m.spend(int(v.num >> 3)) {
			return false
		}
		s.bytes = append(s.bytes, v.str()...)
	case ListType:
		for i, e := range v.list() {
			if i > 0 {
				s.bytes = append(s.bytes, ',')
			}
			if !m.spend(1) || !m.appendText(e) {
				return false
			}
		}
	default:
		s.bytes = append(s.bytes, "[object Object]"...)
	}
	return true
}

func appendScalar(b []byte, v Value) []byte {
	switch v.typ {
	case BoolType:
		return strconv.AppendBool(b, v.num != 0)
	case IntType:
		return strconv.AppendInt(b, int64(v.num), 10)
	default:
		return appendNumber(b, v.float())
	}
}

// unsafeString returns bytes, which nobody changes any more, as a string.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
