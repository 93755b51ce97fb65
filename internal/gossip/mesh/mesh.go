// Package mesh is a network in memory for gossip under virtual time. Packets go
// through bounded queues and are dropped when one is full, as on a real network;
// streams are pipes. Links can be cut, and packets delayed and lost.
package mesh

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// queueSize bounds the packets and streams that wait at one transport.
const queueSize = 256

var errUnreachable = errors.New("unreachable")

// Network connects transports. It is safe for concurrent use.
type Network struct {
	mu      sync.Mutex // guards everything below; never held while sending
	ports   map[string]*Transport
	cut     map[[2]string]bool
	streams map[*stream]struct{}
	latency time.Duration
	loss    float64
	random  *rand.Rand
	dropped int
}

// New returns an empty network; the seed decides which packets are lost.
func New(seed uint64) *Network {
	return &Network{
		ports:   make(map[string]*Transport),
		cut:     make(map[[2]string]bool),
		streams: make(map[*stream]struct{}),
		random:  rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // a simulation is to be repeatable
	}
}

// Transport attaches a process at ip:port. The address must be free.
func (n *Network) Transport(addr string) (*Transport, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", addr, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", addr, err)
	}
	t := &Transport{
		network: n, addr: &net.UDPAddr{IP: net.ParseIP(host), Port: number},
		packets: make(chan *memberlist.Packet, queueSize), conns: make(chan net.Conn, queueSize),
		closed: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[addr] != nil {
		return nil, fmt.Errorf("attach %s: address in use", addr)
	}
	n.ports[addr] = t
	return t, nil
}

// Shape sets the delay and the share of lost packets of every link from now on.
func (n *Network) Shape(latency time.Duration, loss float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency, n.loss = latency, loss
}

// Cut stops everything from one address to another, one way. Streams between
// them break.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	n.cut[[2]string{from, to}] = true
	var broken []*stream
	for s := range n.streams {
		if s.from == from && s.to == to || s.from == to && s.to == from {
			broken = append(broken, s)
		}
	}
	n.mu.Unlock()
	for _, s := range broken {
		_ = s.Close()
	}
}

// Partition cuts every link between the two groups, both ways.
func (n *Network) Partition(a, b []string) {
	for _, x := range a {
		for _, y := range b {
			n.Cut(x, y)
			n.Cut(y, x)
		}
	}
}

// Heal mends every link.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Dropped returns how many packets were lost or found a full queue.
func (n *Network) Dropped() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dropped
}

// route returns the far end of a link and its delay, or nil when a packet on it
// is lost.
func (n *Network) route(from, to string) (*Transport, time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.ports[to]
	if t == nil || n.cut[[2]string{from, to}] || n.loss > 0 && n.random.Float64() < n.loss {
		n.dropped++
		return nil, 0
	}
	return t, n.latency
}

func (n *Network) reachable(from, to string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[[2]string{from, to}] || n.cut[[2]string{to, from}] {
		return nil
	}
	return n.ports[to]
}

func (n *Network) drop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropped++
}

// Transport is one process's end of the network.
type Transport struct {
	network *Network
	addr    *net.UDPAddr
	packets chan *memberlist.Packet
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

var _ memberlist.Transport = (*Transport)(nil)

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.IP, t.addr.Port, nil
}

// WriteTo implements memberlist.Transport. It never blocks.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	far, latency := t.network.route(t.addr.String(), addr)
	if far == nil {
		return now, nil
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: t.addr}
	if latency == 0 {
		far.deliver(packet)
		return now, nil
	}
	time.AfterFunc(latency, func() { far.deliver(packet) })
	return now, nil
}

func (t *Transport) deliver(packet *memberlist.Packet) {
	packet.Timestamp = time.Now()
	select {
	case <-t.closed:
	case t.packets <- packet:
	default:
		t.network.drop()
	}
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.conns }

// DialTimeout implements memberlist.Transport. A cut link swallows the attempt,
// as a real one does.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	far := t.network.reachable(t.addr.String(), addr)
	if far == nil {
		select {
		case <-time.After(timeout):
		case <-t.closed:
		}
		return nil, fmt.Errorf("dial %s: %w", addr, errUnreachable)
	}
	near, remote := net.Pipe()
	a := t.network.track(near, t.addr.String(), addr)
	b := t.network.track(remote, t.addr.String(), addr)
	select {
	case far.conns <- b:
		return a, nil
	default:
		_, _ = a.Close(), b.Close()
		return nil, fmt.Errorf("dial %s: %w", addr, errUnreachable)
	}
}

// Shutdown implements memberlist.Transport.
func (t *Transport) Shutdown() error {
	t.once.Do(func() {
		own := t.addr.String()
		t.network.mu.Lock()
		delete(t.network.ports, own)
		var open []*stream
		for s := range t.network.streams {
			if s.from == own || s.to == own {
				open = append(open, s)
			}
		}
		t.network.mu.Unlock()
		close(t.closed)
		for _, s := range open {
			_ = s.Close()
		}
	})
	return nil
}

func (n *Network) track(conn net.Conn, from, to string) *stream {
	s := &stream{Conn: conn, network: n, from: from, to: to}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streams[s] = struct{}{}
	return s
}

// stream is one end of a pipe.
type stream struct {
	net.Conn
	network  *Network
	from, to string
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.network.mu.Lock()
	delete(s.network.streams, s)
	s.network.mu.Unlock()
	return s.Conn.Close() //nolint:wrapcheck // a transparent wrapper
}
