package fabric_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

func open(t *testing.T, nodes ...fabric.Node) fabric.Fabric {
	t.Helper()
	if !fabric.Entered() {
		t.Skip("needs namespaces")
	}
	f, err := fabric.Open(t.Context(), fabric.Kernel, nodes, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reach checks all four ways between two nodes.
func reach(t *testing.T, f fabric.Fabric, abTCP, abUDP, baTCP, baUDP bool) {
	t.Helper()
	for _, c := range []struct {
		from, to fabric.Node
		proto    string
		want     bool
	}{
		{"a", "b", fabric.TCP, abTCP},
		{"a", "b", fabric.UDP, abUDP},
		{"b", "a", fabric.TCP, baTCP},
		{"b", "a", fabric.UDP, baUDP},
	} {
		if got := f.Reaches(t.Context(), c.from, c.to, c.proto); got != c.want {
			t.Errorf("%s reaches %s by %s: %v, want %v", c.from, c.to, c.proto, got, c.want)
		}
	}
}

func TestCutIsOneWayAndByProtocol(t *testing.T) {
	f := open(t, "a", "b", "c")
	cutIsOneWayAndByProtocol(t, f)
	lost, err := f.Lost()
	do(t, err)
	if n := lost[fabric.Link{From: "a", To: "b", Proto: fabric.TCP}]; n != 10 {
		t.Errorf("lost %d packets a → b, want the 10 of the probe", n)
	}
	do(t, f.Heal())
	reach(t, f, true, true, true, true)
}

func cutIsOneWayAndByProtocol(t *testing.T, f fabric.Fabric) {
	t.Helper()
	reach(t, f, true, true, true, true)
	do(t, f.Cut([]fabric.Link{{From: "a", To: "b"}}))
	reach(t, f, false, false, true, true)
	do(t, f.Cut([]fabric.Link{{From: "b", To: "a", Proto: fabric.UDP}})) // replaces the first
	reach(t, f, true, true, true, false)
	do(t, f.Cut(fabric.Between([]fabric.Node{"a"}, []fabric.Node{"b", "c"})))
	lost, err := f.Lost()
	do(t, err)
	if len(lost) != 4 {
		t.Errorf("lost %v, want the four links of the cut", lost)
	}
	reach(t, f, false, false, true, true)
}

func TestCutRefusesStrangers(t *testing.T) {
	f := open(t, "a", "b")
	do(t, f.Cut([]fabric.Link{{From: "a", To: "b"}}))
	for _, l := range []fabric.Link{{From: "a", To: "x"}, {From: "a", To: "a"}, {From: "a", To: "b", Proto: "icmp"}} {
		if err := f.Cut([]fabric.Link{{From: "b", To: "a"}, l}); err == nil {
			t.Errorf("cut %v was taken", l)
		}
	}
	reach(t, f, false, false, true, true) // nothing of the refused cuts is in force
}

func listen(t *testing.T, f fabric.Fabric, n fabric.Node) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(f.IP(n).String(), "0"))
	do(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	do(t, conn.(*net.UDPConn).SetReadBuffer(1<<20)) // or what the system allows: all that is sent at once
	return conn
}

// datagrams sends n numbered datagrams, a gap apart, and returns in which order which
// ones arrived, and how long each took.
func datagrams(t *testing.T, f fabric.Fabric, from, to fabric.Node, n int) (order []int, took []time.Duration) {
	t.Helper()
	out, in := listen(t, f, from), listen(t, f, to)
	began := time.Now()
	sent := make([]time.Duration, n)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		buffer := make([]byte, 16)
		for {
			_ = in.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
			if size, _, err := in.ReadFrom(buffer); err != nil || size != 2 {
				return
			}
			i := int(buffer[0])<<8 | int(buffer[1])
			order, took = append(order, i), append(took, time.Since(began))
		}
	}()
	for i := range n {
		sent[i] = time.Since(began)
		_, err := out.WriteTo([]byte{byte(i >> 8), byte(i)}, in.LocalAddr())
		do(t, err)
	}
	<-heard
	for i, id := range order {
		took[i] -= sent[id]
	}
	return order, took
}

func shaped(t *testing.T, s fabric.Shape) fabric.Fabric {
	t.Helper()
	f := open(t, "a", "b")
	if caps := f.Caps(); !caps.Delay {
		t.Skip(caps.Why)
	}
	do(t, f.Shape(fabric.Link{From: "a", To: "b"}, s))
	return f
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func TestDelayKeepsOrder(t *testing.T) {
	f := shaped(t, fabric.Shape{Delay: 150 * time.Millisecond, Jitter: 50 * time.Millisecond})
	order, took := datagrams(t, f, "a", "b", 100)
	if len(order) != 100 || !slices.IsSorted(order) {
		t.Errorf("%d of 100 datagrams arrived, in order: %v", len(order), slices.IsSorted(order))
	}
	if least := slices.Min(took); least < 150*time.Millisecond {
		t.Errorf("a datagram took %v, want 150 ms or more", least)
	}
	t.Logf("delays: median %v, from %v to %v", median(took), took[0], took[len(took)-1])
	if _, back := datagrams(t, f, "b", "a", 20); median(back) > 100*time.Millisecond {
		t.Errorf("the way back took %v: it is not shaped", median(back))
	}
	do(t, f.Shape(fabric.Link{From: "a", To: "b"}, fabric.Shape{}))
	if _, took = datagrams(t, f, "a", "b", 20); median(took) > 100*time.Millisecond {
		t.Errorf("%v after the shape ended", median(took))
	}
	do(t, f.Shape(fabric.Link{From: "a", To: "b"}, fabric.Shape{Delay: 150 * time.Millisecond}))
	do(t, f.Heal())
	do(t, f.Shape(fabric.Link{From: "b", To: "a"}, fabric.Shape{Delay: 150 * time.Millisecond})) // the other way
	if _, took = datagrams(t, f, "a", "b", 20); median(took) > 100*time.Millisecond {
		t.Errorf("%v after Heal", median(took))
	}
}

func TestLossDuplicatesAndReorder(t *testing.T) {
	const n = 200 // with copies, they fit into a socket's buffer
	for _, c := range []struct {
		name              string
		shape             fabric.Shape
		least, most       int
		sorted, duplicate bool
	}{
		{"loss", fabric.Shape{Loss: 0.3}, 110, 170, true, false},
		{"duplicate", fabric.Shape{Duplicate: 0.5}, 270, 330, false, true},
		{"reorder", fabric.Shape{Delay: 20 * time.Millisecond, Reorder: 0.2}, n, n, false, false},
		{"all lost", fabric.Shape{Loss: 1}, 0, 0, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := shaped(t, c.shape)
			order, _ := datagrams(t, f, "a", "b", n)
			if len(order) < c.least || len(order) > c.most {
				t.Errorf("%d datagrams arrived, want %d to %d", len(order), c.least, c.most)
			}
			distinct := slices.Compact(slices.Sorted(slices.Values(order)))
			if c.duplicate && len(distinct) != n {
				t.Errorf("%d of %d different datagrams arrived", len(distinct), n)
			}
			if got := slices.IsSorted(order); !c.duplicate && got != c.sorted {
				t.Errorf("in order: %v", got)
			}
		})
	}
}

// transfer sends bytes over TCP and tells how long it took until they had all arrived.
func transfer(t *testing.T, f fabric.Fabric, from, to fabric.Node, size int) time.Duration {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(f.IP(to).String(), "0"))
	do(t, err)
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	began := time.Now()
	conn, err := fabric.Dial(ctx, f.IP(from), "tcp", listener.Addr().String())
	do(t, err)
	defer conn.Close()
	if ip := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr(); ip != f.IP(from) {
		t.Fatalf("dialled from %v, not from the node", ip)
	}
	other, err := listener.Accept()
	do(t, err)
	defer other.Close()
	go func() { _, _ = conn.Write(make([]byte, size)) }()
	do(t, other.SetReadDeadline(time.Now().Add(20*time.Second)))
	buffer := make([]byte, 1<<16)
	for size > 0 {
		n, err := other.Read(buffer)
		do(t, err)
		size -= n
	}
	return time.Since(began)
}

func TestStreamsSurviveShapes(t *testing.T) {
	for name, s := range map[string]fabric.Shape{
		"delay":     {Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond},
		"loss":      {Loss: 0.05},
		"duplicate": {Duplicate: 0.3},
		"reorder":   {Delay: 2 * time.Millisecond, Reorder: 0.1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Log(transfer(t, shaped(t, s), "a", "b", 1<<20))
		})
	}
}

func TestRateLimitsStreams(t *testing.T) {
	f := shaped(t, fabric.Shape{Rate: 1 << 20})
	if took := transfer(t, f, "a", "b", 1<<20); took < 700*time.Millisecond {
		t.Errorf("1 MiB at 1 MiB/s took %v", took)
	}
	if took := transfer(t, f, "b", "a", 1<<20); took > 700*time.Millisecond {
		t.Errorf("1 MiB on the way back, without a limit, took %v", took)
	}
}

// A cut ends an established connection's traffic, and a healed one goes on.
func TestCutHoldsAStream(t *testing.T) {
	f := open(t, "a", "b")
	listener, err := net.Listen("tcp", net.JoinHostPort(f.IP("b").String(), "0"))
	do(t, err)
	defer listener.Close()
	conn, err := fabric.Dial(t.Context(), f.IP("a"), "tcp", listener.Addr().String())
	do(t, err)
	defer conn.Close()
	other, err := listener.Accept()
	do(t, err)
	defer other.Close()
	do(t, f.Cut([]fabric.Link{{From: "a", To: "b"}}))
	_, err = conn.Write([]byte("x"))
	do(t, err)
	do(t, other.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	if n, err := other.Read(make([]byte, 1)); err == nil {
		t.Fatalf("%d bytes came through a cut", n)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := fabric.Dial(short, f.IP("a"), "tcp", listener.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("a new connection was made through a cut")
	}
	plain, err := net.DialTimeout("tcp", listener.Addr().String(), time.Second)
	do(t, err) // from 127.0.0.1, which is no node
	_ = plain.Close()
	do(t, f.Heal())
	do(t, other.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = other.Read(make([]byte, 1))
	do(t, err)
}
