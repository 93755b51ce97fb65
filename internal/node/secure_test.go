package node

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/pki"
)

// certificates writes an authority and a certificate of a role, and returns the
// flags that use them.
func certificates(t *testing.T, ca *pki.Pair, dir string, role pki.Role) []string {
	t.Helper()
	pair, err := pki.CreateCert(ca, pki.Options{Role: role, Name: "n", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, string(role)+".crt"), filepath.Join(dir, string(role)+".key")
	if err := pair.Save(cert, key); err != nil {
		t.Fatal(err)
	}
	return []string{"--tls-ca=" + filepath.Join(dir, "ca.crt"), "--tls-cert=" + cert, "--tls-key=" + key}
}

// A cluster with certificates, a gossip key and its own source address forms as
// one without; a server without the key does not get in.
func TestSecureCluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.CreateCA(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Save(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(dir, "gossip.key")
	if err := os.WriteFile(keys, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sites := newSites(t, 4, 3)
	secure := append(certificates(t, ca, dir, pki.RoleServer), "--gossip-key-file="+keys, "--source-ip=127.0.0.1")
	for _, s := range sites[:3] {
		s.args = append(s.args, secure...)
	}
	sites[3].args = append(sites[3].args, secure[:3]...) // no gossip key
	startAll(t, sites)
	until(t, 40*time.Second, "cluster", formed(sites[:3], 3))
	if len(sites[3].servers()) != 1 || sites[3].Serving() == nil {
		t.Fatal("a server without the key is in the pool")
	}

	operator := newSites(t, 1, 1)[0]
	operator.args = append(operator.args, certificates(t, ca, dir, pki.RoleOperator)...)
	settings, err := Load(operator.args, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := New(settings.Config, testLogger(t))
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "server") {
		t.Fatalf("started with the certificate of an operator: %v", err)
	}
}
