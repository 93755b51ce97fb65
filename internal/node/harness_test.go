package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// TestMain looks for goroutines that were left behind. A probe that memberlist had
// under way when it was stopped ends with its own timeout.
func TestMain(m *testing.M) {
	code := m.Run()
	var leak error
	for range 15 {
		if leak = goleak.Find(); leak == nil {
			break
		}
		<-time.After(time.Second)
	}
	if leak != nil {
		fmt.Fprintln(os.Stderr, leak)
		code = max(code, 1)
	}
	os.Exit(code)
}

// site is where a server lives: it survives its runs.
type site struct {
	dir  string
	args []string
	// setup changes a server before it starts.
	setup func(*Node)

	*Node
	end  context.CancelFunc
	done chan error
}

// newSites makes n sites that know each other's addresses.
func newSites(t *testing.T, n, expect int) []*site {
	t.Helper()
	ports := freePorts(t, 5*n)
	var seeds []string
	for i := range n {
		seeds = append(seeds, fmt.Sprintf("127.0.0.1:%d", ports[5*i+3]))
	}
	sites := make([]*site, n)
	for i := range sites {
		s := &site{dir: filepath.Join(t.TempDir(), "data")}
		for j, key := range []string{"api-addr", "http-addr", "raft-addr", "gossip-addr", "flags-addr"} {
			s.args = append(s.args, fmt.Sprintf("--%s=127.0.0.1:%d", key, ports[5*i+j]))
		}
		s.args = append(s.args, "--data-dir="+s.dir, "--drain-jitter=0s", fmt.Sprintf("--expect=%d", expect), "--join="+strings.Join(seeds, ","))
		sites[i] = s
	}
	return sites
}

// freePorts returns ports that are free for TCP and UDP.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for len(ports) < n {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		port := tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer udp.Close()
		ports = append(ports, port)
	}
	return ports
}

func testLogger(t *testing.T) *slog.Logger {
	t.Helper()
	if os.Getenv("HOLDFAST_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start runs a server at the site until stop.
func (s *site) start(t *testing.T) {
	t.Helper()
	settings, err := Load(s.args, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Node = New(settings.Config, testLogger(t))
	if s.setup != nil {
		s.setup(s.Node)
	}
	ready := make(chan struct{})
	s.OnStarted(func() { close(ready) })
	ctx, cancel := context.WithCancel(context.Background())
	s.end, s.done = cancel, make(chan error, 1)
	node, done := s.Node, s.done
	go func() { done <- node.Run(ctx) }()
	select {
	case <-ready:
	case err := <-s.done:
		cancel()
		s.Node = nil
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { s.stop(t) })
}

// stop drains the server; a stopped one stays so.
func (s *site) stop(t *testing.T) {
	t.Helper()
	if s.Node == nil {
		return
	}
	s.end()
	err := <-s.done
	node := s.Node
	s.Node = nil
	if err != nil {
		t.Logf("stop: %v", err)
		_ = node.Stop(context.Background())
	}
}

func startAll(t *testing.T, sites []*site) {
	t.Helper()
	for _, s := range sites {
		s.start(t)
	}
}

func until(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", within, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// formed tells whether all sites serve in one cluster of so many voters.
func formed(sites []*site, voterCount int) func() bool {
	return func() bool {
		leader, lineage := "", ""
		for _, s := range sites {
			id, _ := s.Leader()
			if s.Serving() != nil || id == "" || leader != "" && id != leader || voters(s.raft.Members(), "") != voterCount {
				return false
			}
			if l := lineageOf(s.View()); lineage != "" && l != lineage {
				return false
			}
			leader, lineage = id, lineageOf(s.View())
		}
		return true
	}
}

func leaderOf(t *testing.T, sites []*site) *site {
	t.Helper()
	var found *site
	until(t, 20*time.Second, "a leader with its duties", func() bool {
		for _, s := range sites {
			if s.Node == nil {
				continue
			}
			if _, ok := s.clock.stamp(); ok && s.raft.Status().Role == consensus.Leader {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// dial returns a client of a server's API.
func dial(t *testing.T, addr string) holdfastv1.StateServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return holdfastv1.NewStateServiceClient(conn)
}

func key(kind holdfastv1.Kind, name string) *holdfastv1.ResourceKey {
	return &holdfastv1.ResourceKey{Kind: kind, Name: name}
}

// put writes a resource through a server and returns its revision; a ttl makes
// it an override.
func put(t *testing.T, addr, name string, ttl time.Duration) uint64 {
	t.Helper()
	put := &holdfastv1.Put{
		Key:  key(holdfastv1.Kind_KIND_FLAG, name),
		Spec: []byte(`{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}`),
	}
	if ttl > 0 {
		put = &holdfastv1.Put{
			Key: key(holdfastv1.Kind_KIND_OVERRIDE, name), Ttl: durationpb.New(ttl),
			Spec: []byte(`{"breaker":"payments","hold":"open"}`),
		}
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	client := dial(t, addr)
	began := time.Now()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		resp, err := client.Apply(ctx, &holdfastv1.ApplyRequest{
			RequestId: id, Age: durationpb.New(time.Since(began)), Reason: "test", ClaimedActor: "tester",
			Operations: []*holdfastv1.Operation{{Action: &holdfastv1.Operation_Put{Put: put}}},
		}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return resp.GetRevision()
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("put %s: %v", name, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// has reads a resource from a server's own state.
func has(s *site, kind holdfastv1.Kind, name string) bool {
	found := false
	for _, ns := range s.View().Namespaces() {
		s.View().Namespace(ns).Ascend(0, "", "", func(r *documentResource) bool {
			if holdfastv1.Kind(r.Kind) == kind && r.Name == name {
				found = true
			}
			return true
		})
	}
	return found
}
