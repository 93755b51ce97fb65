// Package fabric is the network between the processes of a run, and what breaks it.
//
// Every process, and every group of clients in this one, is a node with an address of
// its own on loopback: it listens on that address and its outgoing connections leave
// from it, so that a packet tells which link it travels on. The driver "kernel" runs
// in a network namespace (see Enter), drops packets by nftables and shapes them in a
// switch at user level. The driver "proxy" needs no privilege at all: it carries
// streams and datagrams between the nodes, and keeps them where a link is cut.
//
// A connection from an address that is no node's, such as 127.0.0.1, is never touched.
package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Node names an address: a server, an instance, a client.
type Node string

// Link is what travels from one node to another; the way back is another link.
type Link struct {
	From, To Node
	Proto    string // TCP, UDP, or empty for both
}

// The protocols of a link.
const (
	TCP = "tcp"
	UDP = "udp"
)

// Shape is how a link treats packets; the zero Shape treats them well.
type Shape struct {
	// Each packet takes Delay and up to Jitter more, evenly drawn; packets keep their
	// order.
	Delay, Jitter time.Duration
	// Shares of packets, from 0 to 1, that are lost, come twice, and overtake all that
	// wait.
	Loss, Duplicate, Reorder float64
	// Rate is in bytes a second, 0 for no limit. Packets that would wait for more than a
	// second because of it are lost.
	Rate int
}

// Caps is what a driver can do. What it cannot is refused with ErrUnsupported.
type Caps struct {
	Driver string
	// Drops: a cut loses packets, as a broken network does. Otherwise it withholds the
	// bytes of a stream, a new connection succeeds and then hangs, and a healed stream
	// continues at once.
	Drops bool
	// Delay and Jitter; Loss, Duplicate and Reorder; Rate.
	Delay, Loss, Rate bool
	// Why says what is missing and what would help; empty if nothing is.
	Why string
}

// Fabric is a network of nodes. Its methods may be called concurrently.
type Fabric interface {
	// IP is the address that a node listens on and dials from.
	IP(Node) netip.Addr
	// Advertised is the address that the others dial to reach a node. It differs from IP
	// where proxies carry the traffic.
	Advertised(Node) netip.Addr
	// Cut makes these links, and no others, carry nothing.
	Cut([]Link) error
	// Shape treats one link as told, until it is told otherwise.
	Shape(Link, Shape) error
	// Heal ends all cuts and shapes.
	Heal() error
	// Reaches sends from one node to another until something arrives or a time that is
	// ample for an unshaped link has passed. It tells one direction only.
	Reaches(ctx context.Context, from, to Node, proto string) bool
	// Lost counts what each link lost to the present cut: packets, or streams and
	// datagrams of the proxy.
	Lost() (map[Link]uint64, error)
	Caps() Caps
	// Close heals and releases everything.
	Close() error
}

// The drivers.
const (
	Kernel = "kernel"
	Proxy  = "proxy"
)

// Ports are those that every node listens on at its own address: TCP and UDP. Only
// the proxy needs to know them.
type Ports []int

// ErrUnsupported tells that a driver cannot do what was asked for.
var ErrUnsupported = errors.New("this driver cannot do that")

// Open makes a network. An empty driver means the kernel's inside of namespaces and
// the proxy outside.
func Open(ctx context.Context, driver string, nodes []Node, ports Ports) (Fabric, error) {
	if driver == "" {
		driver = Proxy
		if Entered() {
			driver = Kernel
		}
	}
	switch driver {
	case Kernel:
		if !Entered() {
			return nil, fmt.Errorf("open fabric: the driver %s would change the network of this machine: call Enter first", Kernel)
		}
		return openKernel(nodes)
	case Proxy:
		return openProxy(ctx, nodes, ports)
	}
	return nil, fmt.Errorf("open fabric: unknown driver %q: choose %s or %s", driver, Kernel, Proxy)
}

// Between are the links from each of some nodes to each of others.
func Between(from, to []Node) []Link {
	var links []Link
	for _, a := range from {
		for _, b := range to {
			if a != b {
				links = append(links, Link{From: a, To: b})
			}
		}
	}
	return links
}

// Dial connects from an address of this machine to another, such as from a node that
// lives in this process.
func Dial(ctx context.Context, from netip.Addr, network, address string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: localAddr(network, from, 0)}
	return dialer.DialContext(ctx, network, address) //nolint:wrapcheck // as net.Dial
}

func localAddr(network string, ip netip.Addr, port uint16) net.Addr {
	if network == UDP {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, port))
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port))
}

// plan gives the nodes addresses below a prefix of 16 bits.
type plan struct {
	ip   map[Node]netip.Addr
	node map[netip.Addr]Node
}

func newPlan(nodes []Node, first, second byte) (plan, error) {
	const most = 250 * 250
	p := plan{ip: make(map[Node]netip.Addr, len(nodes)), node: make(map[netip.Addr]Node, len(nodes))}
	if len(nodes) > most {
		return p, fmt.Errorf("open fabric: %d nodes are more than the %d that fit", len(nodes), most)
	}
	for i, n := range nodes {
		if _, twice := p.ip[n]; twice || n == "" {
			return p, fmt.Errorf("open fabric: node %q is empty or there twice", n)
		}
		ip := netip.AddrFrom4([4]byte{first, second, byte(i / 250), byte(i%250) + 1})
		p.ip[n], p.node[ip] = ip, n
	}
	return p, nil
}

// lane is a link of one protocol.
type lane struct {
	from, to netip.Addr
	proto    string
}

// lanes are the one or two lanes of a link.
func (p plan) lanes(l Link) ([]lane, error) {
	from, to := p.ip[l.From], p.ip[l.To]
	if !from.IsValid() || !to.IsValid() || from == to {
		return nil, fmt.Errorf("link %s → %s: not two different nodes of this fabric", l.From, l.To)
	}
	switch l.Proto {
	case TCP, UDP:
		return []lane{{from, to, l.Proto}}, nil
	case "":
		return []lane{{from, to, TCP}, {from, to, UDP}}, nil
	}
	return nil, fmt.Errorf("link %s → %s: unknown protocol %q", l.From, l.To, l.Proto)
}

// all are the lanes of many links, each once.
func (p plan) all(links []Link) (map[lane]bool, error) {
	set := make(map[lane]bool, 2*len(links))
	for _, l := range links {
		lanes, err := p.lanes(l)
		if err != nil {
			return nil, err
		}
		for _, one := range lanes {
			set[one] = true
		}
	}
	return set, nil
}

func (p plan) link(l lane) Link { return Link{p.node[l.from], p.node[l.to], l.proto} }

func (s Shape) check() error {
	for _, share := range []float64{s.Loss, s.Duplicate, s.Reorder} {
		if share < 0 || share > 1 {
			return fmt.Errorf("shape: share %v is not between 0 and 1", share)
		}
	}
	if s.Delay < 0 || s.Jitter < 0 || s.Rate < 0 {
		return errors.New("shape: delay, jitter and rate must not be negative")
	}
	return nil
}
