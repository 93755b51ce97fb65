package flags

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"sort"
	"testing"
)

// naiveMurmur3 is MurmurHash3_x86_32 with seed 0.
func naiveMurmur3(data []byte) uint32 {
	h := uint32(0)
	scramble := func(k uint32) uint32 { return bits.RotateLeft32(k*0xcc9e2d51, 15) * 0x1b873593 }
	rest := data
	for len(rest) >= 4 {
		h ^= scramble(binary.LittleEndian.Uint32(rest))
		h = bits.RotateLeft32(h, 13)*5 + 0xe6546b64
		rest = rest[4:]
	}
	var tail [4]byte
	copy(tail[:], rest)
	h ^= scramble(binary.LittleEndian.Uint32(tail[:]))
	h ^= uint32(len(data))
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	h ^= h >> 16
	return h
}

// naiveCBOR is the deterministic encoding of RFC 8949, section 4.2.1, of a value
// in which numbers without a fraction are integers where an integer can be.
func naiveCBOR(value any) []byte {
	switch x := value.(type) {
	case nil:
		return []byte{0xf6}
	case bool:
		if x {
			return []byte{0xf5}
		}
		return []byte{0xf4}
	case string:
		return append(naiveHead(3, uint64(len(x))), x...)
	case []any:
		out := naiveHead(4, uint64(len(x)))
		for _, element := range x {
			out = append(out, naiveCBOR(element)...)
		}
		return out
	case map[string]any:
		type entry struct{ key, value []byte }
		var entries []entry
		for key, value := range x {
			entries = append(entries, entry{naiveCBOR(key), naiveCBOR(value)})
		}
		sort.Slice(entries, func(i, j int) bool { return bytes.Compare(entries[i].key, entries[j].key) < 0 })
		out := naiveHead(5, uint64(len(x)))
		for _, e := range entries {
			out = append(append(out, e.key...), e.value...)
		}
		return out
	case float64:
		return naiveNumberCBOR(x)
	case int64:
		if x < 0 {
			return naiveHead(1, uint64(-(x + 1)))
		}
		return naiveHead(0, uint64(x))
	default:
		panic("no value")
	}
}

func naiveNumberCBOR(x float64) []byte {
	if x == math.Trunc(x) && !math.IsInf(x, 0) {
		n, _ := big.NewFloat(x).Int(nil)
		if n.Sign() >= 0 && n.IsUint64() {
			return naiveHead(0, n.Uint64())
		}
		if n.Sign() < 0 && n.IsInt64() {
			return naiveHead(1, uint64(-(n.Int64() + 1)))
		}
	}
	if single := float32(x); float64(single) == x {
		if half, ok := naiveHalf(single); ok {
			return binary.BigEndian.AppendUint16([]byte{0xf9}, half)
		}
		return binary.BigEndian.AppendUint32([]byte{0xfa}, math.Float32bits(single))
	}
	return binary.BigEndian.AppendUint64([]byte{0xfb}, math.Float64bits(x))
}

// naiveHalf finds the half-precision number that is x by trying all of them.
func naiveHalf(x float32) (uint16, bool) {
	for h := range 1 << 16 {
		sign, exponent, fraction := h>>15, h>>10&31, float64(h&1023)
		if exponent == 31 {
			continue // infinities and NaN
		}
		value := math.Ldexp(1+fraction/1024, exponent-15)
		if exponent == 0 {
			value = math.Ldexp(fraction/1024, -14)
		}
		if sign == 1 {
			value = -value
		}
		if value == float64(x) {
			return uint16(h), true
		}
	}
	return 0, false
}

func naiveHead(major byte, n uint64) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n <= math.MaxUint8:
		return []byte{major<<5 | 24, byte(n)}
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32([]byte{major<<5 | 26}, uint32(n))
	default:
		return binary.BigEndian.AppendUint64([]byte{major<<5 | 27}, n)
	}
}

// The oracle is only worth as much as it is right: published vectors.

func TestNaiveMurmur3(t *testing.T) {
	for text, want := range map[string]uint32{
		"": 0, "test": 0xba6bd213, "Hello, world!": 0xc0363e43, "The quick brown fox jumps over the lazy dog": 0x2e4ff723,
		"\xff\xff\xff\xff": 0x76293b50, "\x21\x43\x65\x87": 0xf55b516b, "\x21\x43\x65": 0x7e4a8634, "\x21\x43": 0xa0f7b07a, "\x21": 0x72661cf4,
		"\x00\x00\x00\x00": 0x2362f9de, "\x00": 0x514e28b7,
	} {
		if got := naiveMurmur3([]byte(text)); got != want {
			t.Errorf("%q: %#x, want %#x", text, got, want)
		}
	}
}

func TestNaiveCBOR(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{0.0, "\x00"},
		{math.Copysign(0, -1), "\x00"},
		{23.0, "\x17"},
		{24.0, "\x18\x18"},
		{1000.0, "\x19\x03\xe8"},
		{1000000.0, "\x1a\x00\x0f\x42\x40"},
		{1000000000000.0, "\x1b\x00\x00\x00\xe8\xd4\xa5\x10\x00"},
		{-1.0, "\x20"},
		{-100.0, "\x38\x63"},
		{-1000.0, "\x39\x03\xe7"},
		{18446744073709551616.0, "\xfa\x5f\x80\x00\x00"},
		{1.5, "\xf9\x3e\x00"},
		{1.1, "\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a"},
		{5.960464477539063e-8, "\xf9\x00\x01"},
		{0.00006103515625, "\xf9\x04\x00"},
		{-4.1, "\xfb\xc0\x10\x66\x66\x66\x66\x66\x66"},
		{1.0e+300, "\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c"},
		{false, "\xf4"},
		{true, "\xf5"},
		{nil, "\xf6"},
		{"", "\x60"},
		{"\u00fc", "\x62\xc3\xbc"},
		{[]any{1.0, []any{2.0, 3.0}}, "\x82\x01\x82\x02\x03"},
		{map[string]any{"bb": 2.0, "c": []any{}, "a": 1.0}, "\xa3\x61a\x01\x61c\x80\x62bb\x02"},
	} {
		if got := naiveCBOR(c.value); string(got) != c.want {
			t.Errorf("%v: %x, want %x", c.value, got, c.want)
		}
	}
}

func TestNaiveNumbers(t *testing.T) {
	for x, want := range map[float64]string{
		1: "1", -0.5: "-0.5", 1e21: "1e+21", 123456789012345680000: "123456789012345680000", 1e-6: "0.000001", 1e-7: "1e-7", 1.5e-7: "1.5e-7",
		5e-324: "5e-324", 1.7976931348623157e308: "1.7976931348623157e+308", 100: "100", 0.30000000000000004: "0.30000000000000004",
	} {
		if got := naiveNumberText(x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
	for text, want := range map[string]float64{
		"": 0, " \u00a0\ufeff1\n": 1, "0x1F": 31, "0b101": 5, "0o17": 15, "-0x1": math.NaN(), "0x": math.NaN(), "1_000": math.NaN(), ".5": 0.5,
		"5.": 5, ".": math.NaN(), "1e3": 1000, "1e": math.NaN(), "e1": math.NaN(), "-Infinity": math.Inf(-1), "+Infinity": math.Inf(1), "inf": math.NaN(),
		"nan": math.NaN(), "1e999": math.Inf(1), "--1": math.NaN(), "+-1": math.NaN(), "1 2": math.NaN(), "0xg": math.NaN(), "00012": 12,
		"0x1p4": math.NaN(), "1e-+1": math.NaN(), "1e+-1": math.NaN(), "0x-1": math.NaN(),
	} {
		if got := naiveNumberOfText(text); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
