package gossip

import (
	"context"
	"fmt"
	"log"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// bindAttempts is how often a free port is asked for: the same number must be
// free for TCP and for UDP.
const bindAttempts = 10

// listConfig translates the configuration for the library.
func (p *Pool) listConfig() (*memberlist.Config, error) {
	config := memberlist.DefaultLANConfig()
	config.Name = p.name
	config.Label = p.config.Label
	config.TCPTimeout = streamTimeout
	config.UDPBufferSize = packetSize
	// Compression allocates some 80 KiB a packet and gains nothing on messages
	// this small.
	config.EnableCompression = false
	config.Logger = newLogAdapter(p.log)
	config.Delegate, config.Events, config.Alive = delegate{p}, delegate{p}, delegate{p}
	if len(p.config.Keys) > 0 {
		keyring, err := memberlist.NewKeyring(p.config.Keys, p.config.Keys[0])
		if err != nil {
			return nil, fmt.Errorf("use gossip keys: %w", err)
		}
		config.Keyring = keyring
	}
	if err := p.listen(config); err != nil {
		return nil, err
	}
	return config, nil
}

// listen sets the transport and the addresses.
func (p *Pool) listen(config *memberlist.Config) error {
	if p.config.Transport != nil {
		config.Transport = p.config.Transport
		config.AdvertiseAddr, config.AdvertisePort = "", 0
		return nil
	}
	ip, port, err := resolveBind(p.config.BindAddr)
	if err != nil {
		return fmt.Errorf("gossip address %q: %w", p.config.BindAddr, err)
	}
	t, err := newBoundTransport(ip, port, p.config.SourceIP, config.Logger)
	if err != nil {
		return err
	}
	config.Transport = t
	config.BindAddr, config.BindPort = ip, t.GetAutoBindPort()
	config.AdvertiseAddr, config.AdvertisePort = "", config.BindPort
	if p.config.AdvertiseAddr == "" {
		return nil
	}
	addr := p.config.AdvertiseAddr
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, strconv.Itoa(config.BindPort))
	}
	ip, port, err = resolveBind(addr)
	if err != nil {
		_ = t.Shutdown()
		return fmt.Errorf("gossip advertise address %q: %w", addr, err)
	}
	if port == 0 {
		port = config.BindPort
	}
	config.AdvertiseAddr, config.AdvertisePort = ip, port
	return nil
}

// resolveBind resolves the host: the library binds to every interface when it
// is given something that is not an IP.
func resolveBind(addr string) (ip string, port int, err error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return "", 0, err //nolint:wrapcheck // the callers name the address
	}
	if tcp.IP == nil {
		return "0.0.0.0", tcp.Port, nil
	}
	return tcp.IP.String(), tcp.Port, nil
}

// boundTransport is the library's transport whose streams leave from a given
// address and end when it is shut down: the library would leave them to their
// timeouts.
type boundTransport struct {
	*memberlist.NetTransport
	source net.Addr

	ctx    context.Context //nolint:containedctx // the life of the transport; the interface has no contexts
	cancel context.CancelFunc

	mu    sync.Mutex // guards conns
	conns map[*trackedConn]struct{}

	accepted chan net.Conn
	down     chan struct{} // closed when the listeners have ended
	pump     sync.WaitGroup
	once     sync.Once
}

var _ memberlist.NodeAwareTransport = (*boundTransport)(nil)

func newBoundTransport(ip string, port int, sourceIP string, logger *log.Logger) (*boundTransport, error) {
	t := &boundTransport{conns: make(map[*trackedConn]struct{}), accepted: make(chan net.Conn), down: make(chan struct{})}
	if sourceIP != "" {
		source := net.ParseIP(sourceIP)
		if source == nil {
			return nil, fmt.Errorf("source IP %q is not an IP address", sourceIP)
		}
		t.source = &net.TCPAddr{IP: source}
	}
	attempts := 1
	if port == 0 {
		attempts = bindAttempts
	}
	var err error
	for range attempts {
		t.NetTransport, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{ip}, BindPort: port, Logger: logger,
		})
		if err == nil {
			t.ctx, t.cancel = context.WithCancel(context.Background())
			t.pump.Go(t.accept)
			return t, nil
		}
	}
	return nil, fmt.Errorf("bind gossip to %s: %w", net.JoinHostPort(ip, strconv.Itoa(port)), err)
}

// DialTimeout implements memberlist.Transport.
func (t *boundTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout, LocalAddr: t.source}
	conn, err := dialer.DialContext(t.ctx, "tcp", addr)
	if err != nil {
		return nil, err //nolint:wrapcheck // the library inspects *net.OpError
	}
	tracked := t.track(conn)
	if tracked == nil {
		return nil, net.ErrClosed
	}
	return tracked, nil
}

// track returns nil, and closes the connection, once the transport is shut down.
func (t *boundTransport) track(conn net.Conn) *trackedConn {
	tracked := &trackedConn{Conn: conn, owner: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		_ = conn.Close()
		return nil
	}
	t.conns[tracked] = struct{}{}
	return tracked
}

// accept passes accepted streams on. It goes on taking them until the listeners
// have ended, which would otherwise wait for somebody to take the last one.
func (t *boundTransport) accept() {
	for {
		select {
		case <-t.down:
			return
		case conn := <-t.NetTransport.StreamCh():
			tracked := t.track(conn)
			if tracked == nil {
				continue
			}
			select {
			case t.accepted <- tracked:
			case <-t.ctx.Done():
				_ = tracked.Close()
			}
		}
	}
}

// StreamCh implements memberlist.Transport.
func (t *boundTransport) StreamCh() <-chan net.Conn { return t.accepted }

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *boundTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown implements memberlist.Transport.
func (t *boundTransport) Shutdown() error {
	t.once.Do(func() {
		t.cancel()
		t.mu.Lock()
		open := t.conns
		t.conns = make(map[*trackedConn]struct{})
		t.mu.Unlock()
		for conn := range open {
			_ = conn.Conn.Close()
		}
		_ = t.NetTransport.Shutdown() // always nil
		close(t.down)
		t.pump.Wait()
	})
	return nil
}

// trackedConn forgets itself when it is closed.
type trackedConn struct {
	net.Conn
	owner *boundTransport
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	return c.Conn.Close() //nolint:wrapcheck // a transparent wrapper
}
