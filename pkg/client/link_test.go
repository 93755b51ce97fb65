package client

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// plane is a control plane that has one flag and notes what instances say.
type plane struct {
	holdfastv1.UnimplementedSessionServiceServer
	addr string
	acks chan *holdfastv1.Ack
	// lineage is that of the cluster; 0 means 1.
	lineage byte
	gone    sync.WaitGroup
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, g := &plane{addr: lis.Addr().String(), acks: make(chan *holdfastv1.Ack, 100)}, grpc.NewServer()
	holdfastv1.RegisterSessionServiceServer(g, p)
	p.gone.Go(func() { _ = g.Serve(lis) })
	t.Cleanup(func() { g.Stop(); p.gone.Wait() })
	return p
}

// Connect tells of the flag "beta" at revision 1: all of it to who has nothing, that
// nothing has changed to others.
func (p *plane) Connect(stream grpc.BidiStreamingServer[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	r := &document.Resource{Key: document.Key{Kind: document.Flag, Name: "beta"}, Spec: []byte(onOff), CreateRevision: 1, ModRevision: 1, Version: 1}
	root := document.Tree{}.Put(r.Key, r.Hash()).Root()
	m := &holdfastv1.ConnectResponse{
		Epoch: &holdfastv1.Epoch{Lineage: make([]byte, 16), Counter: 1}, StateTime: timestamppb.Now(),
		Event: &holdfastv1.ConnectResponse_Welcome{Welcome: &holdfastv1.Welcome{ServerId: "n1"}},
	}
	m.Epoch.Lineage[0] = max(1, p.lineage)
	if err := stream.Send(m); err != nil {
		return err
	}
	m.Event = &holdfastv1.ConnectResponse_Progress{Progress: &holdfastv1.Progress{Revision: 1, Root: root[:]}}
	if hello.GetHello().GetCursor() == nil {
		m.Event = &holdfastv1.ConnectResponse_Snapshot{Snapshot: &holdfastv1.Snapshot{
			Revision: 1, Root: root[:], Last: true, Resources: []*holdfastv1.Resource{r.Proto("")},
		}}
	}
	if err := stream.Send(m); err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the instance has gone
		}
		p.acks <- m.GetAck()
	}
}

// told waits for an acknowledgement.
func (p *plane) told(t *testing.T, what string, want func(*holdfastv1.Ack) bool) {
	t.Helper()
	for late := time.After(20 * time.Second); ; {
		select {
		case ack := <-p.acks:
			if want(ack) {
				return
			}
		case <-late:
			t.Fatalf("the server is not told: %s", what)
		}
	}
}

func (p *plane) open(t *testing.T, config Config) *Client {
	t.Helper()
	config.Logger = slog.New(slog.DiscardHandler)
	return p.openWith(t, config)
}

// openWith is open with the logger of the configuration.
func (p *plane) openWith(t *testing.T, config Config) *Client {
	t.Helper()
	config.Servers, config.Service = []string{p.addr}, "s"
	c, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Client) end(t *testing.T) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// leavesNothing checks that nothing runs when the test and its cleanup are over.
func leavesNothing(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// A view from the disk that a server has confirmed is from the server, and events tell
// so.
func TestSourceAfterARestart(t *testing.T) {
	leavesNothing(t)
	p, dir := newPlane(t), t.TempDir()
	c := p.open(t, Config{CacheDir: dir})
	if s := c.Status(); s.Source != FromServer || s.Revision != 1 || !s.Connected {
		t.Errorf("status %+v", s)
	}
	c.end(t)
	c = p.open(t, Config{CacheDir: dir})
	defer c.end(t)
	for events := c.Events(t.Context()); c.Status().Source != FromServer; {
		select {
		case <-events:
		case <-time.After(20 * time.Second):
			t.Fatalf("status %+v", c.Status())
		}
	}
}

// Operators see who is disabled, at the start and later, and it has no view to wait for.
func TestServersAreToldWhatBeatsThem(t *testing.T) {
	leavesNothing(t)
	p := newPlane(t)
	t.Setenv(disableEnv, "1")
	c := p.open(t, Config{})
	p.told(t, "that the environment disables it", func(a *holdfastv1.Ack) bool { return a.GetOverriddenBy() == disableEnv && a.GetRevision() == 1 })
	if c.Bool("beta", true).Get() != true || !c.Status().Disabled || c.Evaluate("beta").Reason != "DISABLED" {
		t.Error("it is not disabled")
	}
	c.end(t)
	t.Setenv(disableEnv, "")
	path := filepath.Join(t.TempDir(), "here.json")
	c = p.open(t, Config{LocalOverrides: path})
	defer c.end(t)
	p.told(t, "that nothing beats it", func(a *holdfastv1.Ack) bool { return a.GetOverriddenBy() == "" && a.GetRevision() == 1 })
	for _, text := range []string{`{"disable":true}`, ""} {
		want := path
		if text == "" {
			want = ""
			_ = os.Remove(path)
		} else if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.told(t, "that the file says "+text, func(a *holdfastv1.Ack) bool { return a.GetOverriddenBy() == want })
		if got := c.Status().Disabled; got != (want != "") {
			t.Errorf("after %q it is disabled: %v", text, got)
		}
	}
}
