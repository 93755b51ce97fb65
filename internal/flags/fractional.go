package flags

import "math"

// maxWeight is the most that the weights of a "fractional" may sum up to.
const maxWeight = 1<<31 - 1

// fractional is what could be prepared of a "fractional".
type fractional struct {
	v3 bool
	// implicit is the hash of the flag's key, to go on with the targeting key.
	implicit murmur
	// buckets are set when all of them are literal with constant weights that add
	// up; then seed is the first operand if it is none of them.
	buckets []bucket
	seed    *node
	total   uint64
	// begun is the hash of the first operands of a seed that is a "cat", and rest
	// are the others: most seeds begin with the flag's key.
	begun murmur
	rest  []node
}

// bucket is a share of the hash values.
type bucket struct {
	variant *node
	end     uint64 // sum of the weights up to here
}

// bucket returns the bucket of this evaluation, -1 where the result is null. It is
// not simple where the operands have to be evaluated for that.
func (m *machine) bucket(n *node, who *subject, data Value) (i int, simple bool) {
	f := n.fractional
	if f.buckets == nil {
		return 0, false
	}
	var hash uint32
	var ok bool
	switch {
	case f.seed == nil:
		hash, ok = m.implicitHash(f, who)
	case f.seed.op == opCat && !f.seed.spread && !f.v3:
		hash, ok = m.catHash(f, who, data)
	default:
		seed := m.eval(f.seed, who, data)
		switch {
		case seed.typ == ListType:
			return 0, false // it is a bucket
		case f.v3:
			hash, ok = m.hash3(seed)
		case seed.typ == StringType:
			hash, ok = m.hashText(seed.str())
		case seed.typ == NullType:
			hash, ok = m.implicitHash(f, who)
		}
	}
	if !ok {
		return -1, true
	}
	at := uint64(hash) * f.total >> 32
	for i := range f.buckets {
		if at < f.buckets[i].end {
			return i, true
		}
	}
	return -1, true
}

// hashText hashes a bucketing value; false when the budget is spent.
func (m *machine) hashText(s string) (uint32, bool) {
	if !m.spend(len(s) >> 4) {
		return 0, false
	}
	return murmur{}.add(s).sum(), true
}

// implicitHash hashes flag key and targeting key; false if there is none.
func (m *machine) implicitHash(f *fractional, who *subject) (uint32, bool) {
	v, _ := m.attribute(who, TargetingKey)
	if v.typ != StringType || v.num == 0 || !m.spend(int(v.num>>4)) {
		return 0, false
	}
	if f.v3 {
		return murmur{}.addHead(cborList, 2).addCBOR(String(m.key)).addCBOR(v).sum(), true
	}
	return f.implicit.add(v.str()).sum(), true
}

// catHash hashes what "cat" would make.
func (m *machine) catHash(f *fractional, who *subject, data Value) (uint32, bool) {
	h := f.begun
	for i := range f.rest {
		v := m.eval(&f.rest[i], who, data)
		if v.typ != StringType {
			v = m.text(v)
		}
		if !m.spend(int(v.num >> 4)) {
			return 0, false
		}
		h = h.add(v.str())
	}
	return h.sum(), true
}

// distribute evaluates a "fractional" of operands that are evaluated already.
func (m *machine) distribute(f *fractional, who *subject, args []Value) Value {
	hash, buckets, ok := m.split(f, who, args)
	if !ok || !m.spend(len(buckets)) {
		return Value{}
	}
	total := uint64(0)
	for _, b := range buckets {
		weight, ok := weightOf(b)
		if total += weight; !ok || total > maxWeight {
			return Value{}
		}
	}
	at, end := uint64(hash)*total>>32, uint64(0)
	for _, b := range buckets {
		weight, _ := weightOf(b)
		if end += weight; at < end {
			return b.list()[0]
		}
	}
	return Value{}
}

// split tells the bucketing value, which it hashes, from the buckets.
func (m *machine) split(f *fractional, who *subject, args []Value) (hash uint32, buckets []Value, ok bool) {
	switch {
	case len(args) == 0:
		return 0, nil, false
	case args[0].typ == ListType:
		hash, ok = m.implicitHash(f, who)
		return hash, args, ok
	case f.v3:
		hash, ok = m.hash3(args[0])
		return hash, args[1:], ok
	case args[0].typ == StringType:
		hash, ok = m.hashText(args[0].str())
		return hash, args[1:], ok
	case args[0].typ == NullType:
		hash, ok = m.implicitHash(f, who)
		return hash, args[1:], ok
	default:
		return 0, nil, false
	}
}

// hash3 hashes a bucketing value as version 3 of "fractional" does; false for null.
func (m *machine) hash3(v Value) (uint32, bool) {
	if v.typ == NullType || v.typ == rootType || !m.visit(v) {
		return 0, false
	}
	return murmur{}.addCBOR(v).sum(), true
}

// visit spends about a step for each part of a value; false when they run out.
func (m *machine) visit(v Value) bool {
	switch v.typ { //nolint:exhaustive // others have no parts
	case StringType:
		return m.spend(1 + int(v.num>>4))
	case ListType:
		for _, e := range v.list() {
			if !m.visit(e) {
				return false
			}
		}
	case ObjectType:
		for _, a := range v.object() {
			if !m.spend(1+len(a.Key)>>4) || !m.visit(a.Value) {
				return false
			}
		}
	}
	return m.spend(1)
}

// weightOf returns the weight of a bucket, [variant] or [variant, weight]; false
// for what is none.
func weightOf(b Value) (uint64, bool) {
	parts, ok := b.Elements()
	if !ok || len(parts) == 0 || len(parts) > 2 || parts[0].typ >= ListType {
		return 0, false
	}
	if len(parts) == 1 {
		return 1, true
	}
	weight := parts[1].float()
	if !parts[1].isNumber() || weight != math.Trunc(weight) {
		return 0, false
	}
	return uint64(min(max(0, weight), maxWeight+1)), true
}
