package document

import (
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads a string, appends its canonical form to out, and returns its
// decoded bytes, never nil. They may share the memory of src.
func (c *canonicalizer) text() ([]byte, error) {
	start := c.pos + 1
	for i := start; i < len(c.src); i++ {
		switch b := c.src[i]; {
		case b == '"':
			raw := c.src[start:i]
			if err := c.checkUTF8(raw, start); err != nil {
				return nil, err
			}
			c.pos = i + 1
			c.out = append(c.out, '"')
			c.out = append(c.out, raw...)
			c.out = append(c.out, '"')
			return raw, nil
		case b == '\\':
			return c.escapedText(start, i)
		case b < ' ':
			return nil, c.fail(i, fmt.Sprintf("control character %U in a string", b))
		}
	}
	return nil, c.fail(c.pos, "string without an end")
}

// escapedText is text for a string with its first escape at i.
func (c *canonicalizer) escapedText(start, i int) ([]byte, error) {
	decoded := append(make([]byte, 0, 2*(i-start)+16), c.src[start:i]...)
	if err := c.checkUTF8(decoded, start); err != nil {
		return nil, err
	}
	for i < len(c.src) {
		switch b := c.src[i]; {
		case b == '"':
			c.pos = i + 1
			c.out = AppendString(c.out, decoded)
			return decoded, nil
		case b == '\\':
			r, size, msg := unescape(c.src[i:])
			if msg != "" {
				return nil, c.fail(i, msg)
			}
			decoded = utf8.AppendRune(decoded, r)
			i += size
		case b < ' ':
			return nil, c.fail(i, fmt.Sprintf("control character %U in a string", b))
		default:
			r, size := utf8.DecodeRune(c.src[i:])
			if r == utf8.RuneError && size == 1 {
				return nil, c.fail(i, "invalid UTF-8")
			}
			decoded = append(decoded, c.src[i:i+size]...)
			i += size
		}
	}
	return nil, c.fail(c.pos, "string without an end")
}

// checkUTF8 reports the first byte of raw, which stands at offset in src, that
// is not UTF-8.
func (c *canonicalizer) checkUTF8(raw []byte, offset int) error {
	if utf8.Valid(raw) {
		return nil
	}
	i := 0
	for {
		r, size := utf8.DecodeRune(raw[i:])
		if r == utf8.RuneError && size <= 1 {
			return c.fail(offset+i, "invalid UTF-8")
		}
		i += size
	}
}

// unescape reads the escape at the beginning of s. It returns the character,
// the bytes it took, and a message when it is no escape.
func unescape(s []byte) (r rune, size int, msg string) {
	if len(s) < 2 {
		return 0, 0, "string without an end"
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2, ""
	case 'b':
		return '\b', 2, ""
	case 'f':
		return '\f', 2, ""
	case 'n':
		return '\n', 2, ""
	case 'r':
		return '\r', 2, ""
	case 't':
		return '\t', 2, ""
	case 'u':
	default:
		return 0, 0, fmt.Sprintf("unknown escape \\%c", s[1])
	}
	high, ok := hex4(s)
	if !ok {
		return 0, 0, "\\u without four hexadecimal digits"
	}
	if !utf16.IsSurrogate(high) {
		return high, 6, ""
	}
	low, ok := hex4(s[6:])
	if r = utf16.DecodeRune(high, low); !ok || r == utf8.RuneError {
		return 0, 0, fmt.Sprintf("\\u%04x is half of a surrogate pair", high)
	}
	return r, 12, ""
}

// hex4 reads \uXXXX.
func hex4(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, b := range s[2:6] {
		switch {
		case isDigit(b):
			b -= '0'
		case 'a' <= b && b <= 'f':
			b -= 'a' - 10
		case 'A' <= b && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(b)
	}
	return r, true
}

// AppendString appends a string, valid UTF-8, as canonical JSON: with only the
// escapes that JSON demands.
func AppendString[S string | []byte](out []byte, s S) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	for i := range len(s) {
		switch b := s[i]; {
		case b == '"' || b == '\\':
			out = append(out, '\\', b)
		case b >= ' ':
			out = append(out, b)
		case b == '\b':
			out = append(out, `\b`...)
		case b == '\f':
			out = append(out, `\f`...)
		case b == '\n':
			out = append(out, `\n`...)
		case b == '\r':
			out = append(out, `\r`...)
		case b == '\t':
			out = append(out, `\t`...)
		default:
			out = append(out, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
	}
	return append(out, '"')
}
