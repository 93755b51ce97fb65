package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var errCut = errors.New("cut off")

// wire makes the connections to servers, which can be cut.
type wire struct {
	from    net.Addr
	fetched atomic.Int64 // bytes from servers

	mu    sync.Mutex // guards what follows
	cut   bool
	conns map[*wired]bool
}

func (w *wire) dial(ctx context.Context, addr string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: w.from, Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = conn.Close()
		return nil, errCut
	}
	c := &wired{conn, w}
	w.conns[c] = true
	return c, nil
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for c := range w.conns {
			_ = c.Conn.Close()
		}
		clear(w.conns)
	}
}

// wired is a connection that counts what comes.
type wired struct {
	net.Conn
	wire *wire
}

// Read implements net.Conn.
func (c *wired) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wire.fetched.Add(int64(n))
	return n, err //nolint:wrapcheck // a transparent wrapper
}

// Close implements net.Conn.
func (c *wired) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.conns, c)
	c.wire.mu.Unlock()
	return c.Conn.Close() //nolint:wrapcheck // a transparent wrapper
}
