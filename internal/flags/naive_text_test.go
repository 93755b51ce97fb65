package flags

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// naiveString is the text of a value.
func naiveString(value any) string {
	switch x := value.(type) {
	case nil:
		return ""
	case bool:
		if x {
			return "true"
		}
		return "false"
	case float64:
		return naiveNumberText(x)
	case int64:
		return strconv.FormatInt(x, 10)
	case string:
		return x
	case []any:
		text := ""
		for i, element := range x {
			if i > 0 {
				text += ","
			}
			text += naiveString(element)
		}
		return text
	case map[string]any:
		return "[object Object]"
	default:
		panic(fmt.Sprintf("no value: %T", value))
	}
}

// naiveNumberText is ECMAScript's Number::toString(x, 10), step by step: the
// value is digits × 10^(n-k), where k is the number of digits.
func naiveNumberText(x float64) string {
	switch {
	case math.IsNaN(x):
		return "NaN"
	case x == 0:
		return "0"
	case x < 0:
		return "-" + naiveNumberText(-x)
	case math.IsInf(x, 0):
		return "Infinity"
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(x, 'e', -1, 64), "e")
	digits := strings.Replace(mantissa, ".", "", 1)
	e, err := strconv.Atoi(exponent)
	if err != nil {
		panic(err)
	}
	k, n := len(digits), e+1
	switch {
	case k <= n && n <= 21:
		return digits + strings.Repeat("0", n-k)
	case 0 < n && n <= 21:
		return digits[:n] + "." + digits[n:]
	case -6 < n && n <= 0:
		return "0." + strings.Repeat("0", -n) + digits
	case k == 1:
		return digits + "e" + fmt.Sprintf("%+d", n-1)
	default:
		return digits[:1] + "." + digits[1:] + "e" + fmt.Sprintf("%+d", n-1)
	}
}

// naiveSpace are the code points that ECMAScript counts as white space.
const naiveSpace = "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"

// naiveNumberOfText is ECMAScript's StringToNumber.
func naiveNumberOfText(s string) float64 {
	s = strings.Trim(s, naiveSpace)
	if s == "" {
		return 0
	}
	if len(s) > 2 && s[0] == '0' && strings.ContainsRune("xXoObB", rune(s[1])) {
		base := map[byte]int{'x': 16, 'X': 16, 'o': 8, 'O': 8, 'b': 2, 'B': 2}[s[1]]
		for _, r := range s[2:] {
			if digit := strings.IndexRune("0123456789abcdef", r|0x20); digit < 0 || r > 'f' || digit >= base {
				return math.NaN()
			}
		}
		n, ok := new(big.Int).SetString(s[2:], base)
		if !ok {
			return math.NaN()
		}
		// ECMAScript rounds as the mathematical value is rounded: to nearest even.
		f, _ := new(big.Float).SetMode(big.ToNearestEven).SetInt(n).Float64()
		return f
	}
	unsigned := strings.TrimPrefix(s, "+")
	sign := 1.0
	if unsigned == s && strings.HasPrefix(s, "-") {
		unsigned, sign = s[1:], -1
	}
	if unsigned == "Infinity" {
		return math.Inf(int(sign))
	}
	mantissa, exponent := unsigned, ""
	if i := strings.IndexAny(unsigned, "eE"); i >= 0 {
		mantissa, exponent = unsigned[:i], unsigned[i+1:]
		exponent = strings.TrimPrefix(exponent, "+")
		if len(exponent) == len(unsigned[i+1:]) {
			exponent = strings.TrimPrefix(exponent, "-")
		}
		if !naiveDigits(exponent) {
			return math.NaN()
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if whole == "" && fraction == "" || whole != "" && !naiveDigits(whole) || fraction != "" && !naiveDigits(fraction) {
		return math.NaN()
	}
	// What is left is a number for strconv as well; too large is infinity for both.
	f, _ := strconv.ParseFloat(unsigned, 64)
	return sign * f
}

// naiveDigits tells whether s is one or more of the digits 0 to 9.
func naiveDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// naiveSplit splits a path at its dots.
func naiveSplit(path string) []string {
	before, after, found := strings.Cut(path, ".")
	if !found {
		return []string{before}
	}
	return append([]string{before}, naiveSplit(after)...)
}
