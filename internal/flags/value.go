package flags

import (
	"math"
	"unsafe"
)

// Type is the JSON type of a value; numbers tell integers from others.
type Type uint8

// The types of values.
const (
	NullType Type = iota
	BoolType
	IntType
	FloatType
	StringType
	ListType
	ObjectType
)

// String returns "null", "boolean", "integer", "number", "string", "list" or
// "object".
func (t Type) String() string {
	switch t {
	case NullType:
		return "null"
	case BoolType:
		return "boolean"
	case IntType:
		return "integer"
	case FloatType:
		return "number"
	case StringType:
		return "string"
	case ListType:
		return "list"
	case ObjectType:
		return "object"
	default:
		return "unknown"
	}
}

// Value is a value of the flag language: of a variant, of an attribute that
// rules look at, or of metadata. The zero value is null. A Value is immutable as
// long as nobody changes the slice that it was made of, and three words long, so
// that it is passed and kept without an allocation.
type Value struct {
	// data is the first byte of a string, element of a list or member of an
	// object, and num their number; of a boolean or a number it is nil, and num
	// holds the bits.
	data unsafe.Pointer
	num  uint64
	typ  Type
}

// Attribute is a value with its name: a member of an object, or one thing that
// is known of whom a flag is evaluated for.
type Attribute struct {
	Key   string
	Value Value
}

// TargetingKey is the attribute that tells for whom a flag is evaluated.
const TargetingKey = "targetingKey"

// Bool returns a boolean.
func Bool(b bool) Value {
	if b {
		return Value{typ: BoolType, num: 1}
	}
	return Value{typ: BoolType}
}

// Int returns an integer.
func Int(n int64) Value { return Value{typ: IntType, num: uint64(n)} }

// Float returns a number. What JSON cannot hold, infinities and NaN, is null.
func Float(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return Value{typ: FloatType, num: math.Float64bits(f)}
}

// String returns a string.
func String(s string) Value {
	return Value{typ: StringType, num: uint64(len(s)), data: unsafe.Pointer(unsafe.StringData(s))}
}

// List returns a list, which keeps the slice.
func List(elements ...Value) Value {
	return Value{typ: ListType, num: uint64(len(elements)), data: unsafe.Pointer(unsafe.SliceData(elements))}
}

// Object returns an object, which keeps the slice. Of members with one key the
// last one counts.
func Object(members ...Attribute) Value {
	return Value{typ: ObjectType, num: uint64(len(members)), data: unsafe.Pointer(unsafe.SliceData(members))}
}

// Type returns the type.
func (v Value) Type() Type { return v.typ }

// AsBool returns a boolean; false as ok when the value is none.
func (v Value) AsBool() (b, ok bool) { return v.num != 0, v.typ == BoolType }

// AsInt returns a number that is an integer, however it was given; false as ok
// when the value is no number or cannot be an int64 without loss.
func (v Value) AsInt() (n int64, ok bool) {
	switch v.typ {
	case IntType:
		return int64(v.num), true
	case FloatType:
		f := math.Float64frombits(v.num)
		// -2^63 is a float64, 2^63-1 is not.
		if f != math.Trunc(f) || f < -1<<63 || f >= 1<<63 {
			return 0, false
		}
		return int64(f), true
	default:
		return 0, false
	}
}

// AsFloat returns a number; false as ok when the value is no number or cannot be
// a float64 without loss.
func (v Value) AsFloat() (f float64, ok bool) {
	switch v.typ {
	case IntType:
		n := int64(v.num)
		f = float64(n)
		// A conversion back is only defined below 2^63.
		return f, f < 1<<63 && int64(f) == n
	case FloatType:
		return math.Float64frombits(v.num), true
	default:
		return 0, false
	}
}

// AsString returns a string; false as ok when the value is none.
func (v Value) AsString() (s string, ok bool) {
	if v.typ != StringType {
		return "", false
	}
	return v.str(), true
}

// Elements returns the elements of a list, which must not be changed; false as
// ok when the value is none.
func (v Value) Elements() (elements []Value, ok bool) {
	if v.typ != ListType {
		return nil, false
	}
	return v.list(), true
}

// Members returns the members of an object, which must not be changed; false as
// ok when the value is none.
func (v Value) Members() (members []Attribute, ok bool) {
	if v.typ != ObjectType {
		return nil, false
	}
	return v.object(), true
}

// str, list and object are for values that are known to be one.

func (v Value) str() string         { return unsafe.String((*byte)(v.data), v.num) }
func (v Value) list() []Value       { return unsafe.Slice((*Value)(v.data), v.num) }
func (v Value) object() []Attribute { return unsafe.Slice((*Attribute)(v.data), v.num) }

// float returns a number as ECMAScript has it.
func (v Value) float() float64 {
	if v.typ == IntType {
		return float64(int64(v.num))
	}
	return math.Float64frombits(v.num)
}
