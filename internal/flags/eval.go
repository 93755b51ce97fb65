package flags

import "strings"

// decide evaluates a rule whose result names a variant, and returns its index, or
// noVariant or nullVariant. Where results are constants no name is looked up.
func (m *machine) decide(f *Flag, n *node, who *subject) int32 {
	for {
		switch n.op {
		case opConst:
			return n.variant
		case opIf:
			if n = m.branch(n, who, root()); n == nil {
				return nullVariant
			}
		case opFractional:
			i, simple := m.bucket(n, who, root())
			switch {
			case !simple:
				return f.named(m, m.eval(n, who, root()))
			case i < 0:
				return nullVariant
			}
			n = n.fractional.buckets[i].variant
		default:
			return f.named(m, m.eval(n, who, root()))
		}
	}
}

// branch returns the operand of an "if" that is its result; nil for null.
func (m *machine) branch(n *node, who *subject, data Value) *node {
	i := 0
	for ; i+1 < len(n.args); i += 2 {
		if m.test(&n.args[i], who, data) {
			return &n.args[i+1]
		}
	}
	if i < len(n.args) {
		return &n.args[i]
	}
	return nil
}

// test evaluates a condition. The common ones make no values.
func (m *machine) test(n *node, who *subject, data Value) bool {
	if n.attribute != "" {
		return m.leaf(n, who)
	}
	switch n.op { //nolint:exhaustive // others have a value
	case opAnd:
		for i := range n.args {
			if !m.test(&n.args[i], who, data) {
				return false
			}
		}
		return len(n.args) > 0
	case opOr:
		for i := range n.args {
			if m.test(&n.args[i], who, data) {
				return true
			}
		}
		return false
	case opEqual, opNotEqual, opStrictEqual, opStrictNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
		return m.compare(n, who, data)
	case opIn:
		if len(n.args) == 2 {
			return m.in(n, m.eval(&n.args[0], who, data), m.value(&n.args[1], who, data))
		}
	case opNot:
		if !n.spread {
			return len(n.args) == 0 || !m.test(&n.args[0], who, data)
		}
	case opTruth:
		if !n.spread {
			return len(n.args) > 0 && m.test(&n.args[0], who, data)
		}
	}
	return m.eval(n, who, data).truthy()
}

// leaf evaluates a condition on an attribute and a constant. Most conditions are
// of this kind, and most of them on strings.
func (m *machine) leaf(n *node, who *subject) bool {
	v, _ := m.attribute(who, n.attribute)
	c := &n.args[1].value
	switch {
	case v.typ != c.typ:
	case v.typ == StringType:
		switch n.op { //nolint:exhaustive // others are below
		case opEqual, opStrictEqual:
			return v.str() == c.str()
		case opStartsWith:
			return strings.HasPrefix(v.str(), c.str())
		case opEndsWith:
			return strings.HasSuffix(v.str(), c.str())
		}
	case v.typ == IntType && opLess <= n.op && n.op <= opGreaterEqual:
		return ordered(n.op, int64(v.num), int64(c.num))
	case v.typ == IntType || v.typ == BoolType:
		switch n.op { //nolint:exhaustive // others are below
		case opEqual, opStrictEqual:
			return v.num == c.num
		}
	}
	switch n.op {
	case opIn:
		return m.in(n, v, *c)
	case opStartsWith, opEndsWith:
		return affix(n.op, v, *c).truthy()
	default:
		return m.holds(n.op, v, *c)
	}
}

// eval returns the value of a node. data is what "var" looks at: the whole data,
// or what an operator on lists is at.
func (m *machine) eval(n *node, who *subject, data Value) Value {
	switch n.op { //nolint:exhaustive // the others are in apply
	case opConst:
		return n.value
	case opVarRoot:
		v, _ := m.attribute(who, n.path[0])
		return v
	case opFlagKey:
		return String(m.key)
	case opTimestamp:
		return Int(m.now)
	case opVar:
		return m.variable(n, who, data)
	case opIf:
		if n = m.branch(n, who, data); n != nil {
			return m.eval(n, who, data)
		}
		return Value{}
	case opAnd, opOr:
		var v Value
		for i := range n.args {
			if v = m.eval(&n.args[i], who, data); v.truthy() == (n.op == opOr) {
				break
			}
		}
		return v
	case opNot, opTruth:
		return Bool(m.first(n, who, data).truthy() == (n.op == opTruth))
	case opEqual, opNotEqual, opStrictEqual, opStrictNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
		return Bool(m.compare(n, who, data))
	case opAll:
		return Bool(m.every(n, who, data))
	case opSome:
		return Bool(m.some(n, who, data))
	case opNone:
		return Bool(!m.some(n, who, data))
	case opMap:
		return m.mapped(n, who, data)
	case opFilter:
		return m.filtered(n, who, data)
	case opReduce:
		return m.reduced(n, who, data)
	case opList:
		list := m.memory().list(len(n.args))
		for i := range n.args {
			list[i] = m.eval(&n.args[i], who, data)
		}
		m.spend(len(list))
		return List(list...)
	case opIn:
		if len(n.args) == 2 {
			return Bool(m.in(n, m.eval(&n.args[0], who, data), m.value(&n.args[1], who, data)))
		}
	case opStartsWith, opEndsWith:
		if len(n.args) == 2 {
			return affix(n.op, m.eval(&n.args[0], who, data), m.value(&n.args[1], who, data))
		}
	case opSemver:
		if len(n.args) == 3 {
			return m.semver(n.version, m.eval(&n.args[0], who, data), m.value(&n.args[1], who, data), m.value(&n.args[2], who, data))
		}
	case opAdd, opSubtract, opMultiply, opDivide, opRemainder, opMin, opMax:
		if len(n.args) == 2 {
			return Float(calculate(n.op, m.number(m.eval(&n.args[0], who, data)), m.number(m.eval(&n.args[1], who, data))))
		}
	case opFractional:
		if i, simple := m.bucket(n, who, data); simple {
			if i < 0 {
				return Value{}
			}
			return m.eval(n.fractional.buckets[i].variant, who, data)
		}
	}
	return m.apply(n, who, data)
}

// value is eval, without a call for a constant.
func (m *machine) value(n *node, who *subject, data Value) Value {
	if n.op == opConst {
		return n.value
	}
	return m.eval(n, who, data)
}

// apply evaluates the operators that get all their operands evaluated.
func (m *machine) apply(n *node, who *subject, data Value) Value {
	args := m.operands(n, who, data)
	switch n.op {
	case opIn:
		return Bool(len(args) > 1 && m.in(n, args[0], args[1]))
	case opStartsWith, opEndsWith:
		if len(args) != 2 {
			return Value{}
		}
		return affix(n.op, args[0], args[1])
	case opSemver:
		if len(args) != 3 {
			return Value{}
		}
		return m.semver(n.version, args[0], args[1], args[2])
	case opAdd, opSubtract, opMultiply, opDivide, opRemainder, opMin, opMax:
		return m.arithmetic(n.op, args)
	case opCat:
		return m.concat(args)
	case opSubstr:
		return m.substr(args)
	case opMerge:
		return m.merge(args)
	case opMissing:
		return m.missing(args, who, data)
	case opMissingSome:
		return m.missingSome(args, who, data)
	case opFractional:
		return m.distribute(n.fractional, who, args)
	default:
		return Value{}
	}
}

// operands returns the values of all operands.
func (m *machine) operands(n *node, who *subject, data Value) []Value {
	if n.spread {
		v := m.eval(&n.args[0], who, data)
		if v.typ == ListType {
			return v.list()
		}
		list := m.memory().list(1)
		list[0] = v
		return list
	}
	list := m.memory().list(len(n.args))
	for i := range n.args {
		list[i] = m.eval(&n.args[i], who, data)
	}
	return list
}

// first returns the first operand; null if there is none.
func (m *machine) first(n *node, who *subject, data Value) Value {
	if len(n.args) == 0 {
		return Value{}
	}
	v := m.eval(&n.args[0], who, data)
	if n.spread && v.typ == ListType {
		if len(v.list()) == 0 {
			return Value{}
		}
		return v.list()[0]
	}
	return v
}

// variable evaluates "var".
func (m *machine) variable(n *node, who *subject, data Value) Value {
	var v Value
	switch {
	case n.path != nil:
		v, _ = m.walk(who, data, n.path)
	case n.spread:
		return m.variableOf(m.eval(&n.args[0], who, data), who, data)
	case len(n.args) == 0:
		return data
	default:
		key := m.eval(&n.args[0], who, data)
		if key = m.text(key); key.num == 0 {
			return data
		}
		v, _ = m.walkText(who, data, key.str())
	}
	if v.typ == NullType && len(n.args) > 1 {
		return m.eval(&n.args[1], who, data)
	}
	return v
}

// variableOf evaluates "var" of a computed key, or list of key and default.
func (m *machine) variableOf(key Value, who *subject, data Value) Value {
	var missing Value
	if key.typ == ListType {
		switch list := key.list(); len(list) {
		case 0:
			key = Value{}
		case 1:
			key = list[0]
		default:
			key, missing = list[0], list[1]
		}
	}
	if key = m.text(key); key.num == 0 {
		return data
	}
	if v, _ := m.walkText(who, data, key.str()); v.typ != NullType {
		return v
	}
	return missing
}

// source returns the list that an operator on lists goes through; what is no list
// is an empty one. The compiler has given these operators two operands or more.
func (m *machine) source(n *node, who *subject, data Value) []Value {
	v := m.eval(&n.args[0], who, data)
	if v.typ != ListType {
		return nil
	}
	return v.list()
}

func (m *machine) every(n *node, who *subject, data Value) bool {
	list := m.source(n, who, data)
	body := &n.args[1]
	for i := range list {
		if !m.spend(n.cost) || !m.test(body, who, list[i]) {
			return false
		}
	}
	return len(list) > 0
}

func (m *machine) some(n *node, who *subject, data Value) bool {
	list := m.source(n, who, data)
	body := &n.args[1]
	for i := range list {
		if !m.spend(n.cost) {
			return false
		}
		if m.test(body, who, list[i]) {
			return true
		}
	}
	return false
}

func (m *machine) mapped(n *node, who *subject, data Value) Value {
	list := m.source(n, who, data)
	body := &n.args[1]
	if !m.spend(len(list)) {
		return Value{}
	}
	out := m.memory().list(len(list))
	for i := range list {
		if !m.spend(n.cost) {
			return Value{}
		}
		out[i] = m.eval(body, who, list[i])
	}
	return List(out...)
}

func (m *machine) filtered(n *node, who *subject, data Value) Value {
	list := m.source(n, who, data)
	body := &n.args[1]
	if !m.spend(len(list)) {
		return Value{}
	}
	out := m.memory().list(len(list))[:0]
	for i := range list {
		if !m.spend(n.cost) {
			return Value{}
		}
		if m.test(body, who, list[i]) {
			out = append(out, list[i])
		}
	}
	return List(out...)
}

// reduced folds a list. Without an initial value it begins with the first element.
func (m *machine) reduced(n *node, who *subject, data Value) Value {
	list := m.source(n, who, data)
	body := &n.args[1]
	var result Value
	switch {
	case len(n.args) > 2:
		result = m.eval(&n.args[2], who, data)
	case len(list) > 0:
		result, list = list[0], list[1:]
	}
	for i := range list {
		if !m.spend(n.cost) {
			return Value{}
		}
		members := m.memory().object(2)
		members[0] = Attribute{Key: "accumulator", Value: result}
		members[1] = Attribute{Key: "current", Value: list[i]}
		result = m.eval(body, who, Object(members...))
	}
	return result
}
