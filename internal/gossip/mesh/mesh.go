// Package mesh is a network in memory for gossip under virtual time. Packets go
// through bounded queues and are dropped when one is full, as on a real network;
// streams are pipes. Links have delays and losses and can be cut one way.
//
// It is the inner loop of simulations with a thousand members. Deliveries are
// therefore grouped into ticks of virtual time, one timer each, and a partition is one
// rule, however many links it cuts.
package mesh

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueSize bounds the packets, and the streams, that wait at one transport.
	queueSize = 512
	// flightLimit bounds the packets that are under way to one transport.
	flightLimit = 8192
	// tick is what arrivals are rounded up to: so many packets share a timer.
	tick = 50 * time.Microsecond
)

// Network connects transports. It is safe for concurrent use.
type Network struct {
	seed uint64

	mu       sync.RWMutex // guards what follows; never held while calling out
	ports    map[string]*Transport
	attached uint64
	link     Link
	between  map[[2]int]Link // by sites
	cut      map[[2]string]bool
	walls    []wall
	streams  map[*stream]struct{}

	calendar calendar
	sent     atomic.Uint64
	bytes    atomic.Uint64
	dropped  atomic.Uint64
}

// New returns an empty network without delays and losses. The seed decides the delay
// of each packet and whether it is lost, for each transport by the order in which it
// sends.
func New(seed uint64) *Network {
	return &Network{
		seed:    seed,
		ports:   make(map[string]*Transport),
		between: make(map[[2]int]Link),
		cut:     make(map[[2]string]bool),
		streams: make(map[*stream]struct{}),
	}
}

// Transport attaches a process at ip:port, at site 0. The address must be free.
func (n *Network) Transport(addr string) (*Transport, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", addr, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", addr, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[addr] != nil {
		return nil, fmt.Errorf("attach %s: address in use", addr)
	}
	n.attached++
	t := newTransport(n, addr, &net.UDPAddr{IP: net.ParseIP(host), Port: number}, n.attached)
	n.ports[addr] = t
	return t, nil
}

// Shape sets the delay and the share of lost packets of every link from now on; see
// Links.
func (n *Network) Shape(latency time.Duration, loss float64) {
	n.Links(Link{Latency: latency, Loss: loss})
}

// Links sets what every link is like from now on, but for those that Between is about.
func (n *Network) Links(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = l
}

// Between sets what links from one site to another are like, one way. Both may be the
// same site.
func (n *Network) Between(from, to int, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.between[[2]int{from, to}] = l
}

// Cut stops everything from one address to another, one way. Streams between them
// break, since they need both ways.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	n.cut[[2]string{from, to}] = true
	n.mu.Unlock()
	n.breakStreams()
}

// CutGroup stops everything from the addresses of one group to those of another, one
// way.
func (n *Network) CutGroup(from, to []string) {
	n.mu.Lock()
	n.walls = append(n.walls, wall{group(from), group(to)})
	n.mu.Unlock()
	n.breakStreams()
}

// Partition cuts every link between the two groups, both ways.
func (n *Network) Partition(a, b []string) {
	n.CutGroup(a, b)
	n.CutGroup(b, a)
}

// Heal mends every link that was cut.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.walls = nil
}

// Dropped returns how many packets were lost, were cut off, or found a full queue.
func (n *Network) Dropped() int { return int(n.dropped.Load()) } //nolint:gosec // far below 2^63

// Sent returns how many packets were sent, and their bytes, lost ones included.
func (n *Network) Sent() (packets, bytes uint64) { return n.sent.Load(), n.bytes.Load() }

// wall cuts the links from one group to another.
type wall struct{ from, to map[string]bool }

func group(addrs []string) map[string]bool {
	set := make(map[string]bool, len(addrs))
	for _, a := range addrs {
		set[a] = true
	}
	return set
}

// isCut tells whether nothing gets from one address to another. n.mu is held.
func (n *Network) isCut(from, to string) bool {
	if len(n.cut) > 0 && n.cut[[2]string{from, to}] {
		return true
	}
	for i := range n.walls {
		if n.walls[i].from[from] && n.walls[i].to[to] {
			return true
		}
	}
	return false
}

// path returns the far end of a link and what the link is like; nil where it is cut or
// nobody is there.
func (n *Network) path(from *Transport, to string) (*Transport, Link) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	far := n.ports[to]
	if far == nil || n.isCut(from.name, to) {
		return nil, Link{}
	}
	return far, n.linkBetween(from, far)
}

func (n *Network) linkBetween(from, to *Transport) Link {
	if len(n.between) > 0 {
		if l, ok := n.between[[2]int{int(from.site.Load()), int(to.site.Load())}]; ok {
			return l
		}
	}
	return n.link
}
