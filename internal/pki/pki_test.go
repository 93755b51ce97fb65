package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustCA(t *testing.T, o Options) *Pair {
	t.Helper()
	ca, err := CreateCA(o)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mustCert(t *testing.T, ca *Pair, o Options) *Pair {
	t.Helper()
	if o.Role == RoleServer && o.Hosts == nil {
		o.Hosts = []string{"localhost", "127.0.0.1"}
	}
	pair, err := CreateCert(ca, o)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// paths are the three files of a peer.
type paths struct{ ca, cert, key string }

// write writes, or replaces by renaming, the files of a peer.
func (p paths) write(t *testing.T, ca, pair *Pair) {
	t.Helper()
	key, err := pair.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{p.ca: ca.CertPEM(), p.cert: pair.CertPEM(), p.key: key} {
		replace(t, path, data)
	}
}

func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func newPaths(t *testing.T) paths {
	t.Helper()
	dir := t.TempDir()
	return paths{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

func TestCreate(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	ca := mustCA(t, Options{Now: now, Name: "shop"})
	if c := ca.Cert; !c.IsCA || c.Subject.CommonName != "shop" || !c.MaxPathLenZero ||
		!c.NotAfter.Equal(now.AddDate(0, 0, CADays)) || !c.NotBefore.Before(now) {
		t.Errorf("authority: %+v", c)
	}
	pair := mustCert(t, ca, Options{Role: RoleServer, Name: "n1", Hosts: []string{"n1.example", "127.0.0.1", "::1"}, Now: now})
	c := pair.Cert
	if id, err := IdentityOf(c); id != (Identity{RoleServer, "n1"}) || id.String() != "server/n1" || err != nil {
		t.Errorf("identity %v, %v", id, err)
	}
	if c.IsCA || !slices.Equal(c.DNSNames, []string{"n1.example"}) || len(c.IPAddresses) != 2 || !c.NotAfter.Equal(now.AddDate(0, 0, CertDays)) {
		t.Errorf("certificate: %+v", c)
	}
	if key, ok := pair.Key.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key: %T", pair.Key)
	}
	if other := mustCert(t, ca, Options{Role: RoleServer, Name: "n1", Now: now}); other.Cert.SerialNumber.Cmp(c.SerialNumber) == 0 || c.SerialNumber.BitLen() < 64 {
		t.Errorf("serial numbers %v and %v", c.SerialNumber, other.Cert.SerialNumber)
	}
	late := mustCert(t, ca, Options{Role: RoleOperator, Name: "ann", Now: now.AddDate(9, 11, 0)})
	if !late.Cert.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("a certificate lives until %v, its authority until %v", late.Cert.NotAfter, ca.Cert.NotAfter)
	}
	if usage := late.Cert.ExtKeyUsage; !slices.Equal(usage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("an operator's certificate is for %v", usage)
	}
}

func TestCreateRefuses(t *testing.T) {
	ca := mustCA(t, Options{Days: 1})
	leaf := mustCert(t, ca, Options{Role: RoleOperator, Name: "ann"})
	for _, c := range []struct {
		want string
		ca   *Pair
		o    Options
	}{
		{`unknown role "admin"`, ca, Options{Role: "admin", Name: "x"}},
		{"the name is empty", ca, Options{Role: RoleOperator}},
		{`the name "a/b" holds '/'`, ca, Options{Role: RoleOperator, Name: "a/b"}},
		{`holds ' '`, ca, Options{Role: RoleOperator, Name: "a b"}},
		{"at most 253", ca, Options{Role: RoleOperator, Name: strings.Repeat("a", 254)}},
		{"not valid UTF-8", ca, Options{Role: RoleOperator, Name: "\xff"}},
		{"a server needs a host name or address", ca, Options{Role: RoleServer, Name: "n1"}},
		{`"n1:7400" is neither a host name nor an address`, ca, Options{Role: RoleServer, Name: "n1", Hosts: []string{"n1:7400"}}},
		{"-1 days", ca, Options{Role: RoleOperator, Name: "x", Days: -1}},
		{`"ann" is not an authority`, leaf, Options{Role: RoleOperator, Name: "x"}},
		{"the authority expired on", ca, Options{Role: RoleOperator, Name: "x", Now: time.Now().AddDate(0, 0, 2)}},
	} {
		if _, err := CreateCert(c.ca, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %s", c.o, err, c.want)
		}
	}
	if _, err := CreateCA(Options{Days: 1_000_000}); err == nil {
		t.Error("created an authority for ever")
	}
}

func TestIdentityRoundTrip(t *testing.T) {
	ca := mustCA(t, Options{})
	for _, name := range []string{"n1", "ann@example.com", "größe", "a%2fb", "a?b#c", "..", "a:b"} {
		want := Identity{RoleInstance, name}
		if got, err := IdentityOf(mustCert(t, ca, Options{Role: want.Role, Name: want.Name}).Cert); got != want || err != nil {
			t.Errorf("%v came back as %v, %v", want, got, err)
		}
	}
}

func TestIdentityOfRefuses(t *testing.T) {
	for _, uris := range [][]string{
		{},
		{"https://server/n1"},
		{"holdfast://server/n1", "holdfast://operator/n1"},
		{"holdfast://root/n1"},
		{"holdfast://server/"},
		{"holdfast://server"},
		{"holdfast://server/a/b"},
		{"holdfast://server//a"},
		{"holdfast://user@server/n1"},
		{"holdfast://server:1/n1"},
		{"holdfast://server/n1?role=operator"},
		{"holdfast://server/n1#x"},
		{"holdfast:server/n1"},
	} {
		cert := &x509.Certificate{}
		for _, text := range uris {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		if id, err := IdentityOf(cert); err == nil {
			t.Errorf("%q is %v", uris, id)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	p := newPaths(t)
	ca := mustCA(t, Options{})
	if err := ca.Save(p.cert, p.key); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(p.key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	loaded, err := Load(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	mustCert(t, loaded, Options{Role: RoleOperator, Name: "ann"})

	other := mustCA(t, Options{})
	fresh := filepath.Join(t.TempDir(), "fresh.pem")
	if err := other.Save(p.cert, fresh); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting a certificate: %v", err)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left half of a pair behind: %v", err)
	}
	if err := other.Save(fresh, p.key); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting a key: %v", err)
	}
	if again, err := Load(p.cert, p.key); err != nil || !again.Cert.Equal(ca.Cert) {
		t.Errorf("the pair was changed: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	p := newPaths(t)
	ca := mustCA(t, Options{})
	p.write(t, ca, ca)
	key, err := mustCA(t, Options{}).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	replace(t, p.key, key)
	if _, err := Load(p.cert, p.key); err == nil || !strings.Contains(err.Error(), "private key does not match public key") {
		t.Errorf("loaded a pair that is none: %v", err)
	}
	if _, err := Load(p.cert+"x", p.key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("loaded no file: %v", err)
	}
}
