package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/holdfast-dev/holdfast/internal/gossip/mesh"
)

func shared(t *testing.T, l *Listener, label string, join ...string) *peer {
	t.Helper()
	transport, err := l.Transport(label)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, Config{Name: "s", Label: label, Transport: transport, Profile: Instances, Join: join})
}

// Two pools on one port, one of them without a label, and a third that is nobody's.
func testShared(t *testing.T, listeners []*Listener) {
	t.Helper()
	red, plain := make([]*peer, len(listeners)), make([]*peer, len(listeners))
	for i, l := range listeners {
		red[i], plain[i] = shared(t, l, "red", listeners[0].Addr()), shared(t, l, "", listeners[0].Addr())
	}
	until(t, 20*time.Second, "red is whole", whole(red))
	until(t, 20*time.Second, "plain is whole", whole(plain))
	red[0].facts.set("red", 1)
	red[0].channel.Spread("red")
	plain[0].facts.set("plain", 1)
	plain[0].channel.Spread("plain")
	until(t, 5*time.Second, "each knows its own", func() bool {
		return allHave(red, "red", 1)() && allHave(plain, "plain", 1)()
	})
	if knowing(red, "plain", 1)+knowing(plain, "red", 1) != 0 {
		t.Error("news went from pool to pool")
	}
	if _, err := listeners[0].Transport("red"); err == nil {
		t.Error("two pools with one label")
	}
	// A pool that ends leaves the port to others, and its label too.
	if err := red[1].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := listeners[0].Dropped()
	lost := shared(t, listeners[1], "lost", listeners[0].Addr())
	until(t, 20*time.Second, "strangers are counted", func() bool { return listeners[0].Dropped() > before })
	red[1] = shared(t, listeners[1], "red", listeners[0].Addr())
	until(t, 20*time.Second, "red is whole again", whole(red))
	if len(lost.Members()) != 1 || !whole(plain)() {
		t.Error("pools have mixed")
	}
}

func TestPoolsShareAPort(t *testing.T) {
	var listeners []*Listener
	for range 2 {
		l, err := Listen(ListenerConfig{BindAddr: "127.0.0.1:0", SourceIP: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(l.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			if _, err := l.Transport("late"); err == nil {
				t.Error("a closed listener hands out its port")
			}
		})
		listeners = append(listeners, l)
	}
	testShared(t, listeners)
}

func TestPoolsShareANetworkInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := mesh.New(51)
		var listeners []*Listener
		for i := range 2 {
			inner, err := network.Transport(fmt.Sprintf("10.0.0.%d:1", i+1))
			if err != nil {
				t.Fatal(err)
			}
			l := Share(inner)
			t.Cleanup(func() { _ = l.Close() })
			listeners = append(listeners, l)
		}
		settle(t)
		testShared(t, listeners)
	})
}

// A pool that takes nothing costs the others nothing, and strangers that hold
// streams open are bounded.
func TestSharedPortIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := mesh.New(52)
		inner, err := network.Transport("10.0.0.1:1")
		if err != nil {
			t.Fatal(err)
		}
		l := Share(inner)
		stuck, err := l.Transport("stuck")
		if err != nil {
			t.Fatal(err)
		}
		well, err := l.Transport("well")
		if err != nil {
			t.Fatal(err)
		}
		from, err := network.Transport("10.0.0.2:1")
		if err != nil {
			t.Fatal(err)
		}
		send := func(label, body string) {
			packet, err := memberlist.AddLabelHeaderToPacket([]byte(body), label)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = from.WriteTo(packet, "10.0.0.1:1")
			synctest.Wait()
		}
		for range portQueue + 10 {
			send("stuck", "x")
		}
		if l.Dropped() != 10 || len(stuck.PacketCh()) != portQueue {
			t.Errorf("dropped %d", l.Dropped())
		}
		send("well", "hello")
		if p := <-well.PacketCh(); !strings.HasSuffix(string(p.Buf), "hello") {
			t.Errorf("got %q", p.Buf)
		}
		send("nobody's", "x")
		_, _ = from.WriteTo([]byte{labelMark, 9, 'x'}, "10.0.0.1:1")
		synctest.Wait()
		if l.Dropped() != 12 {
			t.Errorf("dropped %d", l.Dropped())
		}
		var silent []net.Conn
		for range greetLimit + 3 {
			conn, err := from.DialTimeout("10.0.0.1:1", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, conn)
			synctest.Wait()
		}
		if l.Dropped() != 15 {
			t.Errorf("dropped %d", l.Dropped())
		}
		<-time.After(streamTimeout + time.Second)
		if l.Dropped() != 15+greetLimit {
			t.Errorf("streams without a label: dropped %d", l.Dropped())
		}
		// One that speaks is passed on whole.
		conn, err := from.DialTimeout("10.0.0.1:1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write([]byte("\xf4\x04wellhello")) }()
		far := <-well.StreamCh()
		got := make([]byte, 11)
		for n := 0; n < len(got); {
			m, err := far.Read(got[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if string(got) != "\xf4\x04wellhello" {
			t.Errorf("got %q", got)
		}
		if err := well.Shutdown(); err != nil {
			t.Error(err)
		}
		if _, err := far.Read(got); err == nil {
			t.Error("a stream outlived its pool")
		}
		for _, c := range append(silent, conn) {
			_ = c.Close()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = from.Shutdown()
	})
}

func TestAdvertisedAddresses(t *testing.T) {
	for _, c := range []struct{ bind, advertise, want string }{
		{"127.0.0.1:0", "", "127.0.0.1:PORT"},
		{"127.0.0.1:0", "127.0.0.5", "127.0.0.5:PORT"},
		{"127.0.0.1:0", "127.0.0.5:0", "127.0.0.5:PORT"},
		{"127.0.0.1:0", "127.0.0.5:99", "127.0.0.5:99"},
		{"[::1]:0", "", "[::1]:PORT"},
	} {
		s, err := openSockets(c.bind, c.advertise, "")
		if err != nil {
			if strings.HasPrefix(c.bind, "[") {
				continue // no IPv6 here
			}
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(s.tcp.Addr().String())
		if got := s.advertise.String(); got != strings.Replace(c.want, "PORT", port, 1) {
			t.Errorf("bound to %s, advertising %q: %s", c.bind, c.advertise, got)
		}
		_ = s.Shutdown()
	}
	s, err := openSockets(":0", "", "")
	if err != nil {
		t.Skip(err) // a machine with loopback only
	}
	if s.advertise.Addr().IsUnspecified() || s.advertise.Addr().IsLoopback() {
		t.Errorf("bound to every address, advertising %s", s.advertise)
	}
	_ = s.Shutdown()
}

// Packets between sockets of all families, and none that is too long.
func TestSockets(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", ":0"} {
		from, err := openSockets(bind, "127.0.0.1", "")
		if err != nil {
			t.Fatal(err)
		}
		to, err := openSockets(bind, "127.0.0.1", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{packetLimit + 1, 0, 1, packetLimit} {
			if _, err := from.WriteTo(make([]byte, size), to.advertise.String()); err != nil {
				t.Fatal(err)
			}
		}
		for _, size := range []int{1, packetLimit} {
			select {
			case p := <-to.PacketCh():
				if len(p.Buf) != size || cap(p.Buf) > size+size/4+16 || !strings.HasPrefix(p.From.String(), "127.0.0.1:") {
					t.Errorf("%d bytes in %d from %s, want %d", len(p.Buf), cap(p.Buf), p.From, size)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("lost on loopback")
			}
		}
		if _, err := from.WriteTo([]byte("x"), "no address"); err == nil {
			t.Error("sent to no address")
		}
		_, _ = from.Shutdown(), to.Shutdown()
		if _, err := from.DialTimeout("127.0.0.1:1", time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("dialled after the shutdown: %v", err)
		}
	}
}
