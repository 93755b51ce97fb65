package fabric_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

const servicePort = 7400

func openProxy(t *testing.T, nodes ...fabric.Node) fabric.Fabric {
	t.Helper()
	f, err := fabric.Open(t.Context(), fabric.Proxy, nodes, fabric.Ports{servicePort})
	do(t, err)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func at(ip netip.Addr) string { return netip.AddrPortFrom(ip, servicePort).String() }

func TestProxyCutIsOneWayAndByProtocol(t *testing.T) {
	f := openProxy(t, "a", "b", "c")
	cutIsOneWayAndByProtocol(t, f)
	lost, err := f.Lost()
	do(t, err)
	for _, proto := range []string{fabric.TCP, fabric.UDP} {
		if n := lost[fabric.Link{From: "a", To: "b", Proto: proto}]; n == 0 {
			t.Errorf("no loss of %s a → b: %v", proto, lost)
		}
	}
	do(t, f.Heal())
	reach(t, f, true, true, true, true)
}

// connection is both ends of one, from a to b through the proxy.
func connection(t *testing.T, f fabric.Fabric) (a, b net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", at(f.IP("b")))
	do(t, err)
	defer listener.Close()
	a, err = fabric.Dial(t.Context(), f.IP("a"), "tcp", at(f.Advertised("b")))
	do(t, err)
	t.Cleanup(func() { _ = a.Close() })
	b, err = listener.Accept()
	do(t, err)
	t.Cleanup(func() { _ = b.Close() })
	if ip := netip.MustParseAddrPort(b.RemoteAddr().String()).Addr(); ip != f.IP("a") {
		t.Errorf("it comes from %v, not from the node", ip)
	}
	return a, b
}

func hears(t *testing.T, c net.Conn, patience time.Duration) (byte, bool) {
	t.Helper()
	do(t, c.SetReadDeadline(time.Now().Add(patience)))
	one := make([]byte, 1)
	_, err := c.Read(one)
	return one[0], err == nil
}

func TestProxyHoldsStreamsAndTheirEnds(t *testing.T) {
	f := openProxy(t, "a", "b")
	a, b := connection(t, f)
	_, _ = a.Write([]byte("1"))
	if c, ok := hears(t, b, 5*time.Second); !ok || c != '1' {
		t.Fatalf("heard %q, %v", c, ok)
	}
	do(t, f.Cut([]fabric.Link{{From: "a", To: "b"}}))
	_, _ = a.Write([]byte("2"))
	_ = a.(*net.TCPConn).CloseWrite()
	_, _ = b.Write([]byte("3"))
	if c, ok := hears(t, a, 5*time.Second); !ok || c != '3' {
		t.Errorf("the way back: heard %q, %v", c, ok)
	}
	if c, ok := hears(t, b, 200*time.Millisecond); ok {
		t.Errorf("%q came through the cut", c)
	}
	do(t, f.Heal())
	do(t, b.SetReadDeadline(time.Now().Add(5*time.Second)))
	if rest, err := io.ReadAll(b); err != nil || string(rest) != "2" {
		t.Errorf("after the heal: %q, %v", rest, err)
	}
	do(t, f.Cut([]fabric.Link{{From: "b", To: "a"}}))
	do(t, b.Close())
	do(t, a.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	if n, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("through the cut: %d, %v", n, err)
	}
	do(t, f.Heal())
	do(t, a.SetReadDeadline(time.Now().Add(5*time.Second)))
	if rest, err := io.ReadAll(a); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

func TestProxyDelaysWithoutSlowing(t *testing.T) {
	f := openProxy(t, "a", "b")
	do(t, f.Shape(fabric.Link{From: "a", To: "b"}, fabric.Shape{Delay: 100 * time.Millisecond, Jitter: 20 * time.Millisecond}))
	a, b := connection(t, f)
	began := time.Now()
	const size = 8 << 20
	go func() { _, _ = a.Write(make([]byte, size)) }()
	do(t, b.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err := io.ReadFull(b, make([]byte, size))
	do(t, err)
	if took := time.Since(began); took < 100*time.Millisecond || took > 8*time.Second {
		t.Errorf("8 MiB took %v", took)
	}
	if err := f.Shape(fabric.Link{From: "a", To: "b"}, fabric.Shape{Loss: 0.1}); err == nil {
		t.Error("it promises to lose packets")
	}
}

// Datagrams come from the shadow of the sender's address, so that an answer to it
// goes through the proxy too.
func TestProxyCarriesDatagramsAndAnswers(t *testing.T) {
	f := openProxy(t, "a", "b")
	listen := func(address string) net.PacketConn {
		conn, err := net.ListenPacket("udp", address)
		do(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		do(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		return conn
	}
	b := listen(at(f.IP("b")))
	for _, from := range []string{at(f.IP("a")), f.IP("a").String() + ":0"} {
		a := listen(from)
		to, err := net.ResolveUDPAddr("udp", at(f.Advertised("b")))
		do(t, err)
		_, err = a.WriteTo([]byte("ping"), to)
		do(t, err)
		buffer := make([]byte, 16)
		n, source, err := b.ReadFrom(buffer)
		do(t, err)
		if ip := netip.MustParseAddrPort(source.String()).Addr(); string(buffer[:n]) != "ping" || ip != f.Advertised("a") {
			t.Fatalf("%q from %v", buffer[:n], source)
		}
		_, err = b.WriteTo([]byte("pong"), source)
		do(t, err)
		n, source, err = a.ReadFrom(buffer)
		do(t, err)
		if string(buffer[:n]) != "pong" || source.String() != at(f.Advertised("b")) {
			t.Fatalf("%q from %v", buffer[:n], source)
		}
	}
}

func TestTwoProxiesDoNotCollide(t *testing.T) {
	for range 5 {
		openProxy(t, "a", "b")
	}
}

func TestForbiddenNamespacesAreReported(t *testing.T) {
	if !fabric.Entered() {
		t.Skip("needs namespaces")
	}
	const limit = "/proc/sys/user/max_user_namespaces"
	old, err := os.ReadFile(limit)
	do(t, err)
	do(t, os.WriteFile(limit, []byte("0"), 0))
	defer func() { do(t, os.WriteFile(limit, old, 0)) }()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = slices.DeleteFunc(append(os.Environ(), roleEnv+"=returns"), func(v string) bool {
		return strings.HasPrefix(v, "JEPSEN_NAMESPACES=")
	})
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), fabric.ErrForbidden.Error()) {
		t.Errorf("%v: %s", err, out)
	}
}
