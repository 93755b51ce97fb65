package flags

import "math/bits"

// murmur is MurmurHash3 x86 32 bit with seed 0 (Austin Appleby, public domain)
// over bytes that come in pieces. The zero value has seen none.
type murmur struct {
	hash uint32
	tail uint32 // the last n%4 bytes, little-endian
	n    uint32
}

const (
	murmurC1 = 0xcc9e2d51
	murmurC2 = 0x1b873593
)

// add returns the state after more bytes. It takes them by fours also where they
// do not begin at a multiple of four.
func (m murmur) add(s string) murmur {
	shift := 8 * (m.n % 4)
	m.n += uint32(len(s))
	for ; len(s) >= 4; s = s[4:] {
		k := uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		m.hash = mix(m.hash, m.tail|k<<shift)
		m.tail = k >> (32 - shift)
	}
	for i := range len(s) {
		m.tail |= uint32(s[i]) << shift
		if shift += 8; shift == 32 {
			m.hash = mix(m.hash, m.tail)
			m.tail, shift = 0, 0
		}
	}
	return m
}

func (m murmur) addByte(b byte) murmur {
	m.tail |= uint32(b) << (8 * (m.n % 4))
	m.n++
	if m.n%4 == 0 {
		m.hash = mix(m.hash, m.tail)
		m.tail = 0
	}
	return m
}

// mix takes in four bytes.
func mix(hash, k uint32) uint32 {
	hash ^= bits.RotateLeft32(k*murmurC1, 15) * murmurC2
	return bits.RotateLeft32(hash, 13)*5 + 0xe6546b64
}

// sum returns the hash of all bytes so far.
func (m murmur) sum() uint32 {
	h := m.hash
	if m.n%4 != 0 {
		h ^= bits.RotateLeft32(m.tail*murmurC1, 15) * murmurC2
	}
	h ^= m.n
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}
