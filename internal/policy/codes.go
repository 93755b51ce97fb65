package policy

import (
	"fmt"
	"math/bits"
	"slices"
)

// Codes is a set of gRPC codes, a bit each.
type Codes uint32

// codeNames are the names of gRPC's codes at their numbers.
var codeNames = []string{ //nolint:gochecknoglobals // a table
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
	"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// ErrorNames returns the names of the codes that say that a call failed.
func ErrorNames() []string { return codeNames[1:] }

// codesOf returns the codes with these names; unknown ones are left out.
func codesOf(names ...string) Codes {
	var c Codes
	for i, name := range codeNames {
		if slices.Contains(names, name) {
			c |= 1 << i
		}
	}
	return c
}

// Has tells whether a code, by its number, is among them.
func (c Codes) Has(code uint32) bool { return code < 32 && c>>code&1 == 1 }

// Names returns the names of the codes in the order of their numbers.
func (c Codes) Names() []string {
	names := make([]string, 0, bits.OnesCount32(uint32(c)))
	for i, name := range codeNames {
		if c.Has(uint32(i)) { //nolint:gosec // an index of a short table
			names = append(names, name)
		}
	}
	return names
}

// String returns the names.
func (c Codes) String() string { return fmt.Sprint(c.Names()) }
