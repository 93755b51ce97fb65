package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-dev/holdfast/internal/node"
	"github.com/holdfast-dev/holdfast/pkg/client"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// serve runs a server until the test ends, or stop.
func serve(t *testing.T) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_ = l.Close()
	settings, err := node.Load([]string{"--data-dir=" + t.TempDir() + "/data", "--port-base=0", "--api-addr=" + addr, "--drain-jitter=0s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := node.New(settings.Config, testLogger(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return addr, stop
}

func testLogger(t *testing.T) *slog.Logger {
	t.Helper()
	if os.Getenv("HOLDFAST_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// openAt opens a client that comes from a loopback address of its own, as if from a
// host of its own.
func openAt(t *testing.T, k int, config client.Config) *client.Client {
	t.Helper()
	config.Service, config.InstanceID = "checkout", fmt.Sprintf("checkout-%d", k)
	config.LocalAddr = fmt.Sprintf("127.0.0.%d", 11+k)
	config.Labels = map[string]string{"zone": fmt.Sprintf("eu-%d", k%2)}
	config.Logger = testLogger(t).With("instance", k)
	c, err := client.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(late) {
			t.Fatalf("not within 30 s: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

var errBroken = errors.New("broken")

// pay calls a dependency, and tells whether it was called at all.
func pay(c *client.Client, err error) bool {
	called := false
	_, _ = client.Do(context.Background(), c, "payments", func(context.Context) (int, error) {
		called = true
		return 0, err
	})
	return called
}

// TestGossip has instances of both kinds with a real server: who only suspects holds
// back because the others, members of the pool or not, have opened, and comes back with
// them.
func TestGossip(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	addr, _ := serve(t)
	var all []*client.Client
	for k := range 6 {
		mode := client.GossipRelayed
		if k%2 == 0 {
			mode = client.GossipDirect
		}
		all = append(all, openAt(t, k, client.Config{Servers: []string{addr}, Gossip: mode}))
	}
	for k, c := range all {
		want := [...]string{client.GossipDirect, client.GossipRelayed}[k%2]
		eventually(t, fmt.Sprintf("instance %d is %s: %+v", k, want, c.Status().Gossip), func() bool { return c.Status().Gossip.Mode == want })
	}
	eventually(t, "all members are there", func() bool { return all[0].Status().Gossip.Members == 4 })

	victim := all[5]
	events := victim.Events(t.Context())
	pay(victim, nil)
	for _, c := range all[:4] {
		for range 10 {
			pay(c, errBroken)
		}
	}
	eventually(t, fmt.Sprintf("the others are known: %+v", victim.Status()), func() bool {
		s := victim.Status()
		return len(s.Fleet) == 1 && s.Fleet[0].HostsOpen == 4 && s.Fleet[0].Others
	})
	if s := victim.Status().Fleet[0]; s.Hearsay {
		t.Errorf("without a suspicion: %+v", s)
	}
	pay(victim, errBroken)
	pay(victim, errBroken)
	eventually(t, "it holds back", func() bool { return !pay(victim, nil) })
	var changed, held bool
	for !changed || !held {
		select {
		case e := <-events:
			changed = changed || e.Breaker != nil && e.Breaker.To == "hearsay"
			held = held || e.Fleet != nil && e.Fleet.Dependency == "payments" && e.Fleet.Hearsay
		case <-time.After(10 * time.Second):
			t.Fatalf("no event: breaker %v, fleet %v", changed, held)
		}
	}
	if s := victim.Stats().Fleet; s.Heeded != 1 || s.Received == 0 || len(s.Refused) != 0 {
		t.Errorf("counted: %+v", s)
	}

	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	picture, err := holdfastv1.NewFleetServiceClient(conn).GetFleet(t.Context(), &holdfastv1.GetFleetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if d := picture.GetFleet().GetDependencies(); len(d) != 1 || !d[0].GetVerdict().GetOpen() || len(d[0].GetReports()) < 4 {
		t.Errorf("the server's picture: %v", picture)
	}
	eventually(t, "its own canaries bring it back", func() bool {
		pay(victim, nil)
		return strings.HasSuffix(state(victim), "closed")
	})
}

func state(c *client.Client) string {
	for _, d := range c.Stats().Dependencies {
		if d.Name == "payments" {
			return d.Targets[0].Breaker.State.String()
		}
	}
	return ""
}

// TestGossipOff: neither configuration nor environment let anything out.
func TestGossipOff(t *testing.T) {
	addr, _ := serve(t)
	for name, config := range map[string]client.Config{"off": {Gossip: client.GossipOff}, "disabled": {}} {
		t.Run(name, func(t *testing.T) {
			if name == "disabled" {
				t.Setenv("HOLDFAST_DISABLE", "1")
			}
			config.Servers = []string{addr}
			c := openAt(t, 0, config)
			eventually(t, "connected", func() bool { return c.Status().Connected })
			for range 10 {
				pay(c, errBroken)
			}
			if s := c.Status(); s.Gossip != (client.GossipStatus{Mode: client.GossipOff}) || s.Fleet != nil {
				t.Errorf("status: %+v %+v", s.Gossip, s.Fleet)
			}
			if s := c.Stats().Fleet; s.Mode != client.GossipOff || s.Published != 0 {
				t.Errorf("stats: %+v", s)
			}
		})
	}
	for _, config := range []client.Config{{Gossip: "on"}, {GossipAddr: "127.0.0.1"}, {GossipAddr: "here:1"}, {GossipAdvertise: "127.0.0.1:99999"}} {
		config.Service = "checkout"
		if c, err := client.Open(t.Context(), config); err == nil {
			_ = c.Close(t.Context())
			t.Errorf("%+v is accepted", config)
		} else if !strings.Contains(err.Error(), "Gossip") {
			t.Error(err)
		}
	}
}
