package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Role is what the holder of a certificate may be.
type Role string

// The roles.
const (
	// RoleServer may be a server of the cluster, and do all that an operator may.
	RoleServer Role = "server"
	// RoleOperator may change what the cluster stores, and the cluster.
	RoleOperator Role = "operator"
	// RoleInstance may read and watch.
	RoleInstance Role = "instance"
)

// Roles lists every role.
func Roles() []Role { return []Role{RoleServer, RoleOperator, RoleInstance} }

// ParseRole reads a role.
func ParseRole(text string) (Role, error) {
	for _, r := range Roles() {
		if text == string(r) {
			return r, nil
		}
	}
	return "", fmt.Errorf("unknown role %q: it is one of server, operator, instance", text)
}

// Identity is who holds a certificate.
type Identity struct {
	Role Role
	Name string
}

// String returns "role/name".
func (id Identity) String() string { return string(id.Role) + "/" + id.Name }

const (
	scheme  = "holdfast"
	maxName = 253
)

// uri is the form of the identity in a certificate.
func (id Identity) uri() *url.URL {
	return &url.URL{Scheme: scheme, Host: string(id.Role), Path: "/" + id.Name}
}

func (id Identity) validate() error {
	if _, err := ParseRole(string(id.Role)); err != nil {
		return err
	}
	switch {
	case id.Name == "":
		return errors.New("the name is empty")
	case len(id.Name) > maxName:
		return fmt.Errorf("the name has %d bytes; at most %d are allowed", len(id.Name), maxName)
	case !utf8.ValidString(id.Name):
		return errors.New("the name is not valid UTF-8")
	}
	for _, r := range id.Name {
		if !unicode.IsPrint(r) || unicode.IsSpace(r) || r == '/' {
			return fmt.Errorf("the name %q holds %q", id.Name, r)
		}
	}
	return nil
}

// IdentityOf reads the identity from a certificate, which has to be verified
// already. A certificate without an identity, or with more than one, is refused.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	var found []*url.URL
	for _, u := range cert.URIs {
		if u.Scheme == scheme {
			found = append(found, u)
		}
	}
	if len(found) != 1 {
		return Identity{}, fmt.Errorf("certificate %q has %d URIs of the form holdfast://<role>/<name>, not one", cert.Subject.CommonName, len(found))
	}
	u := found[0]
	id := Identity{Role: Role(u.Host), Name: strings.TrimPrefix(u.Path, "/")}
	if err := id.validate(); err != nil {
		return Identity{}, fmt.Errorf("read identity %q: %w", u, err)
	}
	// Whatever else a URI can hold would be ignored here and noticed elsewhere.
	if u.String() != id.uri().String() {
		return Identity{}, fmt.Errorf("read identity %q: it is not of the form holdfast://<role>/<name>", u)
	}
	return id, nil
}
