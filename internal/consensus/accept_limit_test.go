package consensus

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestAcceptedConnectionsAreBounded opens one connection too many: it is closed
// at once, and room that is left is used again.
func TestAcceptedConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s, err := listen(Config{BindAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	accepted := make(chan net.Conn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := s.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	open := func() net.Conn {
		conn, err := net.Dial("tcp", s.Addr().String())
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() }) // the other side may have closed it
		return conn
	}
	var first net.Conn
	for i := range maxAccepted {
		open()
		if conn := <-accepted; i == 0 {
			first = conn
		} else {
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
	refused := open()
	must(t, refused.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one connection too many: %v", err)
	}
	must(t, first.Close())
	open()
	must(t, (<-accepted).Close())
	must(t, s.Close())
	<-done
}
