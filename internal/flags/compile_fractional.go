package flags

import (
	"github.com/holdfast-dev/holdfast/internal/document"
)

// fractional checks the operands of a "fractional" and prepares what it can. The
// operands of n are compiled already; src is what they were, nil when they are no
// literal list.
func (c *compiler) fractional(path document.Path, n *node, src []any) *fractional {
	f := &fractional{v3: c.v3, implicit: murmur{}.add(c.key)}
	if src == nil {
		return f
	}
	from := 0
	if len(src) > 0 {
		if _, bucket := src[0].([]any); !bucket {
			from = 1
			if a := &n.args[0]; a.op == opConst && a.value.typ != StringType && !c.v3 {
				c.Add(path.Index(0), "is of type %s; the value to bucket by is a string", a.value.typ)
			}
		}
	}
	if from == len(src) {
		c.Add(path, "has no buckets; each is [variant] or [variant, weight]")
		return f
	}
	buckets, total, simple := make([]bucket, 0, len(src)), uint64(0), true
	for i := from; i < len(src); i++ {
		weight, ok := c.bucket(path.Index(i), &n.args[i], src[i])
		simple = simple && ok
		total += weight
		if simple {
			buckets = append(buckets, bucket{variant: &n.args[i].args[0], end: total})
		}
	}
	if total > maxWeight {
		c.Add(path, "the weights add up to %d; at most %d is allowed", total, uint64(maxWeight))
		simple = false
	}
	if simple && total == 0 {
		c.Add(path, "all weights are 0, so that there is no bucket to choose")
	}
	if simple && total > 0 {
		f.buckets, f.total = buckets, total
		if from == 1 {
			f.seed = &n.args[0]
			f.begun, f.rest = c.begin(f.seed.args)
		}
	}
	return f
}

// begin hashes the first operands of a "cat", as far as they are the same for
// everybody, and returns the others.
func (c *compiler) begin(operands []node) (murmur, []node) {
	var h murmur
	for i := range operands {
		switch n := &operands[i]; n.op {
		case opFlagKey:
			h = h.add(c.key)
		case opConst:
			h = h.add(resultText(n.value))
		default:
			return h, operands[i:]
		}
	}
	return h, nil
}

// bucket checks one bucket and returns its weight; false when it is only known at
// evaluation.
func (c *compiler) bucket(path document.Path, n *node, src any) (weight uint64, constant bool) {
	parts, literal := src.([]any)
	if !literal {
		if isScalar(src) {
			c.Add(path, "is no bucket; each is [variant] or [variant, weight]")
		}
		return 0, false
	}
	if len(parts) == 0 || len(parts) > 2 {
		c.Add(path, "has %d elements; a bucket is [variant] or [variant, weight]", len(parts))
		return 0, false
	}
	if v := n.args[0].value; n.args[0].op == opConst && v.typ >= ListType {
		c.Add(path.Index(0), "is of type %s, but must be the name of a variant", v.typ)
		return 0, false
	}
	constant = n.args[0].isScalar()
	if len(parts) == 1 {
		return 1, constant
	}
	w := &n.args[1]
	if w.op != opConst {
		return 0, false
	}
	number, ok := w.value.AsInt()
	if !ok {
		c.Add(path.Index(1), "is %s; a weight is an integer", w.value.AppendJSON(nil))
		return 0, false
	}
	if number < 0 {
		c.Add(path.Index(1), "is %d; a constant weight is not negative", number)
		number = 0
	}
	return uint64(min(number, maxWeight+1)), constant
}

// isScalar tells whether a node can only result in a string, number, boolean or
// null.
func (n *node) isScalar() bool {
	switch n.op {
	case opConst:
		return n.value.typ < ListType
	case opIf:
		for i := range n.args {
			if (operator{op: opIf}).results(i, len(n.args)) && !n.args[i].isScalar() {
				return false
			}
		}
		return true
	case opFractional:
		return n.fractional != nil && n.fractional.buckets != nil
	default:
		return false
	}
}
