package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/prometheus/client_golang/prometheus"

	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// instance is a session as an instance has it.
type instance struct {
	*mirror
	stream  grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]
	cancel  context.CancelFunc
	welcome *holdfastv1.Welcome
}

func helloOf(id string) *holdfastv1.Hello {
	return &holdfastv1.Hello{Identity: &holdfastv1.Identity{Id: id, Service: "checkout", Incarnation: 1}}
}

// open connects with a hello and reads nothing.
func (n *node) open(ctx context.Context, t *testing.T, hello *holdfastv1.Hello) *instance {
	t.Helper()
	return openOver(ctx, t, n.conn, hello)
}

func openOver(ctx context.Context, tb testing.TB, conn *grpc.ClientConn, hello *holdfastv1.Hello) *instance {
	tb.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	tb.Cleanup(cancel)
	stream, err := holdfastv1.NewSessionServiceClient(conn).Connect(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	i := &instance{stream: stream, cancel: cancel, mirror: &mirror{content: make(map[string]string), stream: asWatch{stream}}}
	if hello != nil {
		if err := stream.Send(&holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) { // the session has ended already; reading it tells why
			tb.Fatal(err)
		}
	}
	return i
}

// connect opens a session and reads the welcome.
func (n *node) connect(t *testing.T, hello *holdfastv1.Hello) *instance {
	t.Helper()
	i := n.open(t.Context(), t, hello)
	resp, err := i.stream.Recv()
	if err != nil || resp.GetWelcome() == nil || resp.GetEpoch() == nil || resp.GetStateTime() == nil {
		t.Fatalf("in place of a welcome: %v, %v", resp, err)
	}
	i.welcome = resp.GetWelcome()
	return i
}

// joined connects, installs what there is and acknowledges it.
func (n *node) joined(t *testing.T, hello *holdfastv1.Hello) *instance {
	t.Helper()
	i := n.connect(t, hello)
	i.follow(t)
	return i
}

// follow installs the next event and acknowledges it.
func (i *instance) follow(t *testing.T) {
	t.Helper()
	if err := i.next(); err != nil {
		t.Fatal(err)
	}
	i.ack(t, &holdfastv1.Ack{})
}

func (i *instance) say(t *testing.T, req *holdfastv1.ConnectRequest) {
	t.Helper()
	if err := i.stream.Send(req); err != nil && !errors.Is(err, io.EOF) { // as above
		t.Fatal(err)
	}
}

// ack tells that the instance obeys what it has.
func (i *instance) ack(t *testing.T, ack *holdfastv1.Ack) {
	t.Helper()
	ack.Epoch, ack.Revision, ack.Root = i.epoch, i.revision, i.root
	i.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: ack}})
}

// ended reads until the stream ends and returns why.
func (i *instance) ended() error {
	for {
		if _, err := i.stream.Recv(); err != nil {
			return err
		}
	}
}

// asWatch reads a session as if it were a watch: the messages begin with the same
// fields.
type asWatch struct {
	grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]
}

func (s asWatch) Recv() (*holdfastv1.WatchResponse, error) {
	resp, err := s.BidiStreamingClient.Recv()
	if err != nil {
		return nil, err
	}
	data, err := proto.Marshal(resp)
	if err != nil {
		return nil, err
	}
	read := &holdfastv1.WatchResponse{}
	if err := proto.Unmarshal(data, read); err != nil {
		return nil, err
	}
	if len(read.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("no message of a watch: %v", resp)
	}
	return read, nil
}

// TestSessionsSpeakLikeWatches pins what lets watches and sessions share bytes.
func TestSessionsSpeakLikeWatches(t *testing.T) {
	watches := (&holdfastv1.WatchResponse{}).ProtoReflect().Descriptor().Fields()
	sessions := (&holdfastv1.ConnectResponse{}).ProtoReflect().Descriptor().Fields()
	for i := range watches.Len() {
		w := watches.Get(i)
		s := sessions.ByNumber(w.Number())
		if s == nil || s.Name() != w.Name() || s.Message() != w.Message() {
			t.Errorf("field %d is %v of a watch and %v of a session", w.Number(), w, s)
		}
	}
}

func TestSessionFollowsAndResumes(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`), flag("b", `1`))
	i := n.connect(t, helloOf("i"))
	if i.welcome.GetServerId() != "n1" || !slices.Equal(i.welcome.GetServers(), []string{n.addr}) {
		t.Errorf("welcome = %v", i.welcome)
	}
	i.until(t, 1)
	if i.last.GetSnapshot() == nil {
		t.Errorf("began with %v", i.last)
	}
	n.put(t, flag("a", `2`), remove("b"))
	i.until(t, 2)
	if i.last.GetDelta() == nil {
		t.Errorf("a change came as %v", i.last)
	}
	i.check(t, n.replica.View())
	if err := i.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := i.ended(); err.Error() != "EOF" {
		t.Errorf("after leaving: %v", err)
	}

	n.put(t, flag("a", `3`))
	hello := helloOf("i")
	hello.Cursor, hello.Root = i.cursor(), i.root
	hello.ProgressInterval = durationpb.New(MinProgressInterval)
	again := n.connect(t, hello)
	again.content = i.content
	again.until(t, 3)
	if again.last.GetDelta().GetFrom() != 2 {
		t.Errorf("after resuming: %v", again.last)
	}
	again.check(t, n.replica.View())
	if err := again.next(); err != nil || again.last.GetProgress().GetRevision() != 3 {
		t.Errorf("progress = %v, %v", again.last, err)
	}
}

// TestSessionHealsWhatDiffers: an instance whose content is another than the server's
// at the same place gets a snapshot.
func TestSessionHealsWhatDiffers(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	i := n.connect(t, helloOf("i"))
	i.until(t, 1)
	wrong := slices.Clone(i.root)
	wrong[0]++
	for name, test := range map[string]struct {
		root     []byte
		snapshot bool
	}{"the same": {i.root, false}, "another": {wrong, true}, "untold": {nil, false}} {
		hello := helloOf("i-" + name)
		hello.Cursor, hello.Root = i.cursor(), test.root
		again := n.connect(t, hello)
		if err := again.next(); err != nil || (again.last.GetSnapshot() != nil) != test.snapshot {
			t.Errorf("with %s root: %v, %v", name, again.last, err)
		}
	}
	// Where the namespace has changed since, the delta tells.
	n.put(t, flag("a", `2`))
	hello := helloOf("late")
	hello.Cursor, hello.Root = i.cursor(), i.root
	if late := n.connect(t, hello); late.next() != nil || late.last.GetDelta() == nil {
		t.Errorf("behind, with the root of then: %v", late.last)
	}
}

func TestSessionRefusals(t *testing.T) {
	n := single(t)
	foreign := n.replica.View().Epoch()
	foreign.Lineage[0]++
	with := func(f func(*holdfastv1.Hello)) *holdfastv1.ConnectRequest {
		h := helloOf("i")
		f(h)
		return &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Hello{Hello: h}}
	}
	labels := make(map[string]string)
	for i := range MaxLabels + 1 {
		labels[fmt.Sprint(i)] = ""
	}
	invalid := map[string]*holdfastv1.ConnectRequest{
		"nothing":      {},
		"an ack":       {Message: &holdfastv1.ConnectRequest_Ack{Ack: &holdfastv1.Ack{}}},
		"no identity":  with(func(h *holdfastv1.Hello) { h.Identity = nil }),
		"no id":        with(func(h *holdfastv1.Hello) { h.Identity.Id = "" }),
		"long id":      with(func(h *holdfastv1.Hello) { h.Identity.Id = strings.Repeat("x", 254) }),
		"odd id":       with(func(h *holdfastv1.Hello) { h.Identity.Id = "a\x1b[2J" }),
		"long service": with(func(h *holdfastv1.Hello) { h.Identity.Service = strings.Repeat("x", 254) }),
		"long host":    with(func(h *holdfastv1.Hello) { h.Identity.Host = strings.Repeat("x", 254) }),
		"odd sdk":      with(func(h *holdfastv1.Hello) { h.Identity.Sdk = "\x07" }),
		"many labels":  with(func(h *holdfastv1.Hello) { h.Identity.Labels = labels }),
		"two services": with(func(h *holdfastv1.Hello) { h.Identity.Labels = map[string]string{"service": "other"} }),
		"namespace":    with(func(h *holdfastv1.Hello) { h.Namespace = "\x00" }),
		"root":         with(func(h *holdfastv1.Hello) { h.Root = []byte{1} }),
		"interval":     with(func(h *holdfastv1.Hello) { h.ProgressInterval = durationpb.New(-1) }),
		"no lineage":   with(func(h *holdfastv1.Hello) { h.Cursor = &holdfastv1.Cursor{Revision: 1} }),
	}
	for name, req := range invalid {
		t.Run(name, func(t *testing.T) {
			i := n.open(t.Context(), t, nil)
			i.say(t, req)
			expect(t, i.ended(), ReasonInvalidRequest)
		})
	}
	other := n.open(t.Context(), t, with(func(h *holdfastv1.Hello) { h.Cursor = &holdfastv1.Cursor{Epoch: foreign.Proto()} }).GetHello())
	expect(t, other.ended(), ReasonForeignLineage)
	twice := n.joined(t, helloOf("twice"))
	twice.say(t, with(func(*holdfastv1.Hello) {}))
	expect(t, twice.ended(), ReasonInvalidRequest)
	// What a newer instance says is passed over.
	newer := n.joined(t, helloOf("newer"))
	newer.say(t, &holdfastv1.ConnectRequest{})
	newer.say(t, &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Evidence{Evidence: &holdfastv1.Evidence{}}})
	n.put(t, flag("a", `1`))
	newer.until(t, 1)
}

func TestSessionMustSayHello(t *testing.T) {
	n := single(t)
	n.sessions.helloTime = time.Millisecond
	expect(t, n.open(t.Context(), t, nil).ended(), ReasonInvalidRequest)
	if MaxHelloTime < 10*n.sessions.helloTime {
		t.Error("no time to say hello")
	}
}

func TestSessionLimit(t *testing.T) {
	n := single(t, func(c *Config) { c.MaxSessions = 2 })
	first := n.joined(t, helloOf("1"))
	n.joined(t, helloOf("2"))
	err := n.open(t.Context(), t, helloOf("3")).ended()
	expect(t, err, ReasonTooManySessions)
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("refused with %v", err)
	}
	if err := n.watch(t.Context(), t, &holdfastv1.WatchRequest{}).next(); err != nil {
		t.Errorf("a watch beside full sessions: %v", err)
	}
	first.cancel()
	eventually(t, "the end of a session", func() bool {
		return n.streams.following(holdfastv1.SessionService_Connect_FullMethodName) == 1
	})
	n.joined(t, helloOf("3"))
}

// TestNewestIncarnationWins: processes with one id do not push each other out in
// turns.
func TestNewestIncarnationWins(t *testing.T) {
	n := single(t)
	hello := func(incarnation uint64) *holdfastv1.Hello {
		h := helloOf("i")
		h.Identity.Incarnation = incarnation
		return h
	}
	old := n.joined(t, hello(1))
	young := n.joined(t, hello(2))
	err := old.ended()
	expect(t, err, ReasonInstanceReplaced)
	if status.Code(err) != codes.AlreadyExists {
		t.Errorf("replaced with %v", err)
	}
	expect(t, n.open(t.Context(), t, hello(1)).ended(), ReasonInstanceReplaced)
	again := n.joined(t, hello(2)) // the same process after a reconnect
	expect(t, young.ended(), ReasonInstanceReplaced)
	n.put(t, flag("a", `1`))
	again.until(t, 1)
	again.cancel()
	eventually(t, "the end of the newer one", func() bool { return len(n.instances(t, true)) == 1 && len(n.instances(t, false)) == 0 })
	n.joined(t, hello(1)) // with nobody else there it is the instance
}

func TestSessionsEndWhenTheServerIsFenced(t *testing.T) {
	n := single(t)
	hello := helloOf("i")
	hello.ProgressInterval = durationpb.New(MaxProgressInterval)
	i := n.joined(t, hello)
	n.replica.set(func(r *fakeReplica) { r.fenced = "it differs at index 7" })
	expect(t, i.ended(), ReasonFenced)
}

func TestSessionsEndSpreadWhenDraining(t *testing.T) {
	const sessions, jitter = 20, 300 * time.Millisecond
	n := single(t, func(c *Config) { c.DrainJitter = jitter })
	ended := make(chan error, sessions)
	for i := range sessions {
		s := n.joined(t, helloOf(fmt.Sprint(i)))
		go func() { ended <- s.ended() }()
	}
	began := time.Now()
	n.Drain(t.Context())
	for range sessions {
		expect(t, <-ended, ReasonDraining)
	}
	if d := time.Since(began); d < jitter/2 {
		t.Errorf("all sessions ended within %s, the window is %s", d, jitter)
	}
}

// TestIdleSessionsCostNobody: sessions that never read, and never acknowledge, do not
// hold up others, and can be told.
func TestIdleSessionsCostNobody(t *testing.T) {
	n := single(t)
	const idle = 8
	for i := range idle {
		conn := dial(t, n.addr, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}), grpc.WithInitialWindowSize(64<<10))
		openOver(t.Context(), t, conn, helloOf(fmt.Sprintf("idle-%d", i)))
	}
	fast := n.joined(t, helloOf("fast"))
	for i := range 30 {
		resp := n.put(t, flag(fmt.Sprintf("flag-%d", i%12), big(300<<10+i)))
		fast.until(t, resp.GetRevision())
	}
	fast.check(t, n.replica.View())
	fast.ack(t, &holdfastv1.Ack{})
	eventually(t, "the idle ones are known to be behind", func() bool {
		all := n.list(t, &holdfastv1.ListInstancesRequest{Behind: 30})
		return all.GetTotal() == idle && all.GetInstances()[0].GetRevision() == 0 && n.sessions.behind() == idle
	})
}

func TestAckIsKeptWithinBounds(t *testing.T) {
	n := single(t)
	i := n.connect(t, helloOf("i"))
	if err := i.next(); err != nil {
		t.Fatal(err)
	}
	ack := &holdfastv1.Ack{OverriddenBy: "HOLDFAST_DISABLE\x1b[2J"}
	for range 2 * MaxProblems {
		ack.Problems = append(ack.Problems, &holdfastv1.InstanceProblem{Message: strings.Repeat("é", MaxProblemBytes)})
	}
	i.ack(t, ack)
	var got *holdfastv1.Instance
	eventually(t, "the acknowledgement", func() bool {
		got = n.instances(t, false)["i"]
		return got.GetEpoch() != nil
	})
	if len(got.GetProblems()) != MaxProblems || got.GetProblemCount() != 2*MaxProblems || got.GetOverriddenBy() != "HOLDFAST_DISABLE [2J" {
		t.Errorf("kept %d of %d problems, overridden by %q", len(got.GetProblems()), got.GetProblemCount(), got.GetOverriddenBy())
	}
	if m := got.GetProblems()[0].GetMessage(); len(m) > MaxProblemBytes || len(m) < MaxProblemBytes-4 || !strings.HasSuffix(m, "é…") {
		t.Errorf("kept a message of %d bytes, %q", len(m), m)
	}
}

func TestSessionMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := single(t, func(c *Config) { c.Registerer = registry })
	i := n.joined(t, helloOf("i"))
	n.put(t, flag("a", `1`))
	i.until(t, 1)
	gathered := func(name string) float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == name {
				m := f.GetMetric()[0]
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		t.Fatalf("there is no %s", name)
		return 0
	}
	eventually(t, "one is behind", func() bool { return gathered("holdfast_api_sessions_behind") == 1 })
	i.ack(t, &holdfastv1.Ack{})
	eventually(t, "nobody is behind", func() bool { return gathered("holdfast_api_sessions_behind") == 0 })
	for name, want := range map[string]float64{
		"holdfast_api_sessions": 1, "holdfast_api_session_acks_total": 2, "holdfast_api_session_ack_seconds": 2,
	} {
		eventually(t, name, func() bool { return gathered(name) == want })
	}
}

// TestPendingAck measures the first and the last of the changes under way.
func TestPendingAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took []float64
		p := &pendingAck{took: prometheus.ObserverFunc(func(v float64) { took = append(took, v) })}
		p.obeyed(1)
		p.sending(2)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		p.sending(3)
		p.obeyed(1)
		p.sending(4)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		p.obeyed(3)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		p.obeyed(4)
		p.obeyed(4)
		if !slices.Equal(took, []float64{2, 2}) {
			t.Errorf("took %v", took)
		}
		// After a restore revisions may be lower, and nobody obeys those of before.
		p.sending(9)
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		p.sending(5)
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		p.obeyed(5)
		if !slices.Equal(took[2:], []float64{1}) {
			t.Errorf("took %v", took)
		}
	})
}

// TestSessionsLeaveNothing: after a thousand sessions, ended in every way, there is
// only the memory of who they were.
func TestSessionsLeaveNothing(t *testing.T) {
	n := single(t)
	n.joined(t, helloOf("i-0")).cancel() // the connection is there
	before := runtime.NumGoroutine()
	var open []*instance
	for i := range 1000 {
		s := n.connect(t, helloOf(fmt.Sprint("i-", i%10)))
		switch i % 3 {
		case 0:
			s.cancel()
		case 1:
			if err := s.stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			_ = s.ended()
		default: // replaced by the next one of its id, or left open
			s.follow(t)
			open = append(open, s)
		}
	}
	for _, s := range open[:len(open)-10] {
		expect(t, s.ended(), ReasonInstanceReplaced)
	}
	for _, s := range open {
		s.cancel()
	}
	eventually(t, "all sessions are over", func() bool {
		return n.streams.following(holdfastv1.SessionService_Connect_FullMethodName) == 0 && n.config.Hub.Watchers() == 0 &&
			len(n.instances(t, false)) == 0 && runtime.NumGoroutine() < before+20
	})
	if got := len(n.instances(t, true)); got != 10 {
		t.Errorf("%d instances are remembered", got)
	}
}

// TestSessionSeesARestore: a later epoch replaces everything.
func TestSessionSeesARestore(t *testing.T) {
	n := single(t)
	n.put(t, flag("a", `1`))
	i := n.joined(t, helloOf("i"))
	n.replica.cluster.commit(t, &storagev1.Command{Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Nonce: 8}}})
	if err := i.next(); err != nil || i.last.GetSnapshot() == nil || i.epoch.GetCounter() != 2 {
		t.Fatalf("after a new epoch = %v, %v", i.last, err)
	}
}

// list asks for instances, all pages of them if the request names none.
func (n *node) list(t *testing.T, req *holdfastv1.ListInstancesRequest) *holdfastv1.ListInstancesResponse {
	t.Helper()
	resp, err := holdfastv1.NewInstanceServiceClient(n.conn).ListInstances(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// instances returns the instances by id.
func (n *node) instances(t *testing.T, gone bool) map[string]*holdfastv1.Instance {
	t.Helper()
	all := make(map[string]*holdfastv1.Instance)
	for _, i := range n.list(t, &holdfastv1.ListInstancesRequest{IncludeDisconnected: gone}).GetInstances() {
		all[i.GetIdentity().GetId()] = i
	}
	return maps.Clone(all)
}
