package pki

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// clock is a time that tests set.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func (p paths) files(c *clock) *files {
	return &files{ca: p.ca, cert: p.cert, key: p.key, now: c.now}
}

// connect makes a connection over loopback and sends a byte to the client, which
// in TLS 1.3 learns only then that the server accepted it. The name is what the
// client dials, "" for the address. It returns what each side made of the other.
func connect(t *testing.T, server, client *tls.Config, name string) (seen tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		conn := tls.Server(raw, server)
		defer conn.Close()
		if err := conn.Handshake(); err != nil {
			done <- err
			return
		}
		_, err = conn.Write([]byte{1})
		done <- err
	}()
	client = client.Clone()
	client.ServerName = name
	if name == "" {
		client.ServerName = "127.0.0.1"
	}
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, client)
	defer conn.Close()
	_, clientErr = io.ReadFull(conn, make([]byte, 1))
	conn.Close()
	return conn.ConnectionState(), <-done, clientErr
}

// cluster is an authority, with a server's and an operator's configurations.
type cluster struct {
	clock          *clock
	ca             *Pair
	server, client *tls.Config
	serverPaths    paths
	clientPaths    paths
}

func newCluster(t *testing.T, roles ...Role) *cluster {
	t.Helper()
	c := &cluster{clock: newClock(), ca: mustCA(t, Options{}), serverPaths: newPaths(t), clientPaths: newPaths(t)}
	c.serverPaths.write(t, c.ca, mustCert(t, c.ca, Options{Role: RoleServer, Name: "n1"}))
	c.clientPaths.write(t, c.ca, mustCert(t, c.ca, Options{Role: RoleOperator, Name: "ann"}))
	var err error
	if c.server, err = serverConfig(c.serverPaths.files(c.clock), roles); err != nil {
		t.Fatal(err)
	}
	if c.client, err = clientConfig(c.clientPaths.files(c.clock), RoleServer); err != nil {
		t.Fatal(err)
	}
	return c
}

// stranger returns a client that presents any certificate and checks nothing.
func stranger(pair *Pair) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true,
		Certificates:       []tls.Certificate{{Certificate: [][]byte{pair.Cert.Raw}, PrivateKey: pair.Key}},
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestHandshake(t *testing.T) {
	c := newCluster(t)
	for _, name := range []string{"", "localhost"} {
		seen, serverErr, clientErr := connect(t, c.server, c.client, name)
		if serverErr != nil || clientErr != nil {
			t.Fatalf("dialling %q: %v, %v", name, serverErr, clientErr)
		}
		if id, err := IdentityOf(seen.PeerCertificates[0]); id != (Identity{RoleServer, "n1"}) || err != nil || seen.Version != tls.VersionTLS13 {
			t.Errorf("connected to %v with %x, %v", id, seen.Version, err)
		}
	}
	_, _, err := connect(t, c.server, c.client, "elsewhere")
	wantError(t, err, "certificate is valid for localhost, not elsewhere")
}

func TestServerRefuses(t *testing.T) {
	c := newCluster(t, RoleServer)
	old := time.Now().AddDate(-3, 0, 0)
	oldCA := mustCA(t, Options{Now: old})
	for name, test := range map[string]struct {
		peer *tls.Config
		want string
	}{
		"an operator as a peer":  {c.client, "it is operator/ann, but only the role server is accepted here"},
		"an instance as a peer":  {stranger(mustCert(t, c.ca, Options{Role: RoleInstance, Name: "i"})), "it is instance/i, but only the role server"},
		"another authority":      {stranger(mustCert(t, oldCA, Options{Role: RoleServer, Name: "n2"})), "the authority in " + c.serverPaths.ca + " did not sign it"},
		"a self-signed one":      {stranger(oldCA), "did not sign it"},
		"an expired certificate": {stranger(mustCert(t, c.ca, Options{Role: RoleServer, Name: "n2", Now: old})), "it expired on "},
		"one from the future": {
			stranger(mustCert(t, c.ca, Options{Role: RoleServer, Name: "n2", Now: time.Now().AddDate(1, 0, 0)})),
			"is the clock right?",
		},
		"the authority itself": {stranger(c.ca), "URIs of the form holdfast://"},
		"no certificate":       {&tls.Config{InsecureSkipVerify: true}, "client didn't provide a certificate"},
		"TLS 1.2": {
			&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
			"unsupported versions",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, serverErr, clientErr := connect(t, c.server, test.peer, "")
			wantError(t, serverErr, test.want)
			if clientErr == nil {
				t.Error("the client was served")
			}
		})
	}
	own := mustCert(t, c.ca, Options{Role: RoleServer, Name: "n2"})
	if _, serverErr, clientErr := connect(t, c.server, stranger(own), ""); serverErr != nil || clientErr != nil {
		t.Errorf("refused a peer: %v, %v", serverErr, clientErr)
	}
}

func TestClientRefuses(t *testing.T) {
	c := newCluster(t)
	impostor := func(pair *Pair) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Cert.Raw}, PrivateKey: pair.Key}}}
	}
	for name, test := range map[string]struct {
		peer *tls.Config
		want string
	}{
		"an instance as a server": {
			impostor(mustCert(t, c.ca, Options{Role: RoleInstance, Name: "i", Hosts: []string{"localhost"}})),
			"it is instance/i, but only the role server is accepted here",
		},
		"another authority": {impostor(mustCert(t, mustCA(t, Options{}), Options{Role: RoleServer, Name: "n1"})), "did not sign it"},
		"an expired certificate": {
			impostor(mustCert(t, c.ca, Options{Role: RoleServer, Name: "n1", Now: time.Now().AddDate(-3, 0, 0)})),
			`certificate of "n1": it expired on `,
		},
	} {
		for _, dialled := range []string{"", "localhost"} {
			t.Run(name+" dialled as "+dialled, func(t *testing.T) {
				_, _, err := connect(t, test.peer, c.client, dialled)
				wantError(t, err, test.want)
			})
		}
	}
}

func TestReload(t *testing.T) {
	c := newCluster(t)
	serial := func() string {
		seen, serverErr, clientErr := connect(t, c.server, c.client, "")
		if serverErr != nil || clientErr != nil {
			t.Fatalf("connect: %v, %v", serverErr, clientErr)
		}
		return seen.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	second := mustCert(t, c.ca, Options{Role: RoleServer, Name: "n1"})
	c.serverPaths.write(t, c.ca, second)
	if got := serial(); got != first {
		t.Error("looked at the files twice in a second")
	}
	c.clock.advance(recheck)
	if got := serial(); got != second.Cert.SerialNumber.String() {
		t.Error("does not present the new certificate")
	}

	// A rotation that is half done changes nothing.
	whole, err := os.ReadFile(c.serverPaths.key)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, c.serverPaths.key, whole[:10])
	c.clock.advance(recheck)
	if got := serial(); got != second.Cert.SerialNumber.String() {
		t.Error("does not present the last good certificate")
	}
	replace(t, c.serverPaths.key, whole)
	c.clock.advance(recheck)
	serial()
}

func TestReloadOfTheAuthority(t *testing.T) {
	c := newCluster(t)
	other := mustCA(t, Options{})
	ann := mustCert(t, other, Options{Role: RoleOperator, Name: "ann"})
	if _, err, _ := connect(t, c.server, stranger(ann), ""); err == nil {
		t.Fatal("trusts any authority")
	}

	// While both authorities are in the file, both are trusted.
	replace(t, c.serverPaths.ca, append(c.ca.CertPEM(), other.CertPEM()...))
	c.clock.advance(recheck)
	for name, client := range map[string]*tls.Config{"old": c.client, "new": stranger(ann)} {
		if _, serverErr, clientErr := connect(t, c.server, client, ""); serverErr != nil || clientErr != nil {
			t.Errorf("client of the %s authority: %v, %v", name, serverErr, clientErr)
		}
	}

	// The server moves on before its client does, who is told why it fails.
	c.serverPaths.write(t, other, mustCert(t, other, Options{Role: RoleServer, Name: "n1"}))
	c.clock.advance(recheck)
	_, _, err := connect(t, c.server, c.client, "")
	wantError(t, err, "the authority in "+c.clientPaths.ca+" did not sign it")
	replace(t, c.clientPaths.ca, []byte("half"))
	c.clock.advance(recheck)
	_, _, err = connect(t, c.server, c.client, "")
	wantError(t, err, "load authority "+c.clientPaths.ca+": it holds no PEM certificate")

	c.clientPaths.write(t, other, ann)
	c.clock.advance(recheck)
	if _, serverErr, clientErr := connect(t, c.server, c.client, ""); serverErr != nil || clientErr != nil {
		t.Errorf("after the rotation: %v, %v", serverErr, clientErr)
	}
}

func TestConfigRefusesFiles(t *testing.T) {
	ca := mustCA(t, Options{})
	good := mustCert(t, ca, Options{Role: RoleServer, Name: "n1"})
	for name, test := range map[string]struct {
		ca, pair *Pair
		want     string
	}{
		"another authority": {mustCA(t, Options{}), good, "did not sign it"},
		"expired":           {ca, mustCert(t, ca, Options{Role: RoleServer, Name: "n1", Now: time.Now().AddDate(-3, 0, 0)}), "it expired on"},
		"no identity":       {ca, ca, "URIs of the form holdfast://"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPaths(t)
			p.write(t, test.ca, test.pair)
			_, err := ServerConfig(p.ca, p.cert, p.key)
			wantError(t, err, test.want)
			_, err = ClientConfig(p.ca, p.cert, p.key, RoleServer)
			wantError(t, err, test.want)
		})
	}
	p := newPaths(t)
	_, err := ServerConfig(p.ca, p.cert, p.key)
	wantError(t, err, "no such file")
	p.write(t, ca, mustCert(t, ca, Options{Role: RoleInstance, Name: "i"}))
	_, err = ServerConfig(p.ca, p.cert, p.key)
	wantError(t, err, "is of instance/i; a server needs one of role server")
	_, err = ClientConfig(p.ca, p.cert, p.key, "")
	wantError(t, err, "unknown role")
}

// TestPlainVerification makes sure that the certificates satisfy a client that
// knows nothing of roles, such as a browser with the authority installed.
func TestPlainVerification(t *testing.T) {
	c := newCluster(t)
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.Cert)
	client := stranger(mustCert(t, c.ca, Options{Role: RoleOperator, Name: "ann"}))
	client.InsecureSkipVerify, client.RootCAs = false, roots
	for _, name := range []string{"", "localhost"} {
		if _, serverErr, clientErr := connect(t, c.server, client, name); serverErr != nil || clientErr != nil {
			t.Errorf("dialling %q: %v, %v", name, serverErr, clientErr)
		}
	}
}
