package pki

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

const (
	// CADays is how long an authority is valid unless said.
	CADays = 3650
	// CertDays is how long a certificate is valid unless said.
	CertDays = 825

	maxDays = 36500
	// backdate lets a machine whose clock is behind accept a new certificate.
	backdate = 10 * time.Minute
)

// Options say what to create.
type Options struct {
	// Role is what the holder may be. Not for an authority.
	Role Role
	// Name is the name of the holder, without '/' and white space; of an
	// authority its common name, "holdfast" if empty.
	Name string
	// Hosts are the names and addresses at which a server is reached; a server
	// has at least one. Not for an authority.
	Hosts []string
	// Days is how long it is valid; 0 means CADays or CertDays. A certificate
	// ends with its authority at the latest.
	Days int
	// Now is the time of the creation; zero means the present.
	Now time.Time
}

// CreateCA creates an authority: a self-signed certificate with an ECDSA P-256
// key.
func CreateCA(o Options) (*Pair, error) {
	template, err := o.template(CADays)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	template.Subject.CommonName = cmp.Or(o.Name, scheme)
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true // it signs certificates, not further authorities
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return sign(template, template, key, key)
}

// CreateCert creates a certificate of the authority with an ECDSA P-256 key.
func CreateCert(ca *Pair, o Options) (*Pair, error) {
	id := Identity{Role: o.Role, Name: o.Name}
	if err := id.validate(); err != nil {
		return nil, fmt.Errorf("create certificate: %w", err)
	}
	template, err := o.template(CertDays)
	if err != nil {
		return nil, fmt.Errorf("create certificate of %s: %w", id, err)
	}
	switch {
	case !ca.Cert.IsCA:
		return nil, fmt.Errorf("create certificate of %s: %q is not an authority", id, ca.Cert.Subject.CommonName)
	case !template.NotBefore.Add(backdate).Before(ca.Cert.NotAfter):
		return nil, fmt.Errorf("create certificate of %s: the authority expired on %s", id, ca.Cert.NotAfter.Format(time.DateTime))
	case template.NotAfter.After(ca.Cert.NotAfter):
		template.NotAfter = ca.Cert.NotAfter
	}
	template.Subject.CommonName = id.Name
	template.URIs = []*url.URL{id.uri()}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if o.Role == RoleServer {
		// Servers also dial each other.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		if len(o.Hosts) == 0 {
			return nil, fmt.Errorf("create certificate of %s: a server needs a host name or address", id)
		}
	}
	if template.DNSNames, template.IPAddresses, err = splitHosts(o.Hosts); err != nil {
		return nil, fmt.Errorf("create certificate of %s: %w", id, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create certificate of %s: %w", id, err)
	}
	return sign(template, ca.Cert, key, ca.Key)
}

// template returns what authorities and certificates have in common. Without a
// serial number in it, the library draws a random one.
func (o Options) template(days int) (*x509.Certificate, error) {
	days = cmp.Or(o.Days, days)
	if days < 1 || days > maxDays {
		return nil, fmt.Errorf("%d days of validity; 1 to %d are allowed", days, maxDays)
	}
	now := o.Now
	if now.IsZero() {
		now = time.Now()
	}
	return &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"Holdfast"}},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.AddDate(0, 0, days),
	}, nil
}

// splitHosts tells names from addresses.
func splitHosts(hosts []string) (names []string, addrs []net.IP, err error) {
	for _, host := range hosts {
		switch ip := net.ParseIP(host); {
		case ip != nil:
			addrs = append(addrs, ip)
		case host == "" || strings.ContainsAny(host, " /:@"):
			return nil, nil, fmt.Errorf("%q is neither a host name nor an address; leave out scheme and port", host)
		default:
			names = append(names, host)
		}
	}
	return names, addrs, nil
}

// sign returns the certificate that parent's key signs for key.
func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) (*Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.Join(errors.New("read back the signed certificate"), err)
	}
	return &Pair{Cert: cert, Key: key}, nil
}
