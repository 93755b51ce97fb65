package flags

import (
	"math"
	"strconv"
	"strings"
)

// appendNumber appends a number as ECMAScript's Number::toString prints it, which
// is also how canonical JSON holds it.
func appendNumber(b []byte, f float64) []byte {
	switch abs := math.Abs(f); {
	case f == 0:
		return append(b, '0') // also of -0
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	case abs >= 1e-6 && abs < 1e21:
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	// Go writes at least two digits of exponent, ECMAScript as few as it can.
	if n := len(b); b[n-2] == '0' && (b[n-3] == '+' || b[n-3] == '-') {
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

// parseNumber reads a string as ECMAScript's Number(string) does; NaN when it is
// no number.
func parseNumber(s string) float64 {
	s = strings.TrimFunc(s, isSpace)
	if s == "" {
		return 0
	}
	if len(s) > 2 && s[0] == '0' {
		if base := baseOf(s[1]); base != 0 {
			return parseDigits(s[2:], base)
		}
	}
	rest := s
	if rest[0] == '+' || rest[0] == '-' {
		rest = rest[1:]
	}
	if rest == "Infinity" {
		if s[0] == '-' {
			return math.Inf(-1)
		}
		return math.Inf(1)
	}
	if !isDecimal(rest) {
		return math.NaN()
	}
	// Only what is out of range makes an error, and then f is an infinity or 0.
	f, _ := strconv.ParseFloat(s, 64)
	return f
}

// isSpace tells what ECMAScript calls white space or the end of a line.
func isSpace(r rune) bool {
	switch r {
	case '\t', '\n', '\v', '\f', '\r', ' ', 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000, 0xfeff:
		return true
	default:
		return 0x2000 <= r && r <= 0x200a
	}
}

func baseOf(b byte) int {
	switch b | 0x20 {
	case 'x':
		return 16
	case 'o':
		return 8
	case 'b':
		return 2
	default:
		return 0
	}
}

// parseDigits reads an integer of a base. Beyond 2^53 it rounds digit by digit,
// and so may be off in the last place.
func parseDigits(s string, base int) float64 {
	f := 0.0
	for i := range len(s) {
		digit := 99
		switch c := s[i] | 0x20; {
		case '0' <= s[i] && s[i] <= '9':
			digit = int(s[i] - '0')
		case 'a' <= c && c <= 'f':
			digit = int(c-'a') + 10
		}
		if digit >= base {
			return math.NaN()
		}
		f = f*float64(base) + float64(digit)
	}
	return f
}

// isDecimal tells whether a string is an unsigned decimal literal: digits with at
// most one point, and an exponent. strconv reads more, such as "1_000" or "inf".
func isDecimal(s string) bool {
	digits, i := 0, 0
	for point := false; i < len(s); i++ {
		switch {
		case '0' <= s[i] && s[i] <= '9':
			digits++
			continue
		case s[i] == '.' && !point:
			point = true
			continue
		}
		break
	}
	if digits == 0 || i == len(s) {
		return digits > 0
	}
	if s[i]|0x20 != 'e' {
		return false
	}
	i++
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		i++
	}
	if i == len(s) {
		return false
	}
	for ; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
