package flags

import (
	"math/big"
	"strings"
)

// naiveVersion is a version of semver.org 2.0.0 without its build metadata.
type naiveVersion struct {
	core       [3]*big.Int
	prerelease []string
}

// naiveSemver is the operator sem_ver: a boolean or null.
func naiveSemver(value, operator, wanted any) any {
	a, okA := naiveParseVersion(value)
	b, okB := naiveParseVersion(wanted)
	if !okA || !okB {
		return nil
	}
	order := naiveCompareVersions(a, b)
	major := a.core[0].Cmp(b.core[0]) == 0
	minor := a.core[1].Cmp(b.core[1]) == 0
	switch operator {
	case "=":
		return order == 0
	case "!=":
		return order != 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	case "^":
		return major
	case "~":
		return major && minor
	default:
		return nil
	}
}

func naiveParseVersion(value any) (naiveVersion, bool) {
	switch value.(type) {
	case string, float64, int64:
	default:
		return naiveVersion{}, false
	}
	text := naiveString(value)
	if strings.HasPrefix(text, "v") || strings.HasPrefix(text, "V") {
		text = text[1:]
	}
	text, build, hasBuild := strings.Cut(text, "+")
	if hasBuild && !naiveIdentifiers(build, false) {
		return naiveVersion{}, false
	}
	core, prerelease, hasPrerelease := strings.Cut(text, "-")
	if hasPrerelease && !naiveIdentifiers(prerelease, true) {
		return naiveVersion{}, false
	}
	parts := strings.Split(core, ".")
	if len(parts) > 3 {
		return naiveVersion{}, false
	}
	if len(parts) < 3 && (hasPrerelease || hasBuild) {
		return naiveVersion{}, false
	}
	for len(parts) < 3 {
		parts = append(parts, "0")
	}
	var v naiveVersion
	for i, part := range parts {
		if !naiveDigits(part) || len(part) > 1 && part[0] == '0' {
			return naiveVersion{}, false
		}
		v.core[i], _ = new(big.Int).SetString(part, 10)
	}
	if hasPrerelease {
		v.prerelease = strings.Split(prerelease, ".")
	}
	return v, true
}

// naiveIdentifiers tells whether s is identifiers with dots between them.
func naiveIdentifiers(s string, prerelease bool) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
	for identifier := range strings.SplitSeq(s, ".") {
		if identifier == "" || strings.Trim(identifier, letters) != "" {
			return false
		}
		if prerelease && naiveDigits(identifier) && len(identifier) > 1 && identifier[0] == '0' {
			return false
		}
	}
	return true
}

func naiveCompareVersions(a, b naiveVersion) int {
	for i := range a.core {
		if c := a.core[i].Cmp(b.core[i]); c != 0 {
			return c
		}
	}
	switch {
	case len(a.prerelease) == 0 && len(b.prerelease) == 0:
		return 0
	case len(a.prerelease) == 0:
		return 1
	case len(b.prerelease) == 0:
		return -1
	}
	for i := 0; ; i++ {
		switch {
		case i == len(a.prerelease) && i == len(b.prerelease):
			return 0
		case i == len(a.prerelease):
			return -1
		case i == len(b.prerelease):
			return 1
		}
		if c := naiveCompareIdentifiers(a.prerelease[i], b.prerelease[i]); c != 0 {
			return c
		}
	}
}

func naiveCompareIdentifiers(a, b string) int {
	switch numberA, numberB := naiveDigits(a), naiveDigits(b); {
	case numberA && numberB:
		x, _ := new(big.Int).SetString(a, 10)
		y, _ := new(big.Int).SetString(b, 10)
		return x.Cmp(y)
	case numberA:
		return -1
	case numberB:
		return 1
	default:
		return strings.Compare(a, b)
	}
}
