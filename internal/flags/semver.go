package flags

import (
	"cmp"
	"strings"
)

// semver is a semantic version (semver.org, version 2) without its build
// metadata. Numbers are digits without leading zeros, of any length.
type semver struct {
	major, minor, patch string
	prerelease          string
}

// parseSemver reads a version. Of "1" and "1.2" the rest is 0; one leading v or V
// means nothing.
func parseSemver(s string) (v semver, ok bool) {
	if s != "" && s[0]|0x20 == 'v' {
		s = s[1:]
	}
	v = semver{minor: "0", patch: "0"}
	if v.major, s, ok = cutNumber(s); !ok || s == "" {
		return v, ok
	}
	if s[0] != '.' {
		return v, false
	}
	if v.minor, s, ok = cutNumber(s[1:]); !ok || s == "" {
		return v, ok
	}
	if s[0] != '.' {
		return v, false
	}
	if v.patch, s, ok = cutNumber(s[1:]); !ok || s == "" {
		return v, ok
	}
	if s[0] == '-' {
		v.prerelease, _, _ = strings.Cut(s[1:], "+")
		s = s[1+len(v.prerelease):]
		if !identifiers(v.prerelease, true) {
			return v, false
		}
	}
	return v, s == "" || s[0] == '+' && identifiers(s[1:], false)
}

// cutNumber returns the digits at the beginning of a string and the rest.
func cutNumber(s string) (number, rest string, ok bool) {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return s[:n], s[n:], n == 1 || n > 1 && s[0] != '0'
}

// identifiers tells whether a string is identifiers with dots between them, in a
// prerelease numbers without leading zeros.
func identifiers(s string, prerelease bool) bool {
	for more := true; more; {
		var part string
		part, s, more = strings.Cut(s, ".")
		if part == "" || prerelease && len(part) > 1 && part[0] == '0' && isDigits(part) {
			return false
		}
		for _, b := range []byte(part) {
			switch {
			case '0' <= b && b <= '9', 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', b == '-':
			default:
				return false
			}
		}
	}
	return true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// compare orders versions as semver.org says.
func (v semver) compare(w semver) int {
	if c := cmp.Or(compareNumbers(v.major, w.major), compareNumbers(v.minor, w.minor), compareNumbers(v.patch, w.patch)); c != 0 {
		return c
	}
	if v.prerelease == "" || w.prerelease == "" {
		// A version comes after its prereleases.
		return cmp.Compare(w.prerelease, v.prerelease)
	}
	a, b := v.prerelease, w.prerelease
	for {
		var x, y string
		var moreA, moreB bool
		x, a, moreA = strings.Cut(a, ".")
		y, b, moreB = strings.Cut(b, ".")
		switch c := compareIdentifiers(x, y); {
		case c != 0:
			return c
		case !moreA && !moreB:
			return 0
		case !moreA:
			return -1
		case !moreB:
			return 1
		}
	}
}

func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func compareIdentifiers(a, b string) int {
	switch numberA, numberB := isDigits(a), isDigits(b); {
	case numberA && numberB:
		return compareNumbers(a, b)
	case numberA:
		return -1
	case numberB:
		return 1
	default:
		return strings.Compare(a, b)
	}
}

// semverOperators are those of "sem_ver".
var semverOperators = []string{"=", "!=", "<", "<=", ">", ">=", "^", "~"} //nolint:gochecknoglobals // a table

// versionRange is what could be prepared of a "sem_ver": its last operand, where it
// is a constant.
type versionRange struct {
	bound semver
}

// semver evaluates "sem_ver"; null for what is no version or no operator.
func (m *machine) semver(r *versionRange, version, operator, other Value) Value {
	v, ok := m.version(version)
	if !ok {
		return Value{}
	}
	var bound semver
	if r != nil {
		bound = r.bound
	} else if bound, ok = m.version(other); !ok {
		return Value{}
	}
	if operator.typ != StringType {
		return Value{}
	}
	switch c := v.compare(bound); operator.str() {
	case "=":
		return Bool(c == 0)
	case "!=":
		return Bool(c != 0)
	case "<":
		return Bool(c < 0)
	case "<=":
		return Bool(c <= 0)
	case ">":
		return Bool(c > 0)
	case ">=":
		return Bool(c >= 0)
	case "^":
		return Bool(v.major == bound.major)
	case "~":
		return Bool(v.major == bound.major && v.minor == bound.minor)
	default:
		return Value{}
	}
}

// version reads a version from a string or a number.
func (m *machine) version(v Value) (semver, bool) {
	if v.typ != StringType && !v.isNumber() {
		return semver{}, false
	}
	s := m.text(v).str()
	if len(s) > 64 && !m.spend(len(s)>>4) {
		return semver{}, false
	}
	return parseSemver(s)
}
