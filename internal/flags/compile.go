package flags

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// longSet is the length from which a list of strings is looked up by hash.
const longSet = 9

// compiler compiles the rule of one flag. It reports what is wrong, and goes on as
// evaluation would.
type compiler struct {
	*schema.Report
	key      string
	v3       bool
	variants []Variant
	// inside counts the operators on lists around a node: there the data is an
	// element.
	inside int
	// broken is set where a rule has no meaning at all.
	broken bool
}

// breaks reports what makes the whole rule meaningless.
func (c *compiler) breaks(path document.Path, format string, args ...any) node {
	c.Add(path, format, args...)
	c.broken = true
	return c.constant(Value{})
}

// rule compiles a value of a rule. result tells that its value is the rule's, so
// that a constant names a variant.
func (c *compiler) rule(path document.Path, src any, result bool) node {
	switch src := src.(type) {
	case map[string]any:
		return c.operation(path, src, result)
	case []any:
		if result {
			c.Add(path, "is an array; a rule results in the name of a variant, or null")
		}
		return c.list(path, src, false)
	default:
		v, err := valueOf(src)
		if err != nil {
			return c.breaks(path, "%v", err)
		}
		n := c.constant(v)
		if result && n.variant == noVariant {
			text := resultText(v)
			c.Add(path, "%q is not among the variants%s", text, c.didYouMean(text, c.names))
		}
		return n
	}
}

// didYouMean returns schema.DidYouMean of a word, while there is room for it.
func (c *compiler) didYouMean(word string, known func() []string) string {
	if c.Full() {
		return ""
	}
	return schema.DidYouMean(word, known())
}

func (c *compiler) names() []string {
	names := make([]string, len(c.variants))
	for i := range c.variants {
		names[i] = c.variants[i].Name
	}
	return names
}

// constant returns the node of a constant.
func (c *compiler) constant(v Value) node {
	n := node{op: opConst, value: v, variant: nullVariant}
	if v.typ != NullType {
		n.variant = variantNamed(c.variants, resultText(v))
	}
	return n
}

// resultText returns the name of the variant that a result stands for.
func resultText(v Value) string {
	m := machine{steps: maxSteps, scratch: new(scratch)} // which nobody else gets
	return m.text(v).str()
}

func variantNamed(variants []Variant, name string) int32 {
	i, ok := slices.BinarySearchFunc(variants, name, func(v Variant, name string) int { return strings.Compare(v.Name, name) })
	if !ok {
		return noVariant
	}
	return int32(i)
}

// list compiles a literal list. result tells that the first element may be the
// rule's result.
func (c *compiler) list(path document.Path, src []any, result bool) node {
	n := node{op: opList, variant: noVariant, args: make([]node, len(src))}
	constant := true
	for i := range src {
		n.args[i] = c.rule(path.Index(i), src[i], result && i == 0)
		constant = constant && n.args[i].op == opConst
	}
	if !constant {
		return n
	}
	values := make([]Value, len(src))
	for i := range values {
		values[i] = n.args[i].value
	}
	folded := c.constant(List(values...))
	folded.args = n.args
	return folded
}

// operation compiles {"operator": operands}.
func (c *compiler) operation(path document.Path, src map[string]any, result bool) node {
	if len(src) != 1 {
		if len(src) == 0 {
			c.Add(path, "is empty; a rule has one operator")
			return c.constant(Object())
		}
		names := slices.Sorted(maps.Keys(src))
		return c.breaks(path, "has %d keys (%s); a rule has one operator", len(names), brieflyListed(names))
	}
	var name string
	for name = range src {
		break
	}
	o, known := operators[name]
	if !known {
		if name == "$ref" {
			return c.breaks(path.Key(name), "a flag cannot refer to shared evaluators; put the rule in its place, as `holdfast import flagd` does")
		}
		return c.breaks(path, "unknown operator %q%s", name, c.didYouMean(name, func() []string { return slices.Sorted(maps.Keys(operators)) }))
	}
	return c.operator(path.Key(name), name, o, src[name], result)
}

func brieflyListed(names []string) string {
	const most = 5
	if len(names) > most {
		names = append(slices.Clone(names[:most]), "…")
	}
	return strings.Join(names, ", ")
}

func (c *compiler) operator(path document.Path, name string, o operator, operands any, result bool) node {
	n := node{op: o.op, variant: noVariant}
	list, literal := operands.([]any)
	if literal {
		if len(list) < o.least || len(list) > o.most {
			c.Add(path, "%q takes %s, but has %d", name, o.arity(), len(list))
		}
		n.args = c.operands(path, o, list, result)
	} else {
		if _, rule := operands.(map[string]any); rule {
			n.spread = !o.lazy
		} else if o.least > 1 {
			c.Add(path, "%q takes %s, but has 1", name, o.arity())
		}
		n.args = []node{c.rule(path, operands, false)}
	}
	if result && o.boolean() && variantNamed(c.variants, "true") < 0 && variantNamed(c.variants, "false") < 0 {
		c.Add(path, "results in true or false, but neither is among the variants; choose with \"if\"")
	}
	if len(n.args) == 2 && n.args[0].op == opVarRoot && n.args[1].op == opConst && o.leaf() {
		n.attribute = n.args[0].path[0]
	}
	switch n.op { //nolint:exhaustive // the others are complete
	case opVar:
		return c.variable(path, n)
	case opMap, opFilter, opReduce, opAll, opNone, opSome:
		for len(n.args) < 2 {
			n.args = append(n.args, c.constant(Value{}))
		}
		n.cost = 1 + n.args[1].count()
	case opIn:
		n.set = setOf(n.args)
	case opStartsWith, opEndsWith:
		c.checkAffix(path, name, n.args)
	case opSemver:
		n.version = c.version(path, n.args)
	case opFractional:
		n.fractional = c.fractional(path, &n, list)
	}
	return n
}

// operands compiles a literal list of operands.
func (c *compiler) operands(path document.Path, o operator, list []any, result bool) []node {
	args := make([]node, len(list))
	for i := range list {
		bucket, ok := list[i].([]any)
		switch {
		case ok && o.op == opFractional:
			args[i] = c.list(path.Index(i), bucket, result)
		case i == 1 && opMap <= o.op && o.op <= opSome:
			c.inside++
			args[i] = c.rule(path.Index(i), list[i], false)
			c.inside--
		default:
			args[i] = c.rule(path.Index(i), list[i], result && o.results(i, len(list)))
		}
	}
	return args
}

// leaf tells whether an operator is evaluated by machine.leaf where it can be.
func (o operator) leaf() bool {
	return opEqual <= o.op && o.op <= opGreaterEqual || o.op == opIn || o.op == opStartsWith || o.op == opEndsWith
}

// arity says how many operands there may be.
func (o operator) arity() string {
	switch {
	case o.most == 1:
		return "1 operand"
	case o.least == o.most:
		return fmt.Sprintf("%d operands", o.least)
	case o.most == many:
		return fmt.Sprintf("%d or more operands", o.least)
	default:
		return fmt.Sprintf("%d to %d operands", o.least, o.most)
	}
}

// results tells whether operand i of n may be the operator's result as it is.
func (o operator) results(i, n int) bool {
	return o.op == opIf && (i%2 == 1 || i == n-1) || o.op == opOr || o.op == opAnd
}

// boolean tells whether the result is true or false.
func (o operator) boolean() bool {
	return opNot <= o.op && o.op <= opGreaterEqual || o.op == opAll || o.op == opNone || o.op == opSome || o.op == opIn ||
		o.op == opStartsWith || o.op == opEndsWith || o.op == opSemver
}

// count returns the number of nodes.
func (n *node) count() int {
	total := 1
	for i := range n.args {
		total += n.args[i].count()
	}
	return total
}

// variable completes "var".
func (c *compiler) variable(path document.Path, n node) node {
	if n.spread {
		return n
	}
	if len(n.args) == 0 || n.args[0].op != opConst {
		return n
	}
	key := resultText(n.args[0].value)
	if key == "" {
		n.args = nil
		return n
	}
	n.path = strings.Split(key, ".")
	if c.inside > 0 {
		return n
	}
	switch key {
	case flagdKey:
	case flagdKey + "." + flagKeyKey:
		n.op = opFlagKey
	case flagdKey + "." + timestampKey:
		n.op = opTimestamp
	default:
		if n.path[0] == flagdKey {
			c.Add(path, "%q does not exist; there are %s.%s and %s.%s", key, flagdKey, flagKeyKey, flagdKey, timestampKey)
		} else if len(n.path) == 1 && len(n.args) < 2 {
			n.op = opVarRoot
		}
	}
	return n
}

// setOf returns the elements of a long constant list of strings that is the second
// operand; nil when there is none.
func setOf(args []node) map[string]struct{} {
	if len(args) != 2 || args[1].op != opConst || args[1].value.typ != ListType {
		return nil
	}
	list := args[1].value.list()
	if len(list) < longSet {
		return nil
	}
	set := make(map[string]struct{}, len(list))
	for _, v := range list {
		s, ok := v.AsString()
		if !ok {
			return nil
		}
		set[s] = struct{}{}
	}
	return set
}

func (c *compiler) checkAffix(path document.Path, name string, args []node) {
	for i := range args {
		if a := &args[i]; a.op == opConst && a.value.typ != StringType && len(args) == 2 {
			c.Add(path.Index(i), "is of type %s, but %q compares strings", a.value.typ, name)
		}
	}
}

// version checks and prepares the operands of "sem_ver".
func (c *compiler) version(path document.Path, args []node) *versionRange {
	if len(args) != 3 {
		return nil
	}
	if a := &args[1]; a.op == opConst {
		if s, ok := a.value.AsString(); !ok || !slices.Contains(semverOperators, s) {
			c.Add(path.Index(1), "is not an operator of sem_ver; there are %s", strings.Join(semverOperators, " "))
		}
	}
	var prepared *versionRange
	m := machine{steps: maxSteps, scratch: new(scratch)}
	for _, i := range []int{0, 2} {
		if args[i].op != opConst {
			continue
		}
		v, ok := m.version(args[i].value)
		if !ok {
			c.Add(path.Index(i), "%s is not a semantic version, such as \"1.2.3\"", args[i].value.AppendJSON(nil))
			continue
		}
		if i == 2 {
			prepared = &versionRange{bound: v}
		}
	}
	return prepared
}

// isScalar tells whether a JSON value is a string, a number, a boolean or null.
func isScalar(src any) bool {
	switch src.(type) {
	case nil, bool, string, json.Number:
		return true
	default:
		return false
	}
}
