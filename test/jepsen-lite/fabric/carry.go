package fabric

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// accept carries the connections to one port of a node.
func (p *proxy) accept(listener net.Listener, to Node, port int) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(conn) {
			return
		}
		p.wait.Go(func() { p.stream(conn.(*net.TCPConn), to, port) })
	}
}

// stream carries one connection. What a cut stops is kept and goes on when that is
// healed: bytes of a stream cannot get lost. The end of a stream is held as its bytes
// are, so that nobody learns through a cut that the other is gone.
func (p *proxy) stream(in *net.TCPConn, to Node, port int) {
	defer p.drop(in)
	source := in.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	there := lane{source, p.ip[to], TCP}
	if !p.pass(there) {
		return
	}
	var dialer net.Dialer
	if _, isNode := p.node[source]; isNode {
		dialer.LocalAddr = localAddr(TCP, source, 0)
	}
	conn, err := dialer.Dial(TCP, netip.AddrPortFrom(p.ip[to], uint16(port)).String())
	if err != nil {
		_ = in.SetLinger(0) // refused there is reset here
		return
	}
	out := conn.(*net.TCPConn)
	if !p.keep(out) {
		return
	}
	defer p.drop(out)
	back := make(chan struct{})
	p.wait.Go(func() {
		defer close(back)
		p.pump(out, in, lane{there.to, there.from, TCP})
	})
	p.pump(in, out, there)
	<-back
}

type chunk struct {
	data []byte
	due  time.Time
}

// pump carries one direction of a connection, until it ends.
func (p *proxy) pump(from, to *net.TCPConn, l lane) {
	// So much can be under way on a slow lane.
	const chunks, size = 64, 32 << 10
	way := make(chan chunk, chunks)
	read := make(chan struct{})
	stop := make(chan struct{})
	p.wait.Go(func() {
		defer close(read)
		defer close(way)
		for {
			data := make([]byte, size)
			n, err := from.Read(data)
			if n > 0 {
				select {
				case way <- chunk{data[:n], p.due(l)}:
				case <-stop:
					return
				case <-p.done:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range way {
		if !p.sleepUntil(c.due) || !p.pass(l) {
			break
		}
		if _, err := to.Write(c.data); err != nil {
			_ = from.CloseRead()
			break
		}
	}
	close(stop)
	if p.pass(l) {
		_ = to.CloseWrite()
	}
	<-read
}

// socket is the one that sends for an address of a node, and takes what is sent to
// it. It has the address's port on the node's shadow.
func (p *proxy) socket(at netip.AddrPort) (*net.UDPConn, error) {
	const most = 4096
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sockets[at]; s != nil {
		return s, nil
	}
	if p.closed || len(p.sockets) == most {
		return nil, fmt.Errorf("listen at %s: closed, or %d sockets are in use", at, most)
	}
	s, err := net.ListenUDP(UDP, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	p.sockets[at], p.open[s] = s, true
	p.wait.Go(func() { p.datagrams(s, at) })
	return s, nil
}

// mostLate datagrams are under way on slow lanes; more are lost.
const mostLate = 10_000

// datagrams carries what is sent to a shadow. What a cut stops is lost, and so is what
// comes from nobody here. On lanes with jitter, datagrams overtake one another.
func (p *proxy) datagrams(in *net.UDPConn, at netip.AddrPort) {
	to := p.ip[p.shadows.node[at.Addr()]]
	buffer := make([]byte, 1<<16)
	for {
		n, source, err := in.ReadFromUDPAddrPort(buffer)
		if err != nil {
			select {
			case <-p.done:
				return
			default:
				continue // an answer to an earlier datagram: nobody was there
			}
		}
		sender := p.node[source.Addr().Unmap()]
		l := lane{p.ip[sender], to, UDP}
		if sender == "" {
			continue
		}
		if cut, _ := p.isCut(l); cut {
			continue
		}
		out, err := p.socket(netip.AddrPortFrom(p.shadows.ip[sender], source.Port()))
		if err != nil {
			continue // lost
		}
		send := func(data []byte) { _, _ = out.WriteToUDPAddrPort(data, netip.AddrPortFrom(to, at.Port())) }
		due := p.due(l)
		if time.Until(due) <= 0 {
			send(buffer[:n])
			continue
		}
		if p.late.Add(1) > mostLate {
			p.late.Add(-1)
			continue
		}
		late := append([]byte(nil), buffer[:n]...)
		p.wait.Go(func() {
			defer p.late.Add(-1)
			if p.sleepUntil(due) {
				send(late)
			}
		})
	}
}
