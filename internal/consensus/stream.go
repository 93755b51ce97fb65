package consensus

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// maxAccepted bounds the connections from other members; each costs a buffer
	// of 256 KiB before its first message. More are closed at once.
	maxAccepted = 128
	// handshakeTimeout bounds the TLS handshake of either side, and how long a
	// new connection may be silent.
	handshakeTimeout = 5 * time.Second
)

var errStreamClosed = errors.New("raft listener is closed")

// stream makes the connections between members. It knows every one of them and
// can close them all: raft's transport leaves accepted connections open when it
// is closed, and a call on a connection in use would hold up the shutdown.
type stream struct {
	listener       net.Listener
	advertise      hostPort
	server, client *tls.Config
	dialer         net.Dialer
	refuse         func(addr string) error // from seams; nil in production
	greeting       time.Duration           // until an accepted connection has brought something
	progress       time.Duration           // until a request that has begun goes on
	log            *slog.Logger
	working        context.Context //nolint:containedctx // ends dialling under way when the stream is closed
	stop           context.CancelFunc

	handlers sync.WaitGroup // accepted connections not yet closed by their handler

	mu       sync.Mutex // guards the fields below
	conns    map[*streamConn]struct{}
	accepted int
	closed   bool
}

var _ raft.StreamLayer = (*stream)(nil)

// hostPort is an address as text, so that members can be named by host.
type hostPort string

// Network implements net.Addr.
func (hostPort) Network() string { return "tcp" }

func (a hostPort) String() string { return string(a) }

func listen(cfg Config) (*stream, error) {
	listener, err := net.Listen("tcp", cfg.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("listen for raft: %w", err)
	}
	advertise, err := advertised(cfg.AdvertiseAddr, listener.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &stream{
		listener:  listener,
		advertise: advertise,
		server:    cfg.ServerTLS,
		client:    cfg.ClientTLS,
		refuse:    cfg.seams.refuse,
		greeting:  cmp.Or(cfg.seams.greeting, handshakeTimeout),
		progress:  cmp.Or(cfg.seams.progress, rpcTimeout),
		log:       cfg.Logger,
		conns:     make(map[*streamConn]struct{}),
	}
	s.working, s.stop = context.WithCancel(context.Background())
	if cfg.SourceIP != "" {
		s.dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(cfg.SourceIP)}
	}
	return s, nil
}

// advertised settles the address under which others reach this node.
func advertised(configured string, bound *net.TCPAddr) (hostPort, error) {
	if configured == "" {
		if bound.IP.IsUnspecified() {
			return "", fmt.Errorf("listen for raft: %v is no address that others can dial; set AdvertiseAddr", bound)
		}
		return hostPort(bound.String()), nil
	}
	host, port, err := net.SplitHostPort(configured)
	if err != nil {
		return "", fmt.Errorf("read AdvertiseAddr: %w", err)
	}
	if port == "0" {
		port = strconv.Itoa(bound.Port)
	}
	return hostPort(net.JoinHostPort(host, port)), nil
}

// Addr returns the address that others dial.
func (s *stream) Addr() net.Addr { return s.advertise }

// Accept returns the next connection; the handshake is left to its reader.
func (s *stream) Accept() (net.Conn, error) {
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &streamConn{Conn: raw, raw: raw, stream: s, incoming: true}
		if s.server != nil {
			c.Conn = tls.Server(raw, s.server)
		}
		if err := s.add(c); err != nil {
			s.log.Warn("refused a raft connection", "remote", raw.RemoteAddr().String(), "error", err)
			_ = raw.Close()
			continue
		}
		return c, nil
	}
}

// Dial connects to another member, handshake included.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.working, timeout)
	defer cancel()
	raw, err := s.dialer.DialContext(ctx, "tcp", string(address))
	if err != nil {
		return nil, err
	}
	c := &streamConn{Conn: raw, raw: raw, stream: s, target: string(address)}
	if err := s.add(c); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if s.refuse != nil { // after add: whoever cuts a link drops connections next
		if err := s.refuse(string(address)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if s.client == nil {
		return c, nil
	}
	if err := c.secure(ctx, string(address)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// add registers a connection, unless the stream is closed or full.
func (s *stream) add(c *streamConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStreamClosed
	}
	if c.incoming {
		if s.accepted >= maxAccepted {
			return fmt.Errorf("%d connections are open", s.accepted)
		}
		s.accepted++
		s.handlers.Add(1)
	}
	s.conns[c] = struct{}{}
	return nil
}

func (s *stream) remove(c *streamConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if c.incoming {
		s.accepted--
		s.handlers.Done()
	}
}

// drop closes the connections that match; new ones may be made.
func (s *stream) drop(match func(*streamConn) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if match(c) {
			_ = c.abort()
		}
	}
}

// Close stops listening and closes every connection.
func (s *stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	err := s.listener.Close()
	s.drop(func(*streamConn) bool { return true })
	return err
}

// streamConn is one connection of a stream.
type streamConn struct {
	net.Conn // secured, once it is
	raw      net.Conn
	stream   *stream
	incoming bool
	target   string // of an outgoing connection

	shake    sync.Once
	shakeErr error

	// Of an accepted connection; its handler reads and writes in turn.
	greeted bool // has brought something
	midway  bool // has brought something since the last answer
	bounded bool // has a deadline for reading
}

// secure turns an outgoing connection into TLS.
func (c *streamConn) secure(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	cfg := c.stream.client
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	client := tls.Client(c.Conn, cfg)
	if err := client.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("tls handshake with %s: %w", address, err)
	}
	c.Conn = client
	return nil
}

// Read of an accepted connection does the handshake first, in the goroutine of
// that connection, and takes bounded time where raft sets no deadline; see expect.
func (c *streamConn) Read(p []byte) (int, error) {
	if !c.incoming {
		return c.Conn.Read(p)
	}
	if server, ok := c.Conn.(*tls.Conn); ok {
		c.shake.Do(func() { c.shakeErr = c.handshake(server) })
		if c.shakeErr != nil {
			return 0, c.shakeErr
		}
	}
	if err := c.expect(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.greeted, c.midway = c.greeted || n > 0, c.midway || n > 0
	return n, err
}

func (c *streamConn) handshake(server *tls.Conn) error {
	ctx, cancel := context.WithTimeout(c.stream.working, handshakeTimeout)
	defer cancel()
	if err := server.HandshakeContext(ctx); err != nil {
		c.stream.log.Warn("refused a raft connection", "remote", c.RemoteAddr().String(), "error", err)
		return io.EOF // already reported
	}
	return nil
}

// expect sets how long to wait for the next bytes of a peer. Between requests
// there is no limit. But whoever connects has something to say, and must not hold
// a place by silence. And whoever has begun a request must go on: raft's main
// goroutine itself reads a snapshot, and could do nothing else, not even vote,
// until a connection to a host that is gone breaks by itself, minutes later.
func (c *streamConn) expect() error {
	switch {
	case !c.greeted:
		c.bounded = true
		return c.SetReadDeadline(time.Now().Add(c.stream.greeting))
	case c.midway:
		c.bounded = true
		return c.SetReadDeadline(time.Now().Add(c.stream.progress))
	case c.bounded:
		c.bounded = false
		return c.SetReadDeadline(time.Time{})
	}
	return nil
}

// Write of an accepted connection sends an answer, in bounded time.
func (c *streamConn) Write(p []byte) (int, error) {
	if c.incoming {
		c.midway = false
		if err := c.SetWriteDeadline(time.Now().Add(rpcTimeout)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// abort closes the connection under its user, without TLS's farewell, which
// would wait for a writer.
func (c *streamConn) abort() error { return c.raw.Close() }

// Close closes and forgets the connection.
func (c *streamConn) Close() error {
	defer c.stream.remove(c)
	return c.Conn.Close()
}
