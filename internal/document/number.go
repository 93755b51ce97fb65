package document

import (
	"fmt"
	"math"
	"strconv"
)

// MaxInteger is the largest integer that a number may be: the largest up to
// which a float64, the only number of many languages, holds every integer.
const MaxInteger = 1<<53 - 1

// number reads a number and appends it as ECMAScript's Number::toString does.
func (c *canonicalizer) number() error {
	start := c.pos
	fraction, msg := c.scanNumber()
	if msg != "" {
		return c.fail(c.pos, msg)
	}
	text := c.src[start:c.pos]
	if !fraction {
		return c.integer(start, text)
	}
	// Out of range gives an infinity, which is refused below with what is too large.
	f, _ := strconv.ParseFloat(string(text), 64)
	switch {
	case f == 0 && !isZero(text):
		return c.fail(start, fmt.Sprintf("number %s is too small for a float64", brief(text)))
	case math.Abs(f) > MaxInteger:
		return c.fail(start, fmt.Sprintf("number %s is beyond ±%d", brief(text), MaxInteger))
	}
	c.out = appendFloat(c.out, f)
	return nil
}

// integer appends a number that has neither fraction nor exponent.
func (c *canonicalizer) integer(start int, text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n > MaxInteger || n < -MaxInteger {
		return c.fail(start, fmt.Sprintf("number %s is beyond ±%d", brief(text), MaxInteger))
	}
	c.out = strconv.AppendInt(c.out, n, 10)
	return nil
}

// scanNumber moves pos behind a number and tells whether it has a fraction or
// an exponent; or leaves pos where msg applies.
func (c *canonicalizer) scanNumber() (fraction bool, msg string) {
	if c.src[c.pos] == '-' {
		c.pos++
	}
	start := c.pos
	switch n := c.digits(); {
	case n == 0:
		return false, "number without digits"
	case n > 1 && c.src[start] == '0':
		c.pos = start
		return false, "number with a leading zero"
	}
	if c.pos < len(c.src) && c.src[c.pos] == '.' {
		c.pos++
		fraction = true
		if c.digits() == 0 {
			return false, "number without digits after the point"
		}
	}
	if c.pos < len(c.src) && c.src[c.pos]|0x20 == 'e' {
		c.pos++
		fraction = true
		if c.pos < len(c.src) && (c.src[c.pos] == '+' || c.src[c.pos] == '-') {
			c.pos++
		}
		if c.digits() == 0 {
			return false, "number without digits in the exponent"
		}
	}
	return fraction, ""
}

// digits moves pos behind a run of digits and returns their number.
func (c *canonicalizer) digits() int {
	start := c.pos
	for c.pos < len(c.src) && isDigit(c.src[c.pos]) {
		c.pos++
	}
	return c.pos - start
}

// appendFloat appends the shortest decimal that is read as f, in ECMAScript's
// form. |f| is at most MaxInteger, so the exponent form is for small numbers.
func appendFloat(out []byte, f float64) []byte {
	if f == 0 {
		return append(out, '0') // there is one zero; -0 is it as well
	}
	if math.Abs(f) >= 1e-6 {
		return strconv.AppendFloat(out, f, 'f', -1, 64)
	}
	out = strconv.AppendFloat(out, f, 'e', -1, 64)
	// Go writes at least two digits of exponent, ECMAScript as few as it can.
	if n := len(out); out[n-2] == '0' && out[n-3] == '-' {
		out[n-2] = out[n-1]
		out = out[:n-1]
	}
	return out
}

// isZero tells whether the digits before the exponent are all 0.
func isZero(text []byte) bool {
	for _, b := range text {
		switch {
		case b|0x20 == 'e':
			return true
		case isDigit(b) && b != '0':
			return false
		}
	}
	return true
}

// brief shortens a number for a message.
func brief(text []byte) string {
	const most = 40
	if len(text) <= most {
		return string(text)
	}
	return string(text[:most]) + "…"
}
