package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// authority makes certificates with the operator's own command.
type authority struct {
	cli string
	dir string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{cli: cli(t), dir: t.TempDir()}
	a.run(t, "tls", "ca", "create", "--dir", a.dir)
	return a
}

func (a *authority) run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := command(t, a.cli, args...); err != nil {
		t.Fatalf("holdfast %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// create makes a certificate and returns its files.
func (a *authority) create(t *testing.T, role, name string) (cert, key string) {
	t.Helper()
	args := []string{"tls", "cert", "create", name, "--dir", a.dir, "--role", role}
	if role == "server" {
		args = append(args, "--host", "127.0.0.1")
	}
	a.run(t, args...)
	return filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
}

func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

// client makes credentials with a certificate of a role.
func (a *authority) client(t *testing.T, role, name string) *tls.Config {
	t.Helper()
	cert, key := a.create(t, role, name)
	pair := get[tls.Certificate](t)(tls.LoadX509KeyPair(cert, key))
	config := a.anonymous(t)
	config.Certificates = []tls.Certificate{pair}
	return config
}

// anonymous trusts the authority and shows no certificate.
func (a *authority) anonymous(t *testing.T) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(get[[]byte](t)(os.ReadFile(a.ca()))) {
		t.Fatal("the authority's file holds no certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// tlsCluster starts three servers with a certificate each.
func tlsCluster(t *testing.T, a *authority) *cluster.Cluster {
	t.Helper()
	keyFile := filepath.Join(t.TempDir(), "gossip.key")
	must(t, os.WriteFile(keyFile, []byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"), 0o600))
	return start(t, cluster.Options{
		Credentials: credentials.NewTLS(a.client(t, "operator", "alice")),
		Configure: func(_ *cluster.Cluster, i int) (args, env []string) {
			cert, key := filepath.Join(a.dir, fmt.Sprintf("server-%d.pem", i)), filepath.Join(a.dir, fmt.Sprintf("server-%d.key", i))
			if _, err := os.Stat(cert); err != nil {
				a.create(t, "server", fmt.Sprint("server-", i))
			}
			return []string{"--tls-ca", a.ca(), "--tls-cert", cert, "--tls-key", key, "--gossip-key-file", keyFile}, nil
		},
	})
}

// connect dials server 0 with credentials of the test's choice.
func connect(t *testing.T, c *cluster.Cluster, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn := get[*grpc.ClientConn](t)(grpc.NewClient(c.Addr(0), grpc.WithTransportCredentials(creds)))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// With the certificates that the command line makes, a cluster forms, operators
// write under their own name, instances read only, and strangers get nothing.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := tlsCluster(t, a)
	for i := range c.Len() {
		w := c.Writer(i, 5*time.Second)
		w.Actor = "mallory"
		get[cluster.Ack](t)(w.Write(within(t, 10*time.Second), "tls", cluster.Flag("", fmt.Sprint("f", i), "x")))
	}
	for name, r := range listAll(t, c, "") {
		if r.GetActor().GetName() != "alice" || !r.GetActor().GetVerified() {
			t.Errorf("%s was written by %v, want alice of the certificate", name, r.GetActor())
		}
	}
	t.Run("instance", func(t *testing.T) { instanceMayOnlyRead(t, c, a) })
	t.Run("strangers", func(t *testing.T) { strangersGetNothing(t, c, a) })
	t.Run("raft port", func(t *testing.T) { raftPortIsForServers(t, c, a) })

	// The leader goes and comes back: the others trust each other as well.
	old := leader(t, c)
	must(t, c.Kill(old))
	get[cluster.Ack](t)(c.Writer(old+1, time.Second).Write(within(t, 20*time.Second), "tls", cluster.Flag("", "after", "x")))
	restart(t, c, old)
	get[*holdfastv1.GetStatusResponse](t)(c.Agree(within(t, 10*time.Second)))
}

func instanceMayOnlyRead(t *testing.T, c *cluster.Cluster, a *authority) {
	t.Helper()
	conn := connect(t, c, credentials.NewTLS(a.client(t, "instance", "checkout-1")))
	state, admin := holdfastv1.NewStateServiceClient(conn), holdfastv1.NewClusterServiceClient(conn)
	if have := get[map[string]*holdfastv1.Resource](t)(list(within(t, 5*time.Second), state, "")); len(have) != 3 {
		t.Errorf("instance lists %d resources, want 3", len(have))
	}
	stream := get[grpc.ServerStreamingClient[holdfastv1.WatchResponse]](t)(state.Watch(within(t, 5*time.Second), &holdfastv1.WatchRequest{}))
	get[*holdfastv1.WatchResponse](t)(stream.Recv())
	ctx := within(t, 20*time.Second)
	for name, call := range map[string]func() error{
		"Apply": func() error {
			_, err := state.Apply(ctx, c.Writer(0, 0).NewRequest("no", cluster.Flag("", "by-instance", "x")))
			return err
		},
		"dry run": func() error {
			req := c.Writer(0, 0).NewRequest("no", cluster.Flag("", "by-instance", "x"))
			req.DryRun = true
			_, err := state.Apply(ctx, req)
			return err
		},
		"TransferLeadership": func() error {
			_, err := admin.TransferLeadership(ctx, &holdfastv1.TransferLeadershipRequest{})
			return err
		},
		"RemoveMember": func() error {
			_, err := admin.RemoveMember(ctx, &holdfastv1.RemoveMemberRequest{Id: "x"})
			return err
		},
		"JoinMember": func() error {
			_, err := admin.JoinMember(ctx, &holdfastv1.JoinMemberRequest{Id: "x", RaftAddr: "127.0.0.1:1"})
			return err
		},
		"PromoteMember": func() error {
			_, err := admin.PromoteMember(ctx, &holdfastv1.PromoteMemberRequest{Id: "x"})
			return err
		},
		"Backup": func() error { _, err := backup(ctx, admin); return err },
		"Restore": func() error {
			stream, err := admin.Restore(ctx)
			if err != nil {
				return err
			}
			_, err = stream.CloseAndRecv()
			return err
		},
		"peer Propose": func() error {
			_, err := peerv1.NewPeerServiceClient(conn).Propose(ctx, &peerv1.ProposeRequest{})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s by an instance: %v, want PERMISSION_DENIED", name, err)
		}
	}
	operator := connect(t, c, credentials.NewTLS(a.client(t, "operator", "bob")))
	if _, err := peerv1.NewPeerServiceClient(operator).Propose(ctx, &peerv1.ProposeRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("peer Propose by an operator: %v, want PERMISSION_DENIED", err)
	}
	if have := listAll(t, c, ""); len(have) != 3 {
		t.Errorf("%d resources after refused writes, want 3", len(have))
	}
}

func strangersGetNothing(t *testing.T, c *cluster.Cluster, a *authority) {
	t.Helper()
	other := newAuthority(t)
	foreign := other.client(t, "operator", "eve")
	foreign.RootCAs = a.anonymous(t).RootCAs // trusts the servers, is not trusted
	for name, creds := range map[string]credentials.TransportCredentials{
		"plaintext":                        insecure.NewCredentials(),
		"no certificate":                   credentials.NewTLS(a.anonymous(t)),
		"certificate of another authority": credentials.NewTLS(foreign),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, err := holdfastv1.NewClusterServiceClient(connect(t, c, creds)).GetStatus(ctx, &holdfastv1.GetStatusRequest{})
		cancel()
		if err == nil {
			t.Errorf("%s: was served", name)
		}
		t.Logf("%s: %v", name, err)
	}
}

// raftPortIsForServers tries to speak to Raft as anybody but a server. With TLS
// 1.3 a client learns of the refusal of its certificate on its first read.
func raftPortIsForServers(t *testing.T, c *cluster.Cluster, a *authority) {
	t.Helper()
	addr := c.RaftAddr(0)
	cert, key := a.create(t, "server", "probe")
	server := a.anonymous(t)
	server.Certificates = []tls.Certificate{get[tls.Certificate](t)(tls.LoadX509KeyPair(cert, key))}
	if err := holdOpen(addr, server); err != nil {
		t.Errorf("a server's certificate was refused: %v", err)
	}
	for name, config := range map[string]*tls.Config{
		"operator": a.client(t, "operator", "carol"), "instance": a.client(t, "instance", "i-2"), "nobody": a.anonymous(t),
	} {
		if err := holdOpen(addr, config); err == nil {
			t.Errorf("the Raft port accepted a connection of %s", name)
		}
	}
}

// holdOpen returns nil when the other side keeps an idle connection.
func holdOpen(addr string, config *tls.Config) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Second}, "tcp", addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, err = conn.Read(make([]byte, 1))
	if nerr := net.Error(nil); errors.As(err, &nerr) && nerr.Timeout() {
		return nil
	}
	return err
}

// A server does not serve plaintext beyond loopback unless it was told to.
func TestPlaintextBeyondLoopbackIsRefused(t *testing.T) {
	t.Parallel()
	bin := server(t)
	for _, args := range [][]string{
		{"--bind", "0.0.0.0", "--advertise", "192.0.2.1"},
		{"--bind", "192.0.2.1"},
		{"--bind", "::", "--advertise", "192.0.2.1"},
	} {
		args = append(args, "--data-dir", t.TempDir(), "--port-base", "0")
		out, err := command(t, bin, args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() <= 0 || !strings.Contains(out, "--insecure") {
			t.Errorf("controlplane %s: %v, want a refusal that names --insecure:\n%s", strings.Join(args, " "), err, out)
		}
	}
}
