package flags

import (
	"cmp"
	"math"
	"slices"
)

// The major types of CBOR that flag values have.
const (
	cborUnsigned = 0 << 5
	cborNegative = 1 << 5
	cborText     = 3 << 5
	cborList     = 4 << 5
	cborMap      = 5 << 5
	cborSimple   = 7 << 5
)

// addCBOR hashes a value in the core deterministic encoding of RFC 8949, section
// 4.2.1: integers and floats as short as they can be, members in the order of
// their encoded keys. Numbers without a fraction are integers.
func (m murmur) addCBOR(v Value) murmur {
	switch v.typ {
	case BoolType:
		return m.addByte(cborSimple | 20 + byte(v.num))
	case IntType:
		return m.addInteger(int64(v.num))
	case FloatType:
		return m.addNumber(v.float())
	case StringType:
		return m.addHead(cborText, v.num).add(v.str())
	case ListType:
		m = m.addHead(cborList, v.num)
		for _, e := range v.list() {
			m = m.addCBOR(e)
		}
		return m
	case ObjectType:
		members := slices.Clone(sortedMembers(v.object()))
		slices.SortStableFunc(members, func(a, b Attribute) int {
			// The head of a longer key is greater.
			return cmp.Or(cmp.Compare(len(a.Key), len(b.Key)), cmp.Compare(a.Key, b.Key))
		})
		m = m.addHead(cborMap, uint64(len(members)))
		for _, a := range members {
			m = m.addCBOR(String(a.Key)).addCBOR(a.Value)
		}
		return m
	default:
		return m.addByte(cborSimple | 22) // null
	}
}

// addHead hashes a major type with its argument.
func (m murmur) addHead(major byte, n uint64) murmur {
	size := 0
	switch {
	case n < 24:
		return m.addByte(major | byte(n))
	case n <= math.MaxUint8:
		m, size = m.addByte(major|24), 1
	case n <= math.MaxUint16:
		m, size = m.addByte(major|25), 2
	case n <= math.MaxUint32:
		m, size = m.addByte(major|26), 4
	default:
		m, size = m.addByte(major|27), 8
	}
	return m.addBits(n, size)
}

// addBits hashes the last bytes of a number, the greatest first.
func (m murmur) addBits(n uint64, size int) murmur {
	for i := size - 1; i >= 0; i-- {
		m = m.addByte(byte(n >> (8 * i)))
	}
	return m
}

func (m murmur) addInteger(n int64) murmur {
	if n < 0 {
		return m.addHead(cborNegative, uint64(-1-n))
	}
	return m.addHead(cborUnsigned, uint64(n))
}

func (m murmur) addNumber(f float64) murmur {
	switch {
	case f == math.Trunc(f) && -1<<63 <= f && f < 1<<63:
		return m.addInteger(int64(f))
	case f == math.Trunc(f) && 0 <= f && f < 1<<64:
		return m.addHead(cborUnsigned, uint64(f))
	}
	if half, ok := halfBits(f); ok {
		return m.addByte(cborSimple|25).addBits(uint64(half), 2)
	}
	if single := float32(f); float64(single) == f {
		return m.addByte(cborSimple|26).addBits(uint64(math.Float32bits(single)), 4)
	}
	return m.addByte(cborSimple|27).addBits(math.Float64bits(f), 8)
}

// halfBits returns the bits of a finite number as a half-precision float; false
// when it is none.
func halfBits(f float64) (uint16, bool) {
	bits := math.Float64bits(f)
	sign := uint16(bits >> 48 & 0x8000)
	exponent := int(bits>>52&0x7ff) - 1023
	fraction := bits & (1<<52 - 1)
	switch {
	case f == 0:
		return sign, true
	case exponent >= -14 && exponent <= 15:
		return sign | uint16(exponent+15)<<10 | uint16(fraction>>42), fraction&(1<<42-1) == 0
	case exponent >= -24 && exponent < -14:
		// Subnormal: the leading one is part of the fraction.
		shift := 42 - 14 - exponent
		fraction |= 1 << 52
		return sign | uint16(fraction>>shift), fraction&(1<<shift-1) == 0
	default:
		return 0, false
	}
}
