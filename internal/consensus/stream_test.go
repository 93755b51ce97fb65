package consensus

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// dialRaw connects to a node as anybody could.
func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn
}

// expectClosed waits until the other side closes the connection.
func expectClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	var timeout net.Error
	if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the connection stays open")
	}
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	ca := testTLS(t)
	for name, secure := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "a", &links{}, func(cfg *Config) {
				cfg.seams.greeting = 100 * time.Millisecond
				if secure {
					cfg.ServerTLS, cfg.ClientTLS = ca.server("server"), ca.client("server")
				}
			})
			s.mustOpen()
			if secure { // what comes before the handshake has its own limit
				conn, err := s.node.trans.stream.Dial(raft.ServerAddress(s.node.Addr()), time.Second)
				must(t, err)
				defer conn.Close()
				must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
				expectClosed(t, conn)
				return
			}
			expectClosed(t, dialRaw(t, s.node.Addr()))
		})
	}
}

// Between requests a connection may be idle for as long as it likes.
func TestIdleConnectionsStay(t *testing.T) {
	t.Parallel()
	s := newSite(t, "a", &links{}, func(cfg *Config) {
		cfg.seams.greeting, cfg.seams.progress = 50*time.Millisecond, 50*time.Millisecond
	})
	s.mustOpen()
	from := openTransport(t)
	ask := func() {
		t.Helper()
		var resp raft.RequestPreVoteResponse
		must(t, from.RequestPreVote("a", raft.ServerAddress(s.node.Addr()), &raft.RequestPreVoteRequest{RPCHeader: header("x")}, &resp))
	}
	ask()
	<-time.After(200 * time.Millisecond) // idle
	ask()                                // fails if the pooled connection was closed
}

// raft reads a snapshot on its main goroutine, without a deadline. A leader that
// is gone in the middle of one must not keep the follower from everything else.
func TestStalledSnapshotFreesTheFollower(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) { cfg.seams.progress = 200 * time.Millisecond })
	leader := c.leader()
	follower := c.follower(leader)
	follower.waitApplied(leader.propose("before"))
	from := openTransport(t)
	stalled, end := io.Pipe() // never brings anything
	defer end.Close()
	begun := make(chan struct{})
	ended := make(chan struct{})
	status := leader.node.Status()
	sender := header(leader.cfg.ID)
	sender.Addr = []byte(leader.node.Addr())
	go func() {
		defer close(ended)
		req := raft.InstallSnapshotRequest{
			RPCHeader: sender, SnapshotVersion: raft.SnapshotVersionMax, Term: status.Term,
			LastLogIndex: status.LastIndex + 1000, LastLogTerm: status.Term, Size: 1 << 20,
			Configuration: raft.EncodeConfiguration(leader.node.configuration()), ConfigurationIndex: 1,
		}
		source := io.MultiReader(&filler{left: 600 << 10, half: begun}, stalled)
		_ = from.InstallSnapshot("f", raft.ServerAddress(follower.node.Addr()), &req, &raft.InstallSnapshotResponse{}, source)
	}()
	<-begun
	eventually(t, "the follower to give the snapshot up", func() bool {
		return follower.node.Metrics().SnapshotFailures > 0
	})
	follower.waitApplied(leader.propose("after"))
	must(t, end.Close())
	<-ended
}

// filler brings so many zeros, and tells when half of them are gone.
type filler struct {
	left int
	half chan struct{}
	told bool
}

func (f *filler) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), f.left)
	clear(p[:n])
	f.left -= n
	if !f.told && f.left < 300<<10 {
		f.told = true
		close(f.half)
	}
	return n, nil
}

// Whatever a stranger says: it is told nothing, and nothing happens.
func TestGarbageIsNotHeard(t *testing.T) {
	t.Parallel()
	s := newCluster(t, 1, func(cfg *Config) {
		cfg.seams.greeting, cfg.seams.progress = 200*time.Millisecond, 200*time.Millisecond
	}).leader()
	s.propose("before")
	term := s.node.Status().Term
	for name, says := range map[string]string{
		"another protocol":     "GET / HTTP/1.1\r\n\r\n",
		"unknown kind":         "\xff\xff\xff\xff",
		"half a request":       "\x00\x8a\xa4Term",
		"4 GiB of entry":       "\x00\x81\xa6Leader\xc6\xff\xff\xff\xff" + "x",
		"4 billion entries":    "\x00\x81\xa7Entries\xdd\xff\xff\xff\xff" + "\x80",
		"a snapshot of nobody": "\x02\x80",
		"a leader of version 0": "\x00\x82\xa4Term\xcf\x00\x00\x00\x00\x00\x01\x00\x00" +
			"\xacPrevLogEntry\x01",
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialRaw(t, s.node.Addr())
			_, err := io.WriteString(conn, says)
			must(t, err)
			must(t, conn.(*net.TCPConn).CloseWrite())
			expectClosed(t, conn)
		})
	}
	s.propose("after")
	if got := s.node.Status().Term; got != term {
		t.Errorf("term %d became %d", term, got)
	}
}
