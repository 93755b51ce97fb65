package session

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func epochOf(counter uint64) document.Epoch {
	return document.Epoch{Lineage: [16]byte{1}, Counter: counter, Nonce: 1000 + counter}
}

// truth is a namespace with all of its history, in one epoch.
type truth struct {
	mu      sync.Mutex
	epoch   document.Epoch
	history []map[document.Key]*document.Resource // by revision
	changed chan struct{}                         // closed by the next change
	ahead   time.Duration                         // of state time to the wall clock
}

func newTruth() *truth {
	return &truth{epoch: epochOf(1), history: []map[document.Key]*document.Resource{{}}, changed: make(chan struct{})}
}

// put commits a flag; an empty spec removes it, an empty name changes nothing here.
func (w *truth) put(name, spec string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := maps.Clone(w.history[len(w.history)-1])
	k := document.Key{Kind: document.Flag, Name: name}
	revision := uint64(len(w.history))
	switch {
	case name == "":
	case spec == "":
		delete(next, k)
	default:
		next[k] = &document.Resource{Key: k, Spec: []byte(spec), CreateRevision: revision, ModRevision: revision, Version: 1}
	}
	w.history = append(w.history, next)
	w.wake()
}

// become makes the history another one.
func (w *truth) become(epoch document.Epoch, revisions int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch, w.history = epoch, w.history[:revisions+1]
	w.wake()
}

func (w *truth) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *truth) now() (at mirror.Position, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return mirror.Position{Epoch: w.epoch, Revision: uint64(len(w.history) - 1)}, w.changed
}

func rootOf(content map[document.Key]*document.Resource) document.Root {
	return document.Build(func(yield func(document.Key, [32]byte) bool) {
		for k, r := range content {
			if !yield(k, r.Hash()) {
				return
			}
		}
	}).Root()
}

func (w *truth) content(revision uint64) map[document.Key]*document.Resource {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.history[revision]
}

func (w *truth) message() *holdfastv1.ConnectResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &holdfastv1.ConnectResponse{Epoch: w.epoch.Proto(), StateTime: timestamppb.New(time.Now().Add(w.ahead))}
}

// snapshot returns the messages of a snapshot, a resource in each.
func (w *truth) snapshot(revision uint64) []*holdfastv1.ConnectResponse {
	content := w.content(revision)
	root := rootOf(content)
	chunk := func(n int, last bool) *holdfastv1.Snapshot {
		return &holdfastv1.Snapshot{Revision: revision, Root: root[:], Chunk: uint32(n), Last: last}
	}
	var all []*holdfastv1.ConnectResponse
	for _, k := range slices.SortedFunc(maps.Keys(content), document.Key.Compare) {
		m, s := w.message(), chunk(len(all), false)
		s.Resources = []*holdfastv1.Resource{content[k].Proto("")}
		m.Event = &holdfastv1.ConnectResponse_Snapshot{Snapshot: s}
		all = append(all, m)
	}
	m := w.message()
	m.Event = &holdfastv1.ConnectResponse_Snapshot{Snapshot: chunk(len(all), true)}
	return append(all, m)
}

// delta returns a delta, or progress where nothing differs.
func (w *truth) delta(from, to uint64) *holdfastv1.ConnectResponse {
	was, is := w.content(from), w.content(to)
	root := rootOf(is)
	m := w.message()
	if root == rootOf(was) {
		m.Event = &holdfastv1.ConnectResponse_Progress{Progress: &holdfastv1.Progress{Revision: to, Root: root[:]}}
		return m
	}
	d := &holdfastv1.Delta{From: from, To: to, Root: root[:], Last: true}
	for k, r := range is {
		if was[k] == nil || was[k].ModRevision != r.ModRevision {
			d.Puts = append(d.Puts, r.Proto(""))
		}
	}
	for k := range was {
		if is[k] == nil {
			d.Deletes = append(d.Deletes, document.Tombstone{Key: k, Revision: to}.Proto(""))
		}
	}
	m.Event = &holdfastv1.ConnectResponse_Delta{Delta: d}
	return m
}

// server is a server of a test: what it does right comes from a truth, what it does
// wrong from its hooks, which are set before it is used.
type server struct {
	holdfastv1.UnimplementedSessionServiceServer
	holdfastv1.UnimplementedStateServiceServer
	id    string
	truth *truth
	grpc  *grpc.Server

	refuse func() error                                // instead of an answer to a hello
	mangle func(m *holdfastv1.ConnectResponse)         // before it is sent
	mute   func() bool                                 // sends nothing, but the welcome
	told   func(*holdfastv1.Hello) *holdfastv1.Welcome // instead of an ordinary welcome
	ends   bool                                        // a stream when the instance has said that nothing follows

	mu      sync.Mutex
	hellos  []*holdfastv1.Hello
	watches []*holdfastv1.WatchRequest
	acks    []*holdfastv1.Ack
	others  []*holdfastv1.ConnectRequest // that are neither hellos nor acks
	times   []time.Time                  // of the hellos
}

func (s *server) Connect(stream grpc.BidiStreamingServer[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	s.mu.Lock()
	s.hellos, s.times = append(s.hellos, hello), append(s.times, time.Now())
	s.mu.Unlock()
	if s.refuse != nil {
		if err := s.refuse(); err != nil {
			return err
		}
	}
	ctx, leave := context.WithCancel(stream.Context())
	defer leave()
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				if s.ends {
					leave()
				}
				return
			}
			s.mu.Lock()
			if m.GetAck() != nil {
				s.acks = append(s.acks, m.GetAck())
			} else {
				s.others = append(s.others, m)
			}
			s.mu.Unlock()
		}
	}()
	welcome := &holdfastv1.Welcome{ServerId: s.id}
	if s.told != nil {
		welcome = s.told(hello)
	}
	if err := stream.Send(&holdfastv1.ConnectResponse{
		Epoch: s.truth.message().Epoch, Event: &holdfastv1.ConnectResponse_Welcome{Welcome: welcome},
	}); err != nil {
		return err
	}
	return s.follow(ctx, hello.GetCursor(), hello.GetRoot(), hello.GetProgressInterval().AsDuration(), stream.Send)
}

func (s *server) Watch(req *holdfastv1.WatchRequest, stream grpc.ServerStreamingServer[holdfastv1.WatchResponse]) error {
	s.mu.Lock()
	s.watches = append(s.watches, req)
	s.mu.Unlock()
	return s.follow(stream.Context(), req.GetCursor(), nil, req.GetProgressInterval().AsDuration(), func(m *holdfastv1.ConnectResponse) error {
		w := &holdfastv1.WatchResponse{Epoch: m.GetEpoch(), StateTime: m.GetStateTime()}
		switch {
		case m.GetSnapshot() != nil:
			w.Event = &holdfastv1.WatchResponse_Snapshot{Snapshot: m.GetSnapshot()}
		case m.GetDelta() != nil:
			w.Event = &holdfastv1.WatchResponse_Delta{Delta: m.GetDelta()}
		default:
			w.Event = &holdfastv1.WatchResponse_Progress{Progress: m.GetProgress()}
		}
		return stream.Send(w)
	})
}

// follow tells of the truth from a cursor on. A cursor that is ahead waits.
func (s *server) follow(ctx context.Context, cursor *holdfastv1.Cursor, root []byte, interval time.Duration, send func(*holdfastv1.ConnectResponse) error) error {
	have, _ := document.EpochFromProto(cursor.GetEpoch())
	at := mirror.Position{Epoch: have, Revision: cursor.GetRevision()}
	progress := time.NewTicker(interval)
	defer progress.Stop()
	for first := true; ; first = false {
		now, changed := s.truth.now()
		var all []*holdfastv1.ConnectResponse
		switch {
		case s.mute != nil && s.mute(), at.Epoch.Counter > now.Epoch.Counter, at.Epoch == now.Epoch && at.Revision > now.Revision:
		case at.Epoch != now.Epoch, first && root != nil && !bytes.Equal(root, func() []byte { r := rootOf(s.truth.content(at.Revision)); return r[:] }()):
			all, at = s.truth.snapshot(now.Revision), now
		default:
			all, at = append(all, s.truth.delta(at.Revision, now.Revision)), now
		}
		for _, m := range all {
			if s.mangle != nil {
				s.mangle(m)
			}
			if err := send(m); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-progress.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *server) lastAck() *holdfastv1.Ack {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acks) == 0 {
		return nil
	}
	return s.acks[len(s.acks)-1]
}

func (s *server) connects() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.hellos)
}

// network has servers in memory at addresses.
type network struct {
	t         *testing.T
	mu        sync.Mutex
	listeners map[string]*listener
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	return &network{t: t, listeners: map[string]*listener{}}
}

// serve starts a server at an address; a previous one knows no sessions.
func (n *network) serve(addr string, s *server, previous ...bool) *server {
	n.t.Helper()
	s.id, s.grpc = "server-"+addr, grpc.NewServer()
	holdfastv1.RegisterStateServiceServer(s.grpc, s)
	if len(previous) == 0 {
		holdfastv1.RegisterSessionServiceServer(s.grpc, s)
	}
	lis := &listener{addr: pipeAddr(addr), accepted: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.listeners[addr] = lis
	n.mu.Unlock()
	go func() { _ = s.grpc.Serve(lis) }()
	n.t.Cleanup(s.grpc.Stop)
	return s
}

// kill stops a server, so that its address refuses connections.
func (n *network) kill(addr string, s *server) {
	n.mu.Lock()
	delete(n.listeners, addr)
	n.mu.Unlock()
	s.grpc.Stop()
}

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	lis := n.listeners[addr]
	n.mu.Unlock()
	if lis == nil {
		return nil, errors.New("connection refused")
	}
	return lis.dial(ctx)
}

// listener accepts pipes. bufconn's begin with timers that are due at once; in virtual
// time several of them at the same moment crash the race detector of Go 1.26 now and then.
type listener struct {
	addr     pipeAddr
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return string(a) }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.accepted <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// learns has a session know further servers, as a welcome does.
func (s *Session) learns(addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers.learn(addrs)
}

// app is a handler as it should be: it keeps the content and checks all it is told.
type app struct {
	t *testing.T

	mu       sync.Mutex
	content  map[document.Key]*document.Resource
	at       mirror.Position
	changes  []Change
	times    []int64
	servers  []Server
	lost     []error
	lostAt   []time.Time
	report   Report
	tamper   func(Change) // called by Install
	returned bool         // nothing may come any more
}

func (a *app) Report() Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alive()
	return a.report
}

func (a *app) Install(c Change) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alive()
	if a.tamper != nil {
		a.tamper(c)
	}
	if c.Replace {
		a.content = map[document.Key]*document.Resource{}
	} else {
		a.content = maps.Clone(a.content)
		if c.Epoch != a.at.Epoch || c.Delta.From > a.at.Revision {
			a.t.Errorf("a change from %d to %s at %s", c.Delta.From, c.Position(), a.at)
		}
	}
	for _, r := range c.Delta.Puts {
		a.content[r.Key] = r
	}
	for _, d := range c.Delta.Deletes {
		delete(a.content, d.Key)
	}
	if root := rootOf(a.content); root != c.Delta.Root {
		a.t.Errorf("at %s the handler has %x, was told %x", c.Position(), root, c.Delta.Root)
	}
	a.at = c.Position()
	a.changes = append(a.changes, c)
}

func (a *app) StateTime(now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alive()
	a.times = append(a.times, now)
}

func (a *app) Connected(s Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alive()
	a.servers = append(a.servers, s)
}

func (a *app) Disconnected(_ string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alive()
	a.lost, a.lostAt = append(a.lost, err), append(a.lostAt, time.Now())
}

func (a *app) alive() {
	if a.returned {
		a.t.Error("the handler is called after Close has returned")
	}
}

func (a *app) lastError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.lost) == 0 {
		return nil
	}
	return a.lost[len(a.lost)-1]
}

// change returns the last change.
func (a *app) change() Change {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.changes) == 0 {
		return Change{}
	}
	return a.changes[len(a.changes)-1]
}

// has checks that the handler has what the truth is.
func (a *app) has(w *truth) {
	a.t.Helper()
	at, _ := w.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at != at || rootOf(a.content) != rootOf(w.content(at.Revision)) {
		a.t.Errorf("the handler is at %s, the truth at %s", a.at, at)
	}
}

// open opens a session in the network; change may alter the configuration.
func (n *network) open(change func(*Config), addrs ...string) (*Session, *app) {
	n.t.Helper()
	a := &app{t: n.t}
	config := Config{
		Servers: addrs, Handler: a, Identity: Identity{ID: "i1", Service: "checkout", SDK: "test/1"},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(n.dial)},
	}
	if change != nil {
		change(&config)
	}
	s, err := Open(config)
	if err != nil {
		n.t.Fatal(err)
	}
	return s, a
}

// end closes a session. Afterwards the handler must not be called.
func end(t *testing.T, s *Session, a *app) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	a.mu.Lock()
	a.returned = true
	a.mu.Unlock()
}

// wait lets virtual time pass.
func wait(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble, where it is the time of the bubble
	synctest.Wait()
}

// logs collects what is logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logs) has(t *testing.T, words ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return
		}
	}
	t.Errorf("no line with %q in:\n%s", words, l.buf.String())
}
