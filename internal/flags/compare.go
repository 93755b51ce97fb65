package flags

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// number returns what arithmetic and comparisons take a value for, as ECMAScript's
// Number() does; NaN for lists and objects.
func (m *machine) number(v Value) float64 {
	switch v.typ {
	case NullType:
		return 0
	case BoolType:
		return float64(v.num)
	case IntType, FloatType:
		return v.float()
	case StringType:
		if v.num > 64 && !m.spend(int(v.num>>3)) {
			return math.NaN()
		}
		return parseNumber(v.str())
	case ListType, ObjectType:
		return math.NaN()
	default:
		return math.NaN()
	}
}

// compare evaluates the comparisons: every operand with the next one.
func (m *machine) compare(n *node, who *subject, data Value) bool {
	if len(n.args) == 2 {
		return m.holds(n.op, m.eval(&n.args[0], who, data), m.value(&n.args[1], who, data))
	}
	if len(n.args) < 2 {
		return n.op == opNotEqual || n.op == opStrictNotEqual
	}
	a := m.eval(&n.args[0], who, data)
	for i := 1; i < len(n.args); i++ {
		b := m.eval(&n.args[i], who, data)
		if !m.holds(n.op, a, b) {
			return false
		}
		a = b
	}
	return true
}

func (m *machine) holds(o op, a, b Value) bool {
	switch o { //nolint:exhaustive // the others are below
	case opEqual:
		return m.equal(a, b)
	case opNotEqual:
		return !m.equal(a, b)
	case opStrictEqual:
		return m.identical(a, b)
	case opStrictNotEqual:
		return !m.identical(a, b)
	}
	switch {
	case a.typ == StringType && b.typ == StringType:
		return ordered(o, strings.Compare(a.str(), b.str()), 0)
	case a.typ == IntType && b.typ == IntType:
		return ordered(o, int64(a.num), int64(b.num))
	}
	return ordered(o, m.number(a), m.number(b))
}

func ordered[N int | int64 | float64](o op, x, y N) bool {
	switch o {
	case opLess:
		return x < y
	case opLessEqual:
		return x <= y
	case opGreater:
		return x > y
	case opGreaterEqual:
		return x >= y
	default:
		return false
	}
}

// equal is "==": of strings by content, null with null only, otherwise as numbers.
func (m *machine) equal(a, b Value) bool {
	switch {
	case a.typ == StringType && b.typ == StringType:
		return m.sameText(a, b)
	case a.typ == NullType || b.typ == NullType:
		return a.typ == b.typ
	case a.typ == b.typ && (a.typ == IntType || a.typ == BoolType):
		return a.num == b.num
	default:
		return m.number(a) == m.number(b)
	}
}

// sameText tells whether two strings are the same. Long ones cost steps.
func (m *machine) sameText(a, b Value) bool {
	return a.num == b.num && (a.num < 256 || m.spend(int(a.num>>8))) && a.str() == b.str()
}

// identical is "===": the same type and value. Lists and objects never are.
func (m *machine) identical(a, b Value) bool {
	switch {
	case a.typ == IntType && b.typ == IntType:
		return a.num == b.num
	case a.isNumber() && b.isNumber():
		return a.float() == b.float()
	case a.typ != b.typ:
		return false
	case a.typ == StringType:
		return m.sameText(a, b)
	default:
		return a.typ <= BoolType && a.num == b.num
	}
}

func (v Value) isNumber() bool { return v.typ == IntType || v.typ == FloatType }

// in tells whether a list has an element, or a string a part.
func (m *machine) in(n *node, item, hay Value) bool {
	switch hay.typ {
	case ListType:
		if n.set != nil {
			if item.typ != StringType {
				return false
			}
			_, ok := n.set[item.str()]
			return ok
		}
		list := hay.list()
		if len(list) > 16 && !m.spend(len(list)>>3) {
			return false
		}
		if item.typ == StringType {
			return m.hasText(list, item)
		}
		for i := range list {
			if m.identical(item, list[i]) {
				return true
			}
		}
		return false
	case StringType:
		var space [32]byte
		part, ok := brief(item, &space)
		return ok && m.spend(int(hay.num>>6)) && strings.Contains(hay.str(), part)
	default:
		return false
	}
}

func (m *machine) hasText(list []Value, text Value) bool {
	for i := range list {
		if list[i].typ == StringType && m.sameText(list[i], text) {
			return true
		}
	}
	return false
}

// brief returns a string, or a boolean or number as a string, which may be in
// space.
func brief(v Value, space *[32]byte) (string, bool) {
	switch v.typ {
	case StringType:
		return v.str(), true
	case BoolType:
		return strconv.FormatBool(v.num != 0), true
	case IntType, FloatType:
		b := appendScalar(space[:0], v)
		return unsafeString(b), true
	default:
		return "", false
	}
}

// affix evaluates "starts_with" and "ends_with"; null for what is not two strings.
func affix(o op, s, part Value) Value {
	if s.typ != StringType || part.typ != StringType {
		return Value{}
	}
	if o == opStartsWith {
		return Bool(strings.HasPrefix(s.str(), part.str()))
	}
	return Bool(strings.HasSuffix(s.str(), part.str()))
}

// substr evaluates "substr", which counts characters.
func (m *machine) substr(args []Value) Value {
	if len(args) == 0 || args[0].typ == NullType || args[0].typ >= ListType {
		return Value{}
	}
	s := m.text(args[0]).str()
	if !m.spend(len(s) >> 3) {
		return Value{}
	}
	count := utf8.RuneCountInString(s)
	from, to := 0, count
	if len(args) > 1 {
		if from = m.truncated(args[1], count); from < 0 {
			from = max(0, count+from)
		}
	}
	if len(args) > 2 {
		if to = m.truncated(args[2], count); to < 0 {
			to = count + to
		} else {
			to = min(count, from+to)
		}
	}
	if from >= to {
		return String("")
	}
	return String(s[offset(s, from):offset(s, to)])
}

// truncated returns a number without its fraction, and no larger than count either
// way: that is enough to be beyond a string of so many characters.
func (m *machine) truncated(v Value, count int) int {
	f := m.number(v)
	switch {
	case math.IsNaN(f):
		return 0
	case f > float64(count):
		return count
	case f < -float64(count):
		return -count
	default:
		return int(f)
	}
}

// offset returns the byte at which character i of a string begins.
func offset(s string, i int) int {
	for at := range s {
		if i == 0 {
			return at
		}
		i--
	}
	return len(s)
}
