package consensus

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// authority issues certificates with a role in their URI.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func testTLS(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{t, cert, key, pool}
}

func (a *authority) issue(role string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "holdfast", Host: role, Path: "/x"}}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// onlyServers refuses a peer whose certificate has another role.
func onlyServers(state tls.ConnectionState) error {
	if uris := state.PeerCertificates[0].URIs; len(uris) != 1 || uris[0].Host != "server" {
		return errors.New("certificate is not of a server")
	}
	return nil
}

func (a *authority) server(role string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.issue(role)}, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		VerifyConnection: onlyServers, MinVersion: tls.VersionTLS13,
	}
}

func (a *authority) client(role string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.issue(role)}, RootCAs: a.pool, VerifyConnection: onlyServers, MinVersion: tls.VersionTLS13,
	}
}

func TestClusterOverTLS(t *testing.T) {
	t.Parallel()
	ca := testTLS(t)
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.ServerTLS, cfg.ClientTLS = ca.server("server"), ca.client("server")
	})
	leader := c.leader()
	index := leader.propose("secret")
	for _, s := range c.sites {
		s.waitApplied(index)
	}
}

func TestWrongPeersAreRefused(t *testing.T) {
	t.Parallel()
	ca := testTLS(t)
	var out syncBuffer
	s := newSite(t, "a", &links{}, func(cfg *Config) {
		cfg.ServerTLS, cfg.ClientTLS = ca.server("server"), ca.client("server")
		cfg.Logger = textLogger(&out)
	})
	s.mustOpen()
	for name, client := range map[string]*tls.Config{
		"instance":        ca.client("instance"),
		"another CA":      {Certificates: []tls.Certificate{testTLS(t).issue("server")}, RootCAs: ca.pool},
		"no certificate":  {RootCAs: ca.pool},
		"no TLS whatever": nil,
	} {
		before := s.node.Status().Term
		if err := askVote(t, client, s.node.Addr()); err == nil {
			t.Errorf("%s: got an answer", name)
		}
		if after := s.node.Status().Term; after != before {
			t.Errorf("%s: changed the term to %d", name, after)
		}
	}
	if !strings.Contains(out.String(), "refused a raft connection") {
		t.Errorf("nothing in the log:\n%s", out.String())
	}
	if err := askVote(t, ca.client("server"), s.node.Addr()); err != nil {
		t.Errorf("a server: %v", err)
	}
}

// askVote asks for a vote in a high term, which would depose any leader.
func askVote(t *testing.T, client *tls.Config, addr string) error {
	t.Helper()
	peer, err := listen(Config{BindAddr: "127.0.0.1:0", ClientTLS: client, Logger: testLogger(t, "peer")})
	must(t, err)
	trans := newTransport(Config{Logger: testLogger(t, "peer"), Timing: fastTiming()}, peer)
	defer func() {
		_ = trans.cut()
		trans.wait()
	}()
	var resp raft.RequestVoteResponse
	return trans.RequestVote("a", raft.ServerAddress(addr), &raft.RequestVoteRequest{RPCHeader: header("evil"), Term: 1000}, &resp)
}

// syncBuffer is a buffer that goroutines may write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
