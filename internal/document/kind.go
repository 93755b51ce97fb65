package document

import (
	"fmt"
	"strconv"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Kind says what a resource is. The numbers are those of the wire contract.
type Kind uint8

// The kinds of resources. Flags, modes and policies are declared; overrides are
// temporary.
const (
	Flag     = Kind(holdfastv1.Kind_KIND_FLAG)
	Mode     = Kind(holdfastv1.Kind_KIND_MODE)
	Policy   = Kind(holdfastv1.Kind_KIND_POLICY)
	Override = Kind(holdfastv1.Kind_KIND_OVERRIDE)
)

// Kinds lists every kind in order.
func Kinds() []Kind { return []Kind{Flag, Mode, Policy, Override} }

// ParseKind is the inverse of String for the known kinds.
func ParseKind(name string) (Kind, error) {
	for _, k := range Kinds() {
		if name == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("unknown kind %q: it is one of flag, mode, policy, override", name)
}

// Known tells whether this version knows the kind.
func (k Kind) Known() bool { return Flag <= k && k <= Override }

// String returns "flag", "mode", "policy" or "override".
func (k Kind) String() string {
	switch k {
	case Flag:
		return "flag"
	case Mode:
		return "mode"
	case Policy:
		return "policy"
	case Override:
		return "override"
	default:
		return "kind(" + strconv.Itoa(int(k)) + ")"
	}
}
