package gossip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// labelMark begins packets and streams of pools with a label; the length of the
	// label and the label follow, in clear.
	labelMark = 244
	// portQueue bounds the packets that wait for one pool, and streamQueue the
	// streams: a pool that hangs costs the others nothing. The newest is dropped.
	portQueue   = 256
	streamQueue = 16
	// greetLimit bounds the streams that have not said their label yet.
	greetLimit = 64
)

// ListenerConfig configures a Listener.
type ListenerConfig struct {
	// BindAddr, AdvertiseAddr and SourceIP are as in Config.
	BindAddr, AdvertiseAddr, SourceIP string
}

// Listener is one port, UDP and TCP, that several pools share: what comes in goes
// to the pool with its label. It is safe for concurrent use.
type Listener struct {
	inner   memberlist.Transport
	conns   conns // that came in
	down    chan struct{}
	loops   sync.WaitGroup
	greets  chan struct{} // places of streams that have not said their label
	dropped atomic.Uint64

	mu    sync.Mutex // guards the rest
	ports map[string]*port
	done  bool
}

// Listen binds the port.
func Listen(config ListenerConfig) (*Listener, error) {
	s, err := openSockets(config.BindAddr, config.AdvertiseAddr, config.SourceIP)
	if err != nil {
		return nil, err
	}
	return Share(s), nil
}

// Share lets several pools use a transport, which belongs to the listener from now
// on.
func Share(inner memberlist.Transport) *Listener {
	l := &Listener{
		inner: inner, down: make(chan struct{}), greets: make(chan struct{}, greetLimit), ports: make(map[string]*port),
	}
	l.loops.Go(l.run)
	return l
}

// Addr is the address (host:port) that pools on this port advertise.
func (l *Listener) Addr() string {
	ip, number, err := l.inner.FinalAdvertiseAddr("", 0)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(number))
}

// Dropped counts packets and streams that no pool took: of labels that nobody has
// here, or for a pool that is behind.
func (l *Listener) Dropped() uint64 { return l.dropped.Load() }

// Transport is the port for a pool with this label, at most one at a time. It is
// the pool's Config.Transport, and free again when the pool is closed.
func (l *Listener) Transport(label string) (memberlist.Transport, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.done:
		return nil, fmt.Errorf("share gossip port: %w", net.ErrClosed)
	case l.ports[label] != nil:
		return nil, fmt.Errorf("share gossip port: there is a pool with the label %q already", label)
	}
	p := &port{
		listener: l, label: label,
		packets: make(chan *memberlist.Packet, portQueue), streams: make(chan net.Conn, streamQueue),
	}
	l.ports[label] = p
	return p, nil
}

// Close ends the listener; pools that still use it are cut off. It is idempotent.
func (l *Listener) Close() error {
	l.mu.Lock()
	if !l.done {
		l.done = true
		close(l.down)
	}
	l.mu.Unlock()
	err := l.inner.Shutdown()
	l.conns.close()
	l.loops.Wait()
	if err != nil {
		return fmt.Errorf("close gossip port: %w", err)
	}
	return nil
}

func (l *Listener) port(label string) *port {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ports[label]
}

func (l *Listener) run() {
	for {
		select {
		case <-l.down:
			return
		case packet := <-l.inner.PacketCh():
			_, label, err := memberlist.RemoveLabelHeaderFromPacket(packet.Buf)
			if p := l.port(label); err != nil || p == nil || !p.deliver(packet) {
				l.dropped.Add(1)
			}
		case conn := <-l.inner.StreamCh():
			select {
			case l.greets <- struct{}{}:
				l.loops.Go(func() { l.greet(conn) })
			default:
				l.dropped.Add(1)
				_ = conn.Close()
			}
		}
	}
}

// greet waits for the label of a stream and passes the stream on.
func (l *Listener) greet(conn net.Conn) {
	defer func() { <-l.greets }()
	tracked := l.conns.track(conn)
	if tracked == nil {
		return
	}
	_ = tracked.SetReadDeadline(time.Now().Add(streamTimeout))
	label, head, err := readLabel(tracked)
	_ = tracked.SetReadDeadline(time.Time{})
	if p := l.port(label); err != nil || p == nil || !p.accept(&headedConn{Conn: tracked, head: head}) {
		l.dropped.Add(1)
		_ = tracked.Close()
	}
}

// readLabel also returns what it has read.
func readLabel(r io.Reader) (label string, head []byte, err error) {
	head = make([]byte, 1, 2+memberlist.LabelMaxSize)
	if _, err := io.ReadFull(r, head); err != nil || head[0] != labelMark {
		return "", head, err //nolint:wrapcheck // the caller only counts it
	}
	head = head[:2]
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return "", head, err //nolint:wrapcheck // as above
	}
	head = head[:2+int(head[1])]
	_, err = io.ReadFull(r, head[2:])
	return string(head[2:]), head, err //nolint:wrapcheck // as above
}

// headedConn is a connection of which the first bytes have been read.
type headedConn struct {
	net.Conn
	head []byte
}

// Read implements net.Conn.
func (c *headedConn) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b) //nolint:wrapcheck // a transparent wrapper
}

// port is a pool's share of a listener.
type port struct {
	listener *Listener
	label    string
	packets  chan *memberlist.Packet
	streams  chan net.Conn
	conns    conns
	once     sync.Once
	intake
}

var _ memberlist.Transport = (*port)(nil)

func (p *port) deliver(packet *memberlist.Packet) bool {
	select {
	case p.packets <- packet:
		p.take(packet.Buf)
		return true
	default:
		return false
	}
}

func (p *port) accept(conn net.Conn) bool {
	tracked := p.conns.track(conn)
	if tracked == nil {
		return false
	}
	tracked.intake = &p.intake
	select {
	case p.streams <- tracked:
		return true
	default:
		_ = tracked.Close()
		return false
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (p *port) FinalAdvertiseAddr(ip string, number int) (net.IP, int, error) {
	return p.listener.inner.FinalAdvertiseAddr(ip, number) //nolint:wrapcheck // a transparent wrapper
}

// WriteTo implements memberlist.Transport.
func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	return p.listener.inner.WriteTo(b, addr) //nolint:wrapcheck // a transparent wrapper
}

// PacketCh implements memberlist.Transport.
func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }

// StreamCh implements memberlist.Transport.
func (p *port) StreamCh() <-chan net.Conn { return p.streams }

// DialTimeout implements memberlist.Transport.
func (p *port) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	conn, err := p.listener.inner.DialTimeout(addr, timeout)
	if err != nil {
		return nil, err //nolint:wrapcheck // the library inspects it
	}
	if tracked := p.conns.track(conn); tracked != nil {
		return tracked, nil
	}
	return nil, net.ErrClosed
}

// Shutdown implements memberlist.Transport. The listener goes on.
func (p *port) Shutdown() error {
	p.once.Do(func() {
		p.listener.mu.Lock()
		delete(p.listener.ports, p.label)
		p.listener.mu.Unlock()
		p.conns.close()
	})
	return nil
}

// meter counts what a transport sends, and bounds how long its streams take: the
// library writes some messages without a deadline, to a peer that may not read.
type meter struct {
	memberlist.Transport
	counters *counters
}

var _ memberlist.NodeAwareTransport = meter{}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (m meter) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	m.counters.sentPackets.Add(1)
	m.counters.sentBytes.Add(uint64(len(b)))
	return m.WriteTo(b, a.Addr) //nolint:wrapcheck // a transparent wrapper
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (m meter) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := m.DialTimeout(a.Addr, timeout)
	if err != nil {
		return nil, err //nolint:wrapcheck // the library inspects it
	}
	if err := conn.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return meteredConn{conn, m.counters}, nil
}

type meteredConn struct {
	net.Conn
	counters *counters
}

// Write implements net.Conn.
func (c meteredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.counters.sentBytes.Add(uint64(n))
	return n, err //nolint:wrapcheck // a transparent wrapper
}
