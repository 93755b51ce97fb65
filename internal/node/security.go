package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/internal/pki"
)

// maxGossipKeys bounds the keys of a rotation.
const maxGossipKeys = 8

// tlsConfigs are the four ways in and the one way out; all nil in plaintext.
type tlsConfigs struct {
	api    *tls.Config // for everybody with a certificate of the authority
	raft   *tls.Config // for servers only
	flags  *tls.Config // for everybody
	client *tls.Config // to other servers
}

func loadTLS(c *Config) (tlsConfigs, error) {
	if !c.tls() {
		return tlsConfigs{}, nil
	}
	var t tlsConfigs
	var err error
	if t.api, err = pki.ServerConfig(c.TLSCA, c.TLSCert, c.TLSKey, pki.RoleServer, pki.RoleOperator, pki.RoleInstance); err != nil {
		return t, fmt.Errorf("read certificates (tls-ca, tls-cert, tls-key, or the variables HOLDFAST_TLS_CA, _CERT, _KEY): %w", err)
	}
	t.flags = withoutClientCerts(t.api)
	if t.raft, err = pki.ServerConfig(c.TLSCA, c.TLSCert, c.TLSKey, pki.RoleServer); err != nil {
		return t, fmt.Errorf("read certificates (tls-ca, tls-cert, tls-key, or the variables HOLDFAST_TLS_CA, _CERT, _KEY): %w", err)
	}
	if t.client, err = pki.ClientConfig(c.TLSCA, c.TLSCert, c.TLSKey, pki.RoleServer); err != nil {
		return t, fmt.Errorf("read certificates (tls-ca, tls-cert, tls-key, or the variables HOLDFAST_TLS_CA, _CERT, _KEY): %w", err)
	}
	return t, nil
}

// withoutClientCerts has the same certificate and asks for none, because browsers
// would ask their user for one.
func withoutClientCerts(c *tls.Config) *tls.Config {
	open := c.Clone()
	open.ClientAuth, open.VerifyConnection = tls.NoClientCert, nil
	return open
}

// dialOptions are for gRPC connections to other servers.
func dialOptions(c *Config, client *tls.Config) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if client != nil {
		transport = credentials.NewTLS(client)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport)}
	if c.SourceIP == "" {
		return options
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.SourceIP)}, KeepAlive: 15 * time.Second}
	return append(options, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", addr)
	}))
}

// loadGossipKeys reads base64 keys, one a line; empty lines and lines that begin
// with # do not count.
func loadGossipKeys(path string) ([][]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read gossip keys: %w", err)
	}
	var keys [][]byte
	lines := bufio.NewScanner(bytes.NewReader(data))
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
			// The line is a secret and is not shown.
			return nil, fmt.Errorf("read gossip keys: %s:%d: must be 16, 24 or 32 bytes in base64", path, number)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read gossip keys: %w", err)
	}
	if len(keys) == 0 || len(keys) > maxGossipKeys {
		return nil, fmt.Errorf("read gossip keys: %s has %d keys; must be 1 to %d", path, len(keys), maxGossipKeys)
	}
	return keys, nil
}
