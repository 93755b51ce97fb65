package demo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"

	"github.com/holdfast-dev/holdfast/examples/shop/internal/service"
)

// The demo's ports, from its base on: three servers with five each, ten apart; the
// instances of the services; and the demo itself, which listens there as long as
// it runs and so keeps others from its base.
const (
	servers         = 3
	serverStride    = 10
	portsPerServer  = 5
	instancesOffset = 30
	perService      = 2
	controlOffset   = 49

	// DefaultBase is the one of `make demo`.
	DefaultBase = 7400
)

// Bases that are drawn lie below 32768, where systems begin to give ports to
// outgoing connections.
const (
	lowestBase  = 12000
	highestBase = 32000
	baseStride  = 50
	drawBases   = 200
)

// ports is a block of ports. control is the listener that reserves it.
type ports struct {
	base    int
	control net.Listener
}

// takePorts reserves the block at a base; at any that is free if base is 0.
func takePorts(base int) (*ports, error) {
	if base != 0 {
		return reserve(base)
	}
	for range drawBases {
		p, err := reserve(lowestBase + rand.IntN((highestBase-lowestBase)/baseStride)*baseStride)
		if err == nil {
			return p, nil
		}
	}
	return nil, errors.New("found no block of 50 free ports between 12000 and 32000")
}

func reserve(base int) (*ports, error) {
	p := &ports{base: base}
	var err error
	if p.control, err = net.Listen("tcp", address(base+controlOffset)); err != nil {
		return nil, inUse(base+controlOffset, err)
	}
	for _, port := range p.all() {
		if err := free(port); err != nil {
			_ = p.control.Close()
			return nil, inUse(port, err)
		}
	}
	return p, nil
}

func inUse(port int, err error) error {
	return fmt.Errorf("port %d cannot be used: %w; end what uses it (`make cluster`, another demo?) or choose others with --port-base", port, err)
}

// all lists the ports but the one that is held.
func (p *ports) all() []int {
	var list []int
	for i := range servers {
		for n := range portsPerServer {
			list = append(list, p.server(i)+n)
		}
	}
	for n := range len(service.Names()) * perService {
		list = append(list, p.base+instancesOffset+n)
	}
	return list
}

// server is the base of a server's ports: API, HTTP, Raft, gossip, flags.
func (p *ports) server(i int) int { return p.base + i*serverStride }

// instance is the port of an instance of the service with a number.
func (p *ports) instance(service, i int) int {
	return p.base + instancesOffset + service*perService + i
}

func free(port int) error {
	tcp, err := net.Listen("tcp", address(port))
	if err != nil {
		return err
	}
	_ = tcp.Close()
	udp, err := net.ListenPacket("udp", address(port))
	if err != nil {
		return err
	}
	return udp.Close()
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
