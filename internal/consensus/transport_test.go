package consensus

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func openTransport(t *testing.T) *transport {
	t.Helper()
	cfg, err := Config{ID: "x", DataDir: "x", BindAddr: "127.0.0.1:0", Logger: testLogger(t, "x")}.withDefaults()
	must(t, err)
	s, err := listen(cfg)
	must(t, err)
	trans := newTransport(cfg, s)
	t.Cleanup(func() {
		_ = trans.cut()
		trans.wait()
	})
	return trans
}

// A heartbeat must arrive where raft's main goroutine takes its messages.
func TestHeartbeatsTakeNoShortcut(t *testing.T) {
	t.Parallel()
	from, to := openTransport(t), openTransport(t)
	to.SetHeartbeatHandler(func(raft.RPC) { t.Error("heartbeat was handled on the connection's goroutine") })
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		select {
		case rpc := <-to.Consumer():
			rpc.Respond(&raft.AppendEntriesResponse{Success: true, LastLog: 42}, nil)
		case <-time.After(10 * time.Second):
			t.Error("heartbeat did not arrive")
		}
	}()
	heartbeat := raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("x"), Addr: []byte("x:1")}, Term: 1,
	}
	var resp raft.AppendEntriesResponse
	must(t, from.AppendEntries("y", to.LocalAddr(), &heartbeat, &resp))
	<-answered
	if last, _ := from.lastLog("y"); last != 42 {
		t.Errorf("remembered last index %d", last)
	}
}

func TestSilentTransportSendsNothing(t *testing.T) {
	t.Parallel()
	trans := openTransport(t)
	refused := func(when string) {
		t.Helper()
		var calls []error
		calls = append(calls, trans.AppendEntries("y", "127.0.0.1:1", &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}))
		_, err := trans.AppendEntriesPipeline("y", "127.0.0.1:1")
		calls = append(calls, err,
			trans.RequestVote("y", "127.0.0.1:1", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}),
			trans.RequestPreVote("y", "127.0.0.1:1", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{}),
			trans.InstallSnapshot("y", "127.0.0.1:1", &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{}, nil),
			trans.TimeoutNow("y", "127.0.0.1:1", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}))
		for i, err := range calls {
			if !errors.Is(err, errSilent) {
				t.Errorf("%s: call %d: %v", when, i, err)
			}
		}
	}
	trans.silence(true)
	trans.silence(true)
	trans.silence(false)
	refused("one of two hanging writes came back")
	trans.silence(false)
	if trans.silent() {
		t.Error("silent though nothing hangs")
	}
	trans.poison()
	refused("poisoned")
}

// A follower that is cut off must not raise its term, with which it would depose
// the leader when it comes back: pre-vote, if the wrapper does not hide it.
func TestCutFollowerKeepsItsTerm(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	cut := c.follower(leader)
	cut.waitApplied(leader.propose("before"))
	c.isolate(cut)
	term := cut.node.Status().Term
	eventually(t, "the cut follower to ask for votes", func() bool { return cut.node.Status().Role == Candidate })
	<-time.After(3 * cut.cfg.Timing.Election) // it asks several times
	if got := cut.node.Status().Term; got != term {
		t.Errorf("term %d became %d", term, got)
	}
	c.heal()
	cut.waitApplied(c.leader().propose("healed"))
}

func TestAdvertisedAddress(t *testing.T) {
	t.Parallel()
	tests := []struct{ bind, advertise, want string }{
		{"127.0.0.1:0", "", ""},
		{"127.0.0.1:0", "raft.example:7402", "raft.example:7402"},
		{"0.0.0.0:0", "", "error"},
		{"0.0.0.0:0", "10.0.0.1:7402", "10.0.0.1:7402"},
		{"127.0.0.1:0", "no port", "error"},
	}
	for _, test := range tests {
		cfg := Config{BindAddr: test.bind, AdvertiseAddr: test.advertise}
		s, err := listen(cfg)
		if err != nil {
			if test.want != "error" {
				t.Errorf("%+v: %v", test, err)
			}
			continue
		}
		want := test.want
		if want == "" {
			want = s.listener.Addr().String()
		}
		if got := s.Addr().String(); got != want {
			t.Errorf("%+v: advertises %s", test, got)
		}
		must(t, s.Close())
	}
}

func TestOutgoingConnectionsComeFromSourceIP(t *testing.T) {
	t.Parallel()
	listener, err := listen(Config{BindAddr: "127.0.0.1:0"})
	must(t, err)
	defer listener.Close()
	s, err := listen(Config{BindAddr: "127.0.0.1:0", SourceIP: "127.0.0.9"})
	must(t, err)
	defer s.Close()
	conn, err := s.Dial(raft.ServerAddress(listener.Addr().String()), time.Second)
	must(t, err)
	defer conn.Close()
	accepted, err := listener.Accept()
	must(t, err)
	defer accepted.Close()
	if host := accepted.RemoteAddr().String(); host[:len("127.0.0.9:")] != "127.0.0.9:" {
		t.Errorf("connection came from %s", host)
	}
}

func TestCloseEndsADialUnderWay(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never shakes hands
	must(t, err)
	defer mute.Close()
	s, err := listen(Config{BindAddr: "127.0.0.1:0", ClientTLS: testTLS(t).client("server")})
	must(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := s.Dial(raft.ServerAddress(mute.Addr().String()), time.Minute)
		done <- err
	}()
	eventually(t, "the connection", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 1
	})
	must(t, s.Close())
	select {
	case err := <-done:
		if err == nil {
			t.Error("connected")
		}
	case <-time.After(2 * time.Second):
		t.Error("still dialling")
	}
}
