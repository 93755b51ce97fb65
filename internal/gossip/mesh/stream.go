package mesh

import (
	"net"
	"time"
)

// stream is one end of a pipe.
type stream struct {
	net.Conn
	own, far *Transport
}

// roundTrip returns the far end and how long it takes to get there and back; nil where
// no stream can be opened.
func (n *Network) roundTrip(from *Transport, to string) (*Transport, time.Duration) {
	n.mu.RLock()
	far := n.ports[to]
	if far == nil || n.isCut(from.name, to) || n.isCut(to, from.name) {
		n.mu.RUnlock()
		return nil, 0
	}
	there, back := n.linkBetween(from, far), n.linkBetween(far, from)
	n.mu.RUnlock()
	if there.Loss >= 1 || back.Loss >= 1 {
		return nil, 0
	}
	return far, there.Latency + back.Latency
}

// track returns both ends of a stream, or nil, and closes the pipe, where the link has
// been cut meanwhile.
func (n *Network) track(near, remote net.Conn, from, to *Transport) (a, b *stream) {
	a, b = &stream{near, from, to}, &stream{remote, to, from}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken(a) {
		_, _ = near.Close(), remote.Close()
		return nil, nil
	}
	n.streams[a], n.streams[b] = struct{}{}, struct{}{}
	return a, b
}

// broken tells whether a stream cannot go on. n.mu is held.
func (n *Network) broken(s *stream) bool {
	return n.ports[s.own.name] != s.own || n.ports[s.far.name] != s.far ||
		n.isCut(s.own.name, s.far.name) || n.isCut(s.far.name, s.own.name)
}

// breakStreams closes the streams over links that are cut and of transports that are
// gone.
func (n *Network) breakStreams() {
	var all []*stream
	n.mu.RLock()
	for s := range n.streams {
		if n.broken(s) {
			all = append(all, s)
		}
	}
	n.mu.RUnlock()
	for _, s := range all {
		_ = s.Close()
	}
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	k, err := s.Conn.Read(b)
	s.own.receivedBytes.Add(uint64(k)) //nolint:gosec // not negative
	return k, err                      //nolint:wrapcheck // a transparent wrapper
}

// Write implements net.Conn.
func (s *stream) Write(b []byte) (int, error) {
	k, err := s.Conn.Write(b)
	s.own.sentBytes.Add(uint64(k)) //nolint:gosec // not negative
	return k, err                  //nolint:wrapcheck // a transparent wrapper
}

// Close implements net.Conn.
func (s *stream) Close() error {
	n := s.own.network
	n.mu.Lock()
	delete(n.streams, s)
	n.mu.Unlock()
	return s.Conn.Close() //nolint:wrapcheck // a transparent wrapper
}
