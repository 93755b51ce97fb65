package session

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestLogsWhatMatters has one line for each thing that an operator has to know, however
// long it lasts.
func TestLogsWhatMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w, l := newNetwork(t), newTruth(), &logs{}
		w.put("a", "1")
		s, a := n.open(func(c *Config) { c.Logger = l.logger() }, "a:1")
		defer end(t, s, a)
		wait(time.Hour)
		var refuses atomic.Bool
		refuses.Store(true)
		srv := n.serve("a:1", &server{truth: w, refuse: func() error {
			if refuses.Load() {
				return status.Error(codes.PermissionDenied, "an operator's certificate")
			}
			return nil
		}})
		wait(time.Hour)
		refuses.Store(false)
		wait(5 * time.Minute)
		n.kill("a:1", srv)
		wait(time.Hour)
		for _, words := range [][]string{
			{"cannot reach a server; trying on", "connection refused"},
			{"no session", "the server refuses this instance: an operator's certificate"},
			{"connected", "server-a:1"},
			{"lost the server", "a:1"},
		} {
			l.has(t, words...)
		}
		if n := strings.Count(l.buf.String(), "\n"); n != 4 {
			t.Errorf("%d lines:\n%s", n, l.buf.String())
		}
	})
}

// TestCloseDoesNotHang returns when its context ends although a handler hangs.
func TestCloseDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		n.serve("a:1", &server{truth: w})
		hang := make(chan struct{})
		s, a := n.open(func(c *Config) {
			c.Handler.(*app).tamper = func(Change) { <-hang }
		}, "a:1")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(hang)
		end(t, s, a)
	})
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no server":     {func(c *Config) { c.Servers = nil }, "no server is given"},
		"empty address": {func(c *Config) { c.Servers = []string{"a:1", ""} }, "is empty"},
		"no handler":    {func(c *Config) { c.Handler = nil }, "no handler"},
		"local address": {func(c *Config) { c.LocalAddr = "eth0" }, `"eth0" is not an IP address`},
		"namespace":     {func(c *Config) { c.Namespace = "a\n" }, "control character"},
		"interval":      {func(c *Config) { c.ProgressInterval = -1 }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{Servers: []string{"a:1"}, Handler: &app{t: t}}
			c.change(&config)
			if s, err := Open(config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
}

// TestHoles finds the server that is there before Open's callers lose patience, while
// others swallow what they are sent.
func TestHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := newNetwork(t), newTruth()
		w.put("a", "1")
		n.serve("a:1", &server{truth: w})
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			if addr != "a:1" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return n.dial(ctx, addr)
		}
		for range 20 {
			s, a := n.open(func(c *Config) { c.DialOptions = []grpc.DialOption{grpc.WithContextDialer(dial)} }, "hole:1", "hole:2", "a:1")
			wait(4900 * time.Millisecond)
			a.has(w)
			end(t, s, a)
		}
	})
}
