package flags

import (
	"strings"
	"sync"
)

// maxSteps bounds the work of one evaluation: the operands and characters that
// operators on lists and long strings look at. What one rule without such
// operators does is bounded by its length.
const maxSteps = 1 << 20

// rootType is the type of the whole data of an evaluation, {"var":""}: an object
// that exists only as the attributes of the machine.
const rootType = ObjectType + 1

// subject is for whom a rule is evaluated. It is apart from the machine so that
// the compiler can tell that the caller's slice is not kept: what is evaluated on
// it stays on the caller's stack. For the same reason every call below is static.
type subject struct {
	attributes []Attribute
}

// machine evaluates one rule once.
type machine struct {
	key     string
	now     int64
	steps   int // left
	pool    *sync.Pool
	scratch *scratch // from the pool, once it is needed
}

// memory returns the memory for values of this evaluation.
func (m *machine) memory() *scratch {
	if m.scratch == nil {
		m.scratch, _ = m.pool.Get().(*scratch)
	}
	return m.scratch
}

// release ends an evaluation that has used memory.
func (m *machine) release() {
	m.scratch.reset()
	m.pool.Put(m.scratch)
	m.scratch = nil
}

// scratch is memory for values that an evaluation makes. Values point into it, so
// it is used again only after the evaluation.
type scratch struct {
	bytes  []byte
	values []Value
	pairs  []Attribute
}

// maxKept is how many elements of scratch memory are kept for the next use.
const maxKept = 1 << 12

func newScratchPool() *sync.Pool { return &sync.Pool{New: func() any { return new(scratch) }} }

// reset forgets all values, so that what they pointed to can be freed.
func (s *scratch) reset() {
	if cap(s.values) > maxKept || cap(s.bytes) > maxKept || cap(s.pairs) > maxKept {
		*s = scratch{}
	}
	clear(s.values)
	clear(s.pairs)
	s.bytes, s.values, s.pairs = s.bytes[:0], s.values[:0], s.pairs[:0]
}

// list returns n null values that belong to the evaluation.
func (s *scratch) list(n int) []Value {
	if cap(s.values)-len(s.values) < n {
		// Older lists keep the memory that they are in.
		s.values = make([]Value, 0, max(2*cap(s.values), n, 32))
	}
	from := len(s.values)
	s.values = s.values[:from+n]
	return s.values[from : from+n : from+n]
}

// object returns n members that belong to the evaluation.
func (s *scratch) object(n int) []Attribute {
	if cap(s.pairs)-len(s.pairs) < n {
		s.pairs = make([]Attribute, 0, max(2*cap(s.pairs), n, 8))
	}
	from := len(s.pairs)
	s.pairs = s.pairs[:from+n]
	return s.pairs[from : from+n : from+n]
}

// end returns the bytes from one on as a string.
func (s *scratch) end(from int) Value {
	return String(unsafeString(s.bytes[from:]))
}

// spend takes steps from the budget and tells whether there were enough.
func (m *machine) spend(n int) bool {
	m.steps -= n
	return m.steps >= 0
}

// spent tells that the budget is used up: the result means nothing then.
func (m *machine) spent() bool { return m.steps < 0 }

// root returns the whole data.
func root() Value { return Value{typ: rootType} }

// attribute returns the last attribute with a key. It is short enough to be part
// of its callers.
func (m *machine) attribute(s *subject, key string) (Value, bool) {
	if len(s.attributes) > few && !m.spend(len(s.attributes)>>4) {
		return Value{}, false
	}
	for i := len(s.attributes) - 1; i >= 0; i-- { //nolint:modernize // an iterator copies each attribute
		if s.attributes[i].Key == key {
			return s.attributes[i].Value, true
		}
	}
	return Value{}, false
}

// few is up to how many members of an object are looked at for nothing.
const few = 64

const (
	flagdKey     = "$flagd"
	flagKeyKey   = "flagKey"
	timestampKey = "timestamp"
)

// flagd returns what rules can know of their flag and the time.
func (m *machine) flagd() Value {
	members := m.memory().object(2)
	members[0] = Attribute{Key: flagKeyKey, Value: String(m.key)}
	members[1] = Attribute{Key: timestampKey, Value: Int(m.now)}
	return Object(members...)
}

// step returns a member or an element of a value; false when there is none.
func (m *machine) step(who *subject, v Value, key string) (Value, bool) {
	switch v.typ { //nolint:exhaustive // nothing else has parts
	case rootType:
		if key == flagdKey {
			return m.flagd(), true
		}
		return m.attribute(who, key)
	case ObjectType:
		members := v.object()
		if n := len(members); n > few && !m.spend(n>>4) {
			return Value{}, false
		}
		for i := len(members) - 1; i >= 0; i-- { //nolint:modernize // an iterator copies each member
			if members[i].Key == key {
				return members[i].Value, true
			}
		}
	case ListType:
		if i, ok := index(key); ok && i < len(v.list()) {
			return v.list()[i], true
		}
	}
	return Value{}, false
}

// index reads the index of an element: decimal, without sign or leading zeros.
func index(key string) (int, bool) {
	if key == "" || len(key) > 9 || key[0] == '0' && len(key) > 1 {
		return 0, false
	}
	i := 0
	for _, b := range []byte(key) {
		if b < '0' || b > '9' {
			return 0, false
		}
		i = 10*i + int(b-'0')
	}
	return i, true
}

// walk follows a path whose keys are apart.
func (m *machine) walk(who *subject, v Value, path []string) (Value, bool) {
	for _, key := range path {
		var ok bool
		if v, ok = m.step(who, v, key); !ok {
			return Value{}, false
		}
	}
	return v, true
}

// walkText follows a path as text.
func (m *machine) walkText(who *subject, v Value, path string) (Value, bool) {
	if !m.spend(1 + len(path)) {
		return Value{}, false
	}
	for more := true; more; {
		var key string
		var ok bool
		key, path, more = strings.Cut(path, ".")
		if v, ok = m.step(who, v, key); !ok {
			return Value{}, false
		}
	}
	return v, true
}

// truthy tells whether a condition with this value holds.
func (v Value) truthy() bool {
	switch v.typ {
	case NullType:
		return false
	case BoolType, IntType, StringType, ListType, ObjectType:
		return v.num != 0 // of the last three it is the length
	case FloatType:
		return v.float() != 0
	default:
		return true // the whole data holds $flagd
	}
}
