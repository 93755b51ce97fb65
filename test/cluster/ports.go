package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// A server takes the ports base..base+4. The harness holds base+leaseOffset
// itself for as long as the cluster lives, so that another test process, also
// one started while a server of ours is down, picks a different base.
const (
	portsPerServer = 5
	leaseOffset    = 9
	portStride     = 10
	// Below 32768, where Linux begins to hand out ports to outgoing
	// connections: a base that is free now stays free while its server is down.
	lowestPort  = 12000
	highestPort = 32000
)

var errNoPorts = errors.New("no free block of ports between 12000 and 32000")

// PortLease reserves the ports Base to Base+4 of loopback until it is released.
type PortLease struct {
	Base  int
	guard net.Listener
}

// LeasePorts finds a free block of ports.
func LeasePorts() (*PortLease, error) {
	for range 500 {
		base := lowestPort + rand.IntN((highestPort-lowestPort)/portStride)*portStride
		guard, err := net.Listen("tcp", hostPort(base+leaseOffset))
		if err != nil {
			continue
		}
		if portsFree(base) == nil {
			return &PortLease{Base: base, guard: guard}, nil
		}
		_ = guard.Close()
	}
	return nil, errNoPorts
}

// Release gives the ports back.
func (l *PortLease) Release() { _ = l.guard.Close() }

// portsFree tells whether a server could listen on the block, TCP and UDP.
func portsFree(base int) error {
	for port := base; port < base+portsPerServer; port++ {
		tcp, err := net.Listen("tcp", hostPort(port))
		if err != nil {
			return fmt.Errorf("port %d: %w", port, err)
		}
		_ = tcp.Close()
		udp, err := net.ListenPacket("udp", hostPort(port))
		if err != nil {
			return fmt.Errorf("port %d: %w", port, err)
		}
		_ = udp.Close()
	}
	return nil
}

func hostPort(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
