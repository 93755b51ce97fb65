package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCluster is a log that every replica applies at once: what consensus
// promises, without consensus.
type fakeCluster struct {
	mu       sync.Mutex
	log      []state.Entry
	leader   string
	replicas []*fakeReplica
	stamped  int64
	proposed int
	// onPropose, if set, may fail a command before (and nothing happens) or after
	// it was applied.
	onPropose func(cmd *storagev1.Command) (before, after error)
	changes   []*peerv1.ChangeMembershipRequest
	changeErr error
}

// fakeReplica is a replica of a fakeCluster over the real state and hub.
type fakeReplica struct {
	cluster *fakeCluster
	id      string
	machine *state.Machine
	hub     *watch.Hub

	mu        sync.Mutex
	addr      string
	held      bool // applies nothing
	next      int  // entry of the log
	moved     chan struct{}
	serving   error
	fenced    string
	hidden    []string // members that it does not know
	staleness time.Duration
	readIndex func(context.Context) (uint64, error)
	learned   atomic.Pointer[time.Time] // the last LearnStateTime
	stopped   time.Time                 // what state time always is; zero: what it is
}

func newFakeCluster(tb testing.TB, ids ...string) *fakeCluster {
	tb.Helper()
	c := &fakeCluster{leader: ids[0]}
	for _, id := range ids {
		m := state.New()
		c.replicas = append(c.replicas, &fakeReplica{
			cluster: c, id: id, machine: m, hub: watch.NewHub(m.View()), moved: make(chan struct{}),
		})
	}
	c.commit(tb, &storagev1.Command{Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Lineage: randomID(), Nonce: 7}}})
	return c
}

// commit appends a command as the leader itself would.
func (c *fakeCluster) commit(tb testing.TB, cmd *storagev1.Command) state.Result {
	tb.Helper()
	cmd.Version = state.Version
	result, err := c.replica(c.leader).Propose(tb.Context(), cmd)
	if err != nil {
		tb.Fatal(err)
	}
	return result
}

func (c *fakeCluster) replica(id string) *fakeReplica {
	for _, r := range c.replicas {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (c *fakeCluster) setLeader(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = id
}

func (c *fakeCluster) setOnPropose(f func(*storagev1.Command) (before, after error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onPropose = f
}

func (c *fakeCluster) proposals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proposed
}

// append adds an entry; the caller holds the lock.
func (c *fakeCluster) append(cmd *storagev1.Command) error {
	c.stamped = max(c.stamped+1, time.Now().UnixMilli())
	cmd.TimeMs = c.stamped
	data, err := proto.Marshal(cmd)
	if err != nil {
		return err
	}
	c.log = append(c.log, state.Entry{Index: uint64(len(c.log) + 1), Term: 1, Data: data})
	return nil
}

func (r *fakeReplica) View() *state.View { return r.machine.View() }

func (r *fakeReplica) StateTime() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopped.IsZero() {
		return r.stopped
	}
	return time.Now()
}

func (r *fakeReplica) LearnStateTime(t time.Time) { r.learned.Store(&t) }

func (r *fakeReplica) Propose(ctx context.Context, cmd *storagev1.Command) (state.Result, error) {
	c := r.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader != r.id {
		return state.Result{}, &consensus.NotLeaderError{ID: c.leader}
	}
	c.proposed++
	var after error
	if c.onPropose != nil {
		var before error
		if before, after = c.onPropose(cmd); before != nil {
			return state.Result{}, before
		}
	}
	if err := c.append(cmd); err != nil {
		return state.Result{}, err
	}
	var result state.Result
	for _, other := range c.replicas {
		results := other.catchUp(c.log)
		if other == r && len(results) > 0 {
			result = results[len(results)-1]
		}
	}
	return result, after
}

// catchUp applies what is new in the log.
func (r *fakeReplica) catchUp(log []state.Entry) []state.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held {
		return nil
	}
	results, err := r.machine.Apply(log[r.next:])
	if err != nil {
		panic(err)
	}
	r.next = len(log)
	var touched []string
	for _, result := range results {
		touched = append(touched, result.Touched...)
	}
	r.hub.Publish(r.machine.View(), touched)
	close(r.moved)
	r.moved = make(chan struct{})
	return results
}

// hold stops the replica from applying; release lets it go on.
func (r *fakeReplica) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}

func (r *fakeReplica) release() {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	r.mu.Lock()
	r.held = false
	r.mu.Unlock()
	r.catchUp(r.cluster.log)
}

func (r *fakeReplica) wait(ctx context.Context, done func() bool) error {
	for {
		r.mu.Lock()
		moved := r.moved
		r.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *fakeReplica) WaitApplied(ctx context.Context, index uint64) error {
	return r.wait(ctx, func() bool { return r.View().Index() >= index })
}

func (r *fakeReplica) WaitRevision(ctx context.Context, revision uint64) error {
	return r.wait(ctx, func() bool { return r.View().Revision() >= revision })
}

func (r *fakeReplica) ReadIndex(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	f := r.readIndex
	r.mu.Unlock()
	if f != nil {
		return f(ctx)
	}
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	if r.cluster.leader != r.id {
		return 0, &consensus.NotLeaderError{ID: r.cluster.leader}
	}
	return uint64(len(r.cluster.log)), nil
}

func (r *fakeReplica) ChangeMembership(_ context.Context, req *peerv1.ChangeMembershipRequest) error {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	if r.cluster.leader != r.id {
		return &consensus.NotLeaderError{ID: r.cluster.leader}
	}
	if r.cluster.changeErr != nil {
		return r.cluster.changeErr
	}
	r.cluster.changes = append(r.cluster.changes, proto.CloneOf(req))
	if to := req.GetTransfer(); to != "" {
		r.cluster.leader = to
	}
	return nil
}

func (r *fakeReplica) Leader() (id, addr string) {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	if leader := r.cluster.replica(r.cluster.leader); leader != nil {
		leader.mu.Lock()
		defer leader.mu.Unlock()
		return leader.id, leader.addr
	}
	return "", ""
}

func (r *fakeReplica) Staleness() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.staleness
}

func (r *fakeReplica) Serving() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fenced != "" {
		return errors.New(r.fenced)
	}
	return r.serving
}

func (r *fakeReplica) set(f func(*fakeReplica)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *fakeReplica) Status() Status {
	id, _ := r.Leader()
	r.mu.Lock()
	defer r.mu.Unlock()
	role := holdfastv1.Role_ROLE_FOLLOWER
	if id == r.id {
		role = holdfastv1.Role_ROLE_LEADER
	}
	return Status{Role: role, Term: 1, LeaderID: id, Version: "test", StartTime: time.Unix(1, 0), Fenced: r.fenced}
}

func (r *fakeReplica) Members() []Member {
	r.mu.Lock()
	hidden := slices.Clone(r.hidden)
	r.mu.Unlock()
	var members []Member
	for _, other := range r.cluster.replicas {
		if slices.Contains(hidden, other.id) {
			continue
		}
		other.mu.Lock()
		members = append(members, Member{ID: other.id, RaftAddr: "raft-" + other.id, APIAddr: other.addr, Alive: true})
		other.mu.Unlock()
	}
	return members
}

func (r *fakeReplica) Promise(_ context.Context, req *peerv1.PromiseBootstrapRequest) *peerv1.PromiseBootstrapResponse {
	return &peerv1.PromiseBootstrapResponse{Promised: req.GetFounderId() == "n1"}
}

// anything lets every definition pass but those that say "bad".
type anything struct{}

func (anything) Validate(_ document.Key, spec []byte) []schema.Violation {
	if string(spec) == `"bad"` {
		return []schema.Violation{{Path: "variants", Message: "is missing"}, {Message: "is bad"}}
	}
	return nil
}

// node is a server over a replica, with a connection to it.
type node struct {
	*Server
	replica *fakeReplica
	addr    string
	conn    *grpc.ClientConn
	state   holdfastv1.StateServiceClient
	cluster holdfastv1.ClusterServiceClient
	peer    peerv1.PeerServiceClient
}

// serve starts a server for a replica on loopback. The options change its
// configuration.
func serve(tb testing.TB, r *fakeReplica, options ...func(*Config)) *node {
	tb.Helper()
	config := Config{
		Replica: r, Hub: r.hub, Validator: anything{}, ServerID: r.id, TempDir: tb.TempDir(),
		Logger: slog.New(slog.NewTextHandler(tb.Output(), nil)),
	}
	for _, o := range options {
		o(&config)
	}
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := New(config)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	tb.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			tb.Errorf("Serve = %v", err)
		}
	})
	r.set(func(r *fakeReplica) { r.addr = l.Addr().String() })
	n := &node{Server: s, replica: r, addr: l.Addr().String()}
	if config.TLS == nil {
		n.conn = dial(tb, n.addr)
		n.state = holdfastv1.NewStateServiceClient(n.conn)
		n.cluster = holdfastv1.NewClusterServiceClient(n.conn)
		n.peer = peerv1.NewPeerServiceClient(n.conn)
	}
	return n
}

// dial connects in plaintext, unless the options say otherwise.
func dial(tb testing.TB, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	conn, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// single starts a cluster of one.
func single(tb testing.TB, options ...func(*Config)) *node {
	tb.Helper()
	return serve(tb, newFakeCluster(tb, "n1").replicas[0], options...)
}

// pair starts a leader n1 and a follower n2.
func pair(t *testing.T) (leader, follower *node) {
	t.Helper()
	c := newFakeCluster(t, "n1", "n2")
	return serve(t, c.replicas[0]), serve(t, c.replicas[1])
}

// flag returns an operation that puts a flag.
func flag(name, spec string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: name}, Spec: []byte(spec),
	}}}
}

// remove returns an operation that deletes a flag.
func remove(name string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Action: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{
		Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_FLAG, Name: name},
	}}}
}

func transactionOf(ops ...*holdfastv1.Operation) *holdfastv1.ApplyRequest {
	id := make([]byte, requestIDBytes)
	_, _ = rand.Read(id)
	return &holdfastv1.ApplyRequest{RequestId: id, Operations: ops, ClaimedActor: "alice"}
}

// put writes flags through the node.
func (n *node) put(tb testing.TB, ops ...*holdfastv1.Operation) *holdfastv1.ApplyResponse {
	tb.Helper()
	resp, err := n.state.Apply(tb.Context(), transactionOf(ops...))
	if err != nil {
		tb.Fatal(err)
	}
	return resp
}

// expect checks a failure's reason and that its outcome is what the table says.
func expect(t *testing.T, err error, reason string) {
	t.Helper()
	row, ok := rowOf(reason)
	if !ok {
		t.Fatalf("reason %q is not in the table", reason)
	}
	info := infoOf(err)
	if info.GetReason() != reason || info.GetMetadata()[MetaOutcome] != string(row.Outcome) {
		t.Fatalf("error = %v with %v, want reason %s and outcome %s", err, info, reason, row.Outcome)
	}
}

// inTime makes a call with little time, and with more where this machine was too slow to
// have the answer back before the caller's deadline.
func inTime(t *testing.T, call func(ctx context.Context) error) error {
	t.Helper()
	for limit := 200 * time.Millisecond; ; limit *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := call(ctx)
		cancel()
		if status.Code(err) != codes.DeadlineExceeded || infoOf(err) != nil || limit > 10*time.Second {
			return err
		}
	}
}

// eventually waits for a condition that has no channel to wait on.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			tb.Fatalf("%s did not come true", what)
		}
	}
}

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("flag-%05d", i)
	}
	return list
}

// counted returns the value of a counter.
func counted(c prometheus.Collector) int { return int(testutil.ToFloat64(c)) }
