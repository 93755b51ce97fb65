package session

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/holdfast-dev/holdfast/internal/pki"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// listen serves a truth on the loopback device and notes who calls.
func listen(t *testing.T, w *truth, options ...grpc.ServerOption) (addr string, callers func() []context.Context) {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []context.Context
	note := grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		mu.Lock()
		seen = append(seen, stream.Context())
		mu.Unlock()
		return handler(srv, stream)
	})
	g := grpc.NewServer(append(options, note)...)
	holdfastv1.RegisterSessionServiceServer(g, &server{id: "n1", truth: w})
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)
	return lis.Addr().String(), func() []context.Context {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

// installed is a handler that tells of its first change.
type installed struct {
	app
	first chan struct{}
	once  sync.Once
}

func (i *installed) Install(c Change) {
	defer i.once.Do(func() { close(i.first) })
	i.app.Install(c)
}

// follow opens a session and waits for its first view.
func follow(t *testing.T, config Config) {
	t.Helper()
	a := &installed{app: app{t: t}, first: make(chan struct{})}
	config.Handler = a
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, s, &a.app)
	select {
	case <-a.first:
	case <-time.After(10 * time.Second):
		t.Errorf("no view after 10 s: %v", s.Status().Err)
	}
}

// TestLocalAddr comes from the address that it was told to.
func TestLocalAddr(t *testing.T) {
	w := newTruth()
	w.put("a", "1")
	addr, callers := listen(t, w)
	follow(t, Config{Servers: []string{addr}, LocalAddr: "127.0.0.7"})
	p, _ := peer.FromContext(callers()[0])
	if host, _, _ := net.SplitHostPort(p.Addr.String()); host != "127.0.0.7" {
		t.Errorf("came from %s", p.Addr)
	}
}

// TestTLS speaks mutual TLS, and sends what the dial options add.
func TestTLS(t *testing.T) {
	ca, err := pki.CreateCA(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pair := func(o pki.Options) (string, string) {
		p, err := pki.CreateCert(ca, o)
		if err != nil {
			t.Fatal(err)
		}
		key, err := p.KeyPEM()
		if err != nil {
			t.Fatal(err)
		}
		return file(o.Name+".crt", p.CertPEM()), file(o.Name+".key", key)
	}
	authority := file("ca.crt", ca.CertPEM())
	must := func(c *tls.Config, err error) *tls.Config {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cert, key := pair(pki.Options{Role: pki.RoleServer, Name: "n1", Hosts: []string{"127.0.0.1"}})
	serverTLS := must(pki.ServerConfig(authority, cert, key))
	cert, key = pair(pki.Options{Role: pki.RoleInstance, Name: "i1"})
	clientTLS := must(pki.ClientConfig(authority, cert, key, pki.RoleServer))

	w := newTruth()
	w.put("a", "1")
	addr, callers := listen(t, w, grpc.Creds(credentials.NewTLS(serverTLS)))
	follow(t, Config{
		Servers: []string{addr}, TLS: clientTLS,
		DialOptions: []grpc.DialOption{grpc.WithStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			return streamer(metadata.AppendToOutgoingContext(ctx, "x-token", "secret"), desc, cc, method, opts...)
		})},
	})
	p, _ := peer.FromContext(callers()[0])
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		t.Errorf("the server saw %v", p.AuthInfo)
	}
	if md, _ := metadata.FromIncomingContext(callers()[0]); strings.Join(md.Get("x-token"), "") != "secret" {
		t.Errorf("the server got %v", md)
	}
}

// TestMessageLimit refuses a message that no server sends, and goes on.
func TestMessageLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		var huge atomic.Bool
		huge.Store(true)
		n.serve("a:1", &server{truth: w, mangle: func(m *holdfastv1.ConnectResponse) {
			if huge.Load() {
				m.Head = &holdfastv1.SignedHead{Head: make([]byte, maxMessageBytes)}
			}
		}})
		s, a := n.open(nil, "a:1")
		defer end(t, s, a)
		wait(30 * time.Second)
		if err := a.lastError(); err == nil || !strings.Contains(err.Error(), "larger than max") || s.Status().Position.Set() {
			t.Errorf("got %v", err)
		}
		huge.Store(false)
		wait(time.Minute)
		a.has(w)
	})
}
