package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// proxy carries everything between nodes. A node lives at its own address, and is
// known to the others by another one, its shadow, where the proxy listens. Who sends
// is told by the address that a connection or datagram comes from.
type proxy struct {
	plan
	shadows plan
	ports   []int
	done    chan struct{}
	wait    sync.WaitGroup
	probes  probes
	late    atomic.Int64 // datagrams that wait

	mu      sync.Mutex // guards the rest
	cut     map[lane]bool
	shapes  map[lane]Shape
	lost    map[lane]uint64
	changed chan struct{} // closed when cut changes
	open    map[io.Closer]bool
	sockets map[netip.AddrPort]*net.UDPConn
	closed  bool
}

// probePort is where every node has something that takes probes.
const probePort = 65530

// openProxy takes the first addresses that no other run on this machine has.
func openProxy(ctx context.Context, nodes []Node, ports Ports) (Fabric, error) {
	const choices, first = 60, 64
	if len(nodes) == 0 {
		return nil, errors.New("open fabric: no nodes")
	}
	var err error
	for _, n := range rand.Perm(choices) {
		var p *proxy
		if p, err = newProxy(nodes, ports, byte(first+n)); err != nil {
			return nil, err
		}
		if err = p.listen(ctx); err == nil {
			return p, nil
		}
		_ = p.Close()
	}
	return nil, fmt.Errorf("open fabric: all addresses that were tried are in use: %w", err)
}

func newProxy(nodes []Node, ports Ports, second byte) (*proxy, error) {
	own, err := newPlan(nodes, 127, second)
	if err != nil {
		return nil, err
	}
	shadows, err := newPlan(nodes, 127, second+128)
	if err != nil {
		return nil, err
	}
	return &proxy{
		plan: own, shadows: shadows, ports: append(slices.Clone(ports), probePort),
		done: make(chan struct{}), changed: make(chan struct{}),
		cut: make(map[lane]bool), shapes: make(map[lane]Shape), lost: make(map[lane]uint64),
		open: make(map[io.Closer]bool), sockets: make(map[netip.AddrPort]*net.UDPConn),
	}, nil
}

func (p *proxy) listen(ctx context.Context) error {
	var config net.ListenConfig
	for n, shadow := range p.shadows.ip {
		for _, port := range p.ports {
			at := netip.AddrPortFrom(shadow, uint16(port))
			listener, err := config.Listen(ctx, TCP, at.String())
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			p.keep(listener)
			p.wait.Go(func() { p.accept(listener, n, port) })
			if _, err := p.socket(at); err != nil {
				return err
			}
		}
		if err := p.takeProbes(ctx, p.ip[n]); err != nil {
			return err
		}
	}
	return nil
}

// keep closes something at the latest with the fabric; it is false, and the thing is
// closed, if that is closed already.
func (p *proxy) keep(c io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.open[c] = true
	return true
}

func (p *proxy) drop(c io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	_ = c.Close()
}

func (p *proxy) IP(n Node) netip.Addr         { return p.ip[n] }
func (p *proxy) Advertised(n Node) netip.Addr { return p.shadows.ip[n] }

func (p *proxy) Caps() Caps {
	return Caps{
		Driver: Proxy, Delay: true,
		Why: "a proxy cannot lose, double or reorder packets nor limit their rate, and its cuts hold streams instead of dropping packets: " +
			"run where fabric.Enter succeeds",
	}
}

func (p *proxy) Cut(links []Link) error {
	lanes, err := p.all(links)
	if err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	p.replace(lanes)
	return nil
}

func (p *proxy) replace(lanes map[lane]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = lanes
	clear(p.lost)
	for l := range lanes {
		p.lost[l] = 0
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *proxy) Lost() (map[Link]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := make(map[Link]uint64, len(p.lost))
	for l, n := range p.lost {
		lost[p.link(l)] = n
	}
	return lost, nil
}

func (p *proxy) Shape(l Link, s Shape) error {
	lanes, err := p.lanes(l)
	if err = errors.Join(err, s.check()); err != nil {
		return err
	}
	if s.Loss != 0 || s.Duplicate != 0 || s.Reorder != 0 || s.Rate != 0 {
		return fmt.Errorf("%w: %s", ErrUnsupported, p.Caps().Why)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range lanes {
		p.shapes[one] = s
	}
	return nil
}

func (p *proxy) Heal() error {
	p.replace(map[lane]bool{})
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.shapes)
	return nil
}

func (p *proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.done)
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wait.Wait()
	return nil
}

// due is when something that is sent now arrives, if nothing is cut.
func (p *proxy) due(l lane) time.Time {
	p.mu.Lock()
	s := p.shapes[l]
	p.mu.Unlock()
	due := time.Now().Add(s.Delay)
	if s.Jitter > 0 {
		due = due.Add(rand.N(s.Jitter))
	}
	return due
}

// isCut also counts what it stops.
func (p *proxy) isCut(l lane) (bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut[l] {
		p.lost[l]++
	}
	return p.cut[l], p.changed
}

// pass waits until a lane is open; it is false if the fabric is closed before.
func (p *proxy) pass(l lane) bool {
	for {
		cut, changed := p.isCut(l)
		if !cut {
			return true
		}
		select {
		case <-changed:
		case <-p.done:
			return false
		}
	}
}

func (p *proxy) sleepUntil(due time.Time) bool {
	d := time.Until(due)
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.done:
		return false
	}
}

// probes are tokens that somebody waits for.
type probes struct {
	mu      sync.Mutex
	awaited map[uint64]chan struct{}
}

func (w *probes) await(token uint64) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.awaited == nil {
		w.awaited = make(map[uint64]chan struct{})
	}
	arrived := make(chan struct{})
	w.awaited[token] = arrived
	return arrived, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.awaited, token)
	}
}

func (w *probes) arrived(data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	token := binary.BigEndian.Uint64(data)
	if c := w.awaited[token]; c != nil {
		close(c)
		delete(w.awaited, token)
	}
}

// takeProbes has a node take probes.
func (p *proxy) takeProbes(ctx context.Context, ip netip.Addr) error {
	var config net.ListenConfig
	at := netip.AddrPortFrom(ip, probePort).String()
	listener, err := config.Listen(ctx, TCP, at)
	if err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	p.keep(listener)
	packets, err := config.ListenPacket(ctx, UDP, at)
	if err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	p.keep(packets)
	p.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if !p.keep(conn) {
				return
			}
			p.wait.Go(func() {
				defer p.drop(conn)
				token := make([]byte, 8)
				if _, err := io.ReadFull(conn, token); err == nil {
					p.probes.arrived(token)
				}
			})
		}
	})
	p.wait.Go(func() {
		token := make([]byte, 8)
		for {
			n, _, err := packets.ReadFrom(token)
			if err != nil {
				return
			}
			if n == len(token) {
				p.probes.arrived(token)
			}
		}
	})
	return nil
}

func (p *proxy) Reaches(ctx context.Context, from, to Node, proto string) bool {
	const patience = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if lanes, err := p.lanes(Link{from, to, proto}); err != nil || len(lanes) != 1 {
		return false
	}
	token := rand.Uint64()
	arrived, forget := p.probes.await(token)
	defer forget()
	conn, err := Dial(ctx, p.ip[from], proto, netip.AddrPortFrom(p.shadows.ip[to], probePort).String())
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, token)); err != nil {
		return false
	}
	select {
	case <-arrived:
		return true
	case <-ctx.Done():
		return false
	}
}
