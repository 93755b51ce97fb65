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
	eventually(t, "the cut follower to stand for election", func() bool { return cut.node.Status().Role == Candidate })
	asked := c.net.refusals(cut.cfg.ID)
	eventually(t, "it to ask for votes several times", func() bool { return c.net.refusals(cut.cfg.ID) >= asked+6 })
	if got := cut.node.Status().Term; got != term {
		t.Errorf("term %d became %d", term, got)
	}
	c.heal()
	cut.waitApplied(c.leader().propose("healed"))
}

// raft refuses every write until the call has returned.
func TestHandoverToASilentMemberEnds(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	must(t, err)
	defer silent.Close()
	from := openTransport(t)
	from.transferIn = 20 * time.Millisecond
	done := make(chan error, 1)
	go func() {
		req := raft.TimeoutNowRequest{RPCHeader: header("x")}
		done <- from.TimeoutNow("y", raft.ServerAddress(silent.Addr().String()), &req, &raft.TimeoutNowResponse{})
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("handed over to nobody")
		}
	case <-time.After(rpcTimeout / 2):
		t.Error("waits for the answer")
	}
}

// A removed member is told so for a moment. After that raft's attempts to reach it
// must not bring it back.
func TestRemovedPeerIsForgotten(t *testing.T) {
	t.Parallel()
	trans := openTransport(t)
	members := raft.Configuration{Servers: []raft.Server{{ID: "y"}}}
	running := func(p *peer) bool {
		select {
		case <-p.quit:
			return false
		default:
			return true
		}
	}
	first := trans.peer("y") // as soon as raft speaks to it, before that is committed
	trans.retain(members)
	trans.linger = time.Hour
	trans.retain(raft.Configuration{})
	if _, known := trans.peerMetrics()["y"]; known || trans.peer("y") != first || !running(first) {
		t.Error("a removed member is counted, or is told nothing any more")
	}
	trans.retain(members)
	trans.linger = 0
	trans.retain(raft.Configuration{})
	if trans.nudge(mark{index: 1}); running(first) {
		t.Error("a removed member is nudged for ever")
	}
	if second := trans.peer("y"); second == first || second == trans.peer("y") {
		t.Error("a removed member is known again")
	}
	trans.retain(members)
	if third := trans.peer("y"); third != trans.peer("y") || !running(third) {
		t.Error("a member that was added again is not known")
	}
}

// Outside of a pipeline too, an answer counts only once this disk has the entries
// that it is about.
func TestPlainAnswersAreHeldBack(t *testing.T) {
	t.Parallel()
	from, to := openTransport(t), openTransport(t)
	asked, release := make(chan uint64), make(chan bool)
	from.written = func(index uint64, _ <-chan struct{}) bool {
		asked <- index
		return <-release
	}
	done := make(chan error, 1)
	send := func(entries ...*raft.Log) {
		go func() {
			rpc := <-to.Consumer()
			rpc.Respond(&raft.AppendEntriesResponse{Success: true, LastLog: 9}, nil)
		}()
		req := raft.AppendEntriesRequest{RPCHeader: header("x"), Term: 1, Entries: entries}
		done <- from.AppendEntries("y", to.LocalAddr(), &req, &raft.AppendEntriesResponse{})
	}
	send() // nothing to wait for
	must(t, <-done)
	for _, written := range []bool{true, false} {
		go send(&raft.Log{Index: 7}, &raft.Log{Index: 8})
		if index := <-asked; index != 8 {
			t.Errorf("waits for entry %d of 7 and 8", index)
		}
		if len(done) > 0 {
			t.Error("the answer was not held back")
		}
		release <- written
		if err := <-done; (err == nil) != written {
			t.Errorf("written %v: %v", written, err)
		}
	}
}

// fakePipeline keeps what it is given.
type fakePipeline struct {
	raft.AppendPipeline
	got *raft.AppendEntriesRequest
}

func (p *fakePipeline) AppendEntries(req *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.got = req
	return nil, nil
}

func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	request := func(sizes ...int) *raft.AppendEntriesRequest {
		req := &raft.AppendEntriesRequest{RPCHeader: header("x")}
		for i, size := range sizes {
			req.Entries = append(req.Entries, &raft.Log{Index: uint64(i + 1), Data: make([]byte, size)})
		}
		return req
	}
	const half = maxAppendBytes / 2
	tests := []struct {
		sizes []int
		want  int
	}{
		{nil, 0},
		{[]int{1, 1, 1}, 3},
		{[]int{half, half}, 2},
		{[]int{half, half, 1}, 2},
		{[]int{maxAppendBytes + 1, 1}, 1}, // never none
	}
	to := openTransport(t)
	go func() {
		for range tests {
			rpc := <-to.Consumer()
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		}
	}()
	from := openTransport(t)
	for _, test := range tests {
		inner := &fakePipeline{}
		p := &pipeline{AppendPipeline: inner, transport: from, id: "y"}
		piped, plain := request(test.sizes...), request(test.sizes...)
		_, err := p.AppendEntries(piped, nil)
		must(t, err)
		must(t, from.AppendEntries("y", to.LocalAddr(), plain, &raft.AppendEntriesResponse{}))
		// raft goes on after the last entry that it finds in its request.
		if len(inner.got.Entries) != test.want || len(piped.Entries) != test.want || len(plain.Entries) != test.want {
			t.Errorf("%v: sends %d and %d entries, want %d", test.sizes, len(piped.Entries), len(plain.Entries), test.want)
		}
	}
}

func TestFollowerCatchesUpWithLargeEntries(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *Config) {
		// Only two are left while one is late, and each write takes its time.
		cfg.Timing.Heartbeat, cfg.Timing.Election, cfg.Timing.Lease = time.Second, time.Second, time.Second
	})
	leader := c.leader()
	late := c.follower(leader)
	c.isolate(late)
	var last uint64
	data := make([]byte, MaxCommand)
	for range 2*maxAppendBytes/MaxCommand + 1 { // three messages
		var err error
		last, _, err = leader.node.Propose(testCtx(t), data)
		must(t, err)
	}
	c.heal()
	late.waitApplied(last)
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

// answers is a pipeline whose follower answers what it is given.
type answers struct {
	raft.AppendPipeline
	consumer chan raft.AppendFuture
	closed   chan struct{}
}

func (a *answers) Consumer() <-chan raft.AppendFuture { return a.consumer }
func (a *answers) Close() error                       { close(a.closed); return nil }

// answer is one of them.
type answer struct {
	raft.AppendFuture
	resp raft.AppendEntriesResponse
}

func (a *answer) Error() error                          { return nil }
func (a *answer) Request() *raft.AppendEntriesRequest   { return &raft.AppendEntriesRequest{} }
func (a *answer) Response() *raft.AppendEntriesResponse { return &a.resp }

// TestPipelineTakesNoAnswerOfAnother: what another server than the one that was asked
// says of its log never reaches raft, which would count it as acknowledged.
func TestPipelineTakesNoAnswerOfAnother(t *testing.T) {
	t.Parallel()
	trans := &transport{peers: make(map[raft.ServerID]*peer), gone: make(map[raft.ServerID]time.Time)}
	inner := &answers{consumer: make(chan raft.AppendFuture), closed: make(chan struct{})}
	p := &pipeline{
		AppendPipeline: inner, transport: trans, id: "b", target: "10.0.0.2:7402",
		answers: make(chan raft.AppendFuture), quit: make(chan struct{}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.forward()
	}()
	of := func(id string) *answer {
		return &answer{resp: raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ID: []byte(id)}, Success: true}}
	}
	own := of("b")
	inner.consumer <- own
	if got := <-p.Consumer(); got != own {
		t.Fatalf("got %v", got)
	}
	inner.consumer <- of("empty")
	select {
	case got := <-p.Consumer():
		t.Fatalf("raft is told of an answer of %s", got.Response().ID)
	case <-done:
	}
	<-inner.closed
	if n := trans.peer("b").metrics().Strangers; n != 1 {
		t.Errorf("%d strangers counted", n)
	}
}
