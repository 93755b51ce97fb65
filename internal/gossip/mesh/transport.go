package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

var errUnreachable = errors.New("unreachable")

// Transport is one process's end of the network.
type Transport struct {
	network *Network
	name    string
	addr    *net.UDPAddr
	site    atomic.Int64
	flight  atomic.Int64 // packets under way to here
	packets chan *memberlist.Packet
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once

	mu     sync.Mutex // guards random
	random *rand.Rand

	sent, received, sentBytes, receivedBytes atomic.Uint64
}

var _ memberlist.Transport = (*Transport)(nil)

type packet struct {
	body []byte
	from net.Addr
}

func newTransport(n *Network, name string, addr *net.UDPAddr, serial uint64) *Transport {
	return &Transport{
		network: n, name: name, addr: addr,
		packets: make(chan *memberlist.Packet, queueSize), conns: make(chan net.Conn, queueSize),
		closed: make(chan struct{}),
		random: rand.New(rand.NewPCG(n.seed, serial)), //nolint:gosec // a simulation is to be repeatable
	}
}

// Place says at which site the process is, for Network.Between.
func (t *Transport) Place(site int) { t.site.Store(int64(site)) }

// Traffic is what went through a transport. Streams count their bytes as they are
// written and read, without headers.
type Traffic struct{ SentPackets, ReceivedPackets, SentBytes, ReceivedBytes uint64 }

// Traffic returns the counters.
func (t *Transport) Traffic() Traffic {
	return Traffic{t.sent.Load(), t.received.Load(), t.sentBytes.Load(), t.receivedBytes.Load()}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.IP, t.addr.Port, nil
}

// WriteTo implements memberlist.Transport. It never blocks.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	n := t.network
	t.sent.Add(1)
	t.sentBytes.Add(uint64(len(b)))
	n.sent.Add(1)
	n.bytes.Add(uint64(len(b)))
	far, link := n.path(t, addr)
	if far == nil {
		n.dropped.Add(1)
		return now, nil
	}
	delay, lost := t.draw(link)
	if lost {
		n.dropped.Add(1)
		return now, nil
	}
	// The far end keeps the bytes, so that they cannot come from a pool.
	p := packet{bytes.Clone(b), t.addr}
	switch {
	case delay <= 0:
		far.deliver(p)
	case far.flight.Add(1) > flightLimit:
		far.flight.Add(-1)
		n.dropped.Add(1)
	default:
		n.calendar.add(now, delay, arrival{far, p})
	}
	return now, nil
}

func (t *Transport) draw(l Link) (delay time.Duration, lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Loss > 0 && t.random.Float64() < l.Loss {
		return 0, true
	}
	return l.delay(t.random), false
}

func (t *Transport) deliver(p packet) {
	select {
	case <-t.closed:
		return
	default:
	}
	select {
	case t.packets <- &memberlist.Packet{Buf: p.body, From: p.from, Timestamp: time.Now()}:
		t.received.Add(1)
		t.receivedBytes.Add(uint64(len(p.body)))
	default:
		t.network.dropped.Add(1)
	}
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.conns }

// DialTimeout implements memberlist.Transport. It takes the time of a round trip; a
// cut link swallows the attempt, as a real one does. What is written to a stream
// arrives without delay.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	far, trip := t.network.roundTrip(t, addr)
	if far == nil || trip > timeout {
		t.wait(timeout)
		return nil, fmt.Errorf("dial %s: %w", addr, errUnreachable)
	}
	t.wait(trip)
	near, remote := net.Pipe()
	a, b := t.network.track(near, remote, t, far)
	if a == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, errUnreachable)
	}
	select {
	case far.conns <- b:
		return a, nil
	default:
		_, _ = a.Close(), b.Close()
		return nil, fmt.Errorf("dial %s: %w", addr, errUnreachable)
	}
}

func (t *Transport) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.closed:
	}
}

// Shutdown implements memberlist.Transport.
func (t *Transport) Shutdown() error {
	t.once.Do(func() {
		t.network.mu.Lock()
		delete(t.network.ports, t.name)
		t.network.mu.Unlock()
		close(t.closed)
		t.network.breakStreams()
	})
	return nil
}
