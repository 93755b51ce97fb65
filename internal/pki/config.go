package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ServerConfig returns the configuration of a listener: TLS 1.3, and only peers
// whose certificate the authority signed for one of the roles (none given means
// any role). Changed files are picked up by later handshakes within a second; while they
// cannot be used, the last good ones are. It fails if they cannot be used now,
// or if the certificate is not of a server.
func ServerConfig(caFile, certFile, keyFile string, roles ...Role) (*tls.Config, error) {
	return serverConfig(&files{ca: caFile, cert: certFile, key: keyFile, now: time.Now}, roles)
}

// ClientConfig returns the configuration of a dialler: TLS 1.3, and only peers
// whose certificate the authority signed for the role. A peer that is dialled by
// name must also have that name in its certificate; one that is dialled by
// address need not, because TLS does not tell the address, and the role is what
// counts. Files are picked up as by ServerConfig.
func ClientConfig(caFile, certFile, keyFile string, want Role) (*tls.Config, error) {
	return clientConfig(&files{ca: caFile, cert: certFile, key: keyFile, now: time.Now}, want)
}

func serverConfig(f *files, roles []Role) (*tls.Config, error) {
	m, err := f.load()
	if err != nil {
		return nil, err
	}
	if m.id.Role != RoleServer {
		return nil, fmt.Errorf("certificate %s is of %s; a server needs one of role server", f.cert, m.id)
	}
	if len(roles) == 0 {
		roles = Roles()
	}
	roles = slices.Clone(roles)
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true, // every connection proves its certificate anew
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &f.current().pair, nil
		},
		// The library would verify against an authority that is fixed here. So it
		// only demands a certificate, and VerifyConnection, which no connection
		// gets round, verifies it against the authority of the moment.
		ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return f.verify(cs.PeerCertificates, "", roles)
		},
	}, nil
}

func clientConfig(f *files, want Role) (*tls.Config, error) {
	if _, err := f.load(); err != nil {
		return nil, err
	}
	if _, err := ParseRole(string(want)); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &f.current().pair, nil
		},
		// As above: not unverified, but verified in VerifyConnection.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return f.verify(cs.PeerCertificates, cs.ServerName, []Role{want})
		},
	}, nil
}

// verify tells why a peer is not trusted: its chain, its time, its name if one
// is given, or its role.
func (f *files) verify(chain []*x509.Certificate, name string, roles []Role) error {
	err := f.verifyWith(f.current(), chain, name, roles)
	if err == nil {
		return nil
	}
	if stale := f.failure(); stale != nil {
		return errors.Join(err, fmt.Errorf("reload of changed files, which may be why: %w", stale))
	}
	return err
}

func (f *files) verifyWith(m *material, chain []*x509.Certificate, name string, roles []Role) error {
	if len(chain) == 0 {
		return errors.New("the peer has no certificate")
	}
	leaf := chain[0]
	opts := x509.VerifyOptions{
		Roots:         m.roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   f.now(),
		DNSName:       name,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // the role says more
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return f.explain(leaf, err)
	}
	id, err := IdentityOf(leaf)
	if err != nil {
		return fmt.Errorf("verify peer: %w", err)
	}
	if !slices.Contains(roles, id.Role) {
		names := make([]string, len(roles))
		for i, r := range roles {
			names[i] = string(r)
		}
		return fmt.Errorf("verify peer: it is %s, but only the role %s is accepted here", id, strings.Join(names, " or "))
	}
	return nil
}

// explain says in plain words why a certificate is not valid.
func (f *files) explain(leaf *x509.Certificate, err error) error {
	who := leaf.Subject.CommonName
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && f.now().Before(invalid.Cert.NotBefore):
		return fmt.Errorf("verify certificate of %q: it is not valid before %s; is the clock right? %w", who, invalid.Cert.NotBefore.Format(time.DateTime), err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("verify certificate of %q: it expired on %s: %w", who, invalid.Cert.NotAfter.Format(time.DateTime), err)
	case errors.As(err, &unknown):
		return fmt.Errorf("verify certificate of %q: the authority in %s did not sign it: %w", who, f.ca, err)
	default:
		return fmt.Errorf("verify certificate of %q: %w", who, err)
	}
}
