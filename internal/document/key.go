package document

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// DefaultNamespace is meant where a namespace is left empty.
	DefaultNamespace = "default"
	// MaxName is the longest name of a resource or namespace, in bytes.
	MaxName = 253
)

// Key names a resource within its namespace.
type Key struct {
	Kind Kind
	Name string
}

// Compare orders keys by kind, then by the bytes of the name.
func (k Key) Compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Kind, other.Kind), strings.Compare(k.Name, other.Name))
}

// String returns the key as "kind/name".
func (k Key) String() string { return k.Kind.String() + "/" + k.Name }

// Validate tells what is wrong with a key that somebody wants to use: an unknown
// kind, or what CheckName says of the name.
func (k Key) Validate() error {
	if !k.Kind.Known() {
		return fmt.Errorf("unknown kind %d", k.Kind)
	}
	return CheckName(k.Name)
}

// CheckName tells what is wrong with the name of a resource or namespace that
// somebody wants to use: what CheckStored says, or a character that this version
// of Unicode cannot print.
func CheckName(name string) error {
	if err := CheckStored(name); err != nil {
		return err
	}
	for i, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("name holds the unprintable character %U at byte %d", r, i)
		}
	}
	return nil
}

// CheckStored tells what is wrong with a name that is in use already: it is
// empty, longer than MaxName, not UTF-8, or holds control characters. It asks no
// table of Unicode, because tables grow: what one version has accepted, every
// other one has to be able to keep and to read.
func CheckStored(name string) error {
	switch {
	case name == "":
		return errors.New("name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("name has %d bytes; at most %d are allowed", len(name), MaxName)
	case !utf8.ValidString(name):
		return errors.New("name is not valid UTF-8")
	}
	for i, r := range name {
		if r < ' ' || '\x7f' <= r && r < '\u00a0' {
			return fmt.Errorf("name holds the control character %U at byte %d", r, i)
		}
	}
	return nil
}

// Proto returns the key's wire form.
func (k Key) Proto(namespace string) *holdfastv1.ResourceKey {
	return &holdfastv1.ResourceKey{Namespace: namespace, Kind: holdfastv1.Kind(k.Kind), Name: k.Name}
}

// KeyFromProto reads a key from its wire form. It refuses a kind that is unknown
// and names that CheckStored refuses. An empty namespace is returned as
// DefaultNamespace.
func KeyFromProto(p *holdfastv1.ResourceKey) (namespace string, k Key, err error) {
	if p == nil {
		return "", Key{}, errors.New("key is not set")
	}
	if p.GetKind() < 0 || p.GetKind() > 255 || !Kind(p.GetKind()).Known() {
		return "", Key{}, fmt.Errorf("unknown kind %d", p.GetKind())
	}
	namespace, k = cmp.Or(p.GetNamespace(), DefaultNamespace), Key{Kind: Kind(p.GetKind()), Name: p.GetName()}
	if err := CheckStored(namespace); err != nil {
		return "", Key{}, fmt.Errorf("namespace: %w", err)
	}
	if err := CheckStored(k.Name); err != nil {
		return "", Key{}, err
	}
	return namespace, k, nil
}
