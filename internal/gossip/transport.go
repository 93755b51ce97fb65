package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// bindAttempts is how often a free port is asked for: the same number must be
	// free for TCP and for UDP.
	bindAttempts = 10
	// packetLimit is the longest packet taken in; nobody sends longer ones.
	packetLimit = 2 << 10
	// receiveBuffer is what the system is asked to keep for a reader that is late.
	receiveBuffer = 2 << 20
	// acceptPause is how long accepting rests after an error, of which the likely
	// one is that there are no file descriptors left.
	acceptPause = 50 * time.Millisecond
)

// sockets is a transport over one UDP socket and one TCP listener of the same
// port. Unlike the library's it copies each packet into a slice of its own length,
// where that one allocates 64 KiB, its streams leave from a given address, and they
// end when it is shut down.
type sockets struct {
	udp       *net.UDPConn
	tcp       *net.TCPListener
	source    net.Addr
	advertise netip.AddrPort
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	conns     conns
	intake

	ctx    context.Context //nolint:containedctx // the life of the transport; the interface has no contexts
	cancel context.CancelFunc
	loops  sync.WaitGroup
}

var _ memberlist.Transport = (*sockets)(nil)

func openSockets(bindAddr, advertiseAddr, sourceIP string) (*sockets, error) {
	bind, err := net.ResolveTCPAddr("tcp", bindAddr)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", bindAddr, err)
	}
	s := &sockets{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
	if sourceIP != "" {
		source := net.ParseIP(sourceIP)
		if source == nil {
			return nil, fmt.Errorf("source IP %q is not an IP address", sourceIP)
		}
		s.source = &net.TCPAddr{IP: source}
	}
	if err := s.bind(bind); err != nil {
		return nil, fmt.Errorf("bind gossip to %s: %w", bindAddr, err)
	}
	if s.advertise, err = advertised(advertiseAddr, s.tcp.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		_, _ = s.udp.Close(), s.tcp.Close()
		return nil, fmt.Errorf("gossip advertise address %q: %w", advertiseAddr, err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.loops.Go(s.read)
	s.loops.Go(s.accept)
	return s, nil
}

func (s *sockets) bind(addr *net.TCPAddr) error {
	attempts := 1
	if addr.Port == 0 {
		attempts = bindAttempts
	}
	var err error
	for range attempts {
		if s.tcp, err = net.ListenTCP("tcp", addr); err != nil {
			return err //nolint:wrapcheck // the caller names the address
		}
		at := net.UDPAddr{IP: addr.IP, Port: s.tcp.Addr().(*net.TCPAddr).Port, Zone: addr.Zone}
		if s.udp, err = net.ListenUDP("udp", &at); err == nil {
			_ = s.udp.SetReadBuffer(receiveBuffer) // the system may grant less
			return nil
		}
		_ = s.tcp.Close()
	}
	return err
}

// advertised is the address that others are told: the one that is configured, else
// the one that is bound, else a private one of this machine.
func advertised(configured string, bound netip.AddrPort) (netip.AddrPort, error) {
	port := strconv.Itoa(int(bound.Port()))
	if configured == "" {
		ip := bound.Addr().Unmap()
		if ip.IsUnspecified() {
			ip = ownAddr()
		}
		if !ip.IsValid() {
			return netip.AddrPort{}, errors.New("this machine has no address that others could use; configure one")
		}
		return netip.AddrPortFrom(ip, bound.Port()), nil
	}
	if _, _, err := net.SplitHostPort(configured); err != nil {
		configured = net.JoinHostPort(configured, port)
	}
	addr, err := net.ResolveTCPAddr("tcp", configured)
	if err != nil {
		return netip.AddrPort{}, err //nolint:wrapcheck // the caller names the address
	}
	at := addr.AddrPort()
	if !at.Addr().IsValid() {
		return netip.AddrPort{}, errors.New("no host in it")
	}
	if at.Port() == 0 {
		return netip.AddrPortFrom(at.Addr().Unmap(), bound.Port()), nil
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}

// ownAddr is an address of this machine: a private one if there is one.
func ownAddr() netip.Addr {
	addrs, _ := net.InterfaceAddrs() // without any there is nothing to tell
	var global netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if ip := prefix.Addr().Unmap(); err == nil && ip.IsGlobalUnicast() {
			if ip.IsPrivate() && ip.Is4() {
				return ip
			}
			if !global.IsValid() || ip.Is4() && !global.Is4() {
				global = ip
			}
		}
	}
	return global
}

// read passes packets on. The library is done with each before it takes the next
// but keeps parts of it, so that the bytes cannot be used again.
func (s *sockets) read() {
	buffer := make([]byte, packetLimit+1)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buffer)
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier packet
		}
		if n == 0 || n > packetLimit {
			continue
		}
		s.take(buffer[:n])
		packet := &memberlist.Packet{
			Buf:       append(make([]byte, 0, n), buffer[:n]...),
			From:      net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr().Unmap(), from.Port())),
			Timestamp: time.Now(),
		}
		select {
		case s.packets <- packet:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *sockets) accept() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		tracked := s.conns.track(conn)
		if tracked == nil {
			return
		}
		tracked.intake = &s.intake
		select {
		case s.streams <- tracked:
		case <-s.ctx.Done():
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (s *sockets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return s.advertise.Addr().AsSlice(), int(s.advertise.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send packet: %w", err)
	}
	_, err = s.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err //nolint:wrapcheck // the library inspects *net.OpError
}

// PacketCh implements memberlist.Transport.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh implements memberlist.Transport.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// DialTimeout implements memberlist.Transport.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout, LocalAddr: s.source}
	conn, err := dialer.DialContext(s.ctx, "tcp", addr)
	if err != nil {
		return nil, err //nolint:wrapcheck // the library inspects *net.OpError
	}
	if tracked := s.conns.track(conn); tracked != nil {
		return tracked, nil
	}
	return nil, net.ErrClosed
}

// Shutdown implements memberlist.Transport.
func (s *sockets) Shutdown() error {
	s.cancel()
	_, _ = s.udp.Close(), s.tcp.Close()
	s.conns.close()
	s.loops.Wait()
	return nil
}

// conns are streams that end together. The zero value is empty.
type conns struct {
	mu     sync.Mutex // guards the rest
	open   map[*trackedConn]struct{}
	closed bool
}

// track returns nil, and closes the connection, once the set is closed.
func (c *conns) track(conn net.Conn) *trackedConn {
	tracked := &trackedConn{Conn: conn, owner: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return nil
	}
	if c.open == nil {
		c.open = make(map[*trackedConn]struct{})
	}
	c.open[tracked] = struct{}{}
	return tracked
}

func (c *conns) close() {
	c.mu.Lock()
	open := c.open
	c.open, c.closed = nil, true
	c.mu.Unlock()
	for conn := range open {
		_ = conn.Conn.Close()
	}
}

// trackedConn forgets itself when it is closed.
type trackedConn struct {
	net.Conn
	owner  *conns
	intake *intake // counts what is read; nil: nobody does
}

// Read implements net.Conn.
func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.intake != nil {
		c.intake.bytes.Add(uint64(n))
	}
	return n, err //nolint:wrapcheck // a transparent wrapper
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close() //nolint:wrapcheck // a transparent wrapper
}
