package api

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/state"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func TestFollowerForwardsWrites(t *testing.T) {
	leader, follower := pair(t)
	req := transactionOf(flag("a", `1`))
	resp, err := follower.state.Apply(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	// The answer comes from a state that has the write, under the same id.
	if h := resp.GetHeader(); h.GetServerId() != "n2" || h.GetRevision() != 1 || resp.GetRevision() != 1 {
		t.Errorf("Apply = %v", resp)
	}
	again, err := leader.state.Apply(t.Context(), req)
	if err != nil || !again.GetDuplicate() {
		t.Errorf("the same write at the leader = %v, %v", again, err)
	}
	// A refusal is that of the state, with all its details.
	op := flag("a", `2`)
	op.ExpectedRevision = proto.Uint64(9)
	_, err = follower.state.Apply(t.Context(), transactionOf(op))
	expect(t, err, state.ReasonRevisionMismatch)
	if infoOf(err).GetMetadata()[MetaActualRevision] != "1" {
		t.Errorf("metadata = %v", infoOf(err).GetMetadata())
	}
}

func TestForwardedWriteIsReadHere(t *testing.T) {
	_, follower := pair(t)
	follower.replica.hold()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan *holdfastv1.ApplyResponse, 1)
	go func() {
		resp, err := follower.state.Apply(ctx, transactionOf(flag("a", `1`)))
		if err != nil {
			t.Error(err)
		}
		done <- resp
	}()
	// Once the leader has it, the answer only waits for the follower.
	eventually(t, "the write at the leader", func() bool { return follower.replica.cluster.replicas[0].View().Revision() == 1 })
	select {
	case resp := <-done:
		t.Fatalf("answered before the follower has the write: %v", resp)
	default:
	}
	follower.replica.release()
	if resp := <-done; resp.GetHeader().GetRevision() != 1 {
		t.Errorf("Apply = %v", resp)
	}
}

func TestForwardedWriteSucceedsAlsoWhenThisServerLags(t *testing.T) {
	_, follower := pair(t)
	follower.replica.hold()
	var resp *holdfastv1.ApplyResponse
	tx := transactionOf(flag("a", `1`))
	if err := inTime(t, func(ctx context.Context) (err error) {
		resp, err = follower.state.Apply(ctx, tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if resp.GetRevision() != 1 || resp.GetHeader().GetRevision() != 0 {
		t.Errorf("Apply = %v", resp)
	}
}

func TestWriteWaitsForALeader(t *testing.T) {
	leader, follower := pair(t)
	c := leader.replica.cluster
	c.setLeader("")
	done := make(chan error, 1)
	go func() {
		_, err := follower.state.Apply(t.Context(), transactionOf(flag("a", `1`)))
		done <- err
	}()
	attempts := follower.metrics.forwards.WithLabelValues("none", "definite")
	eventually(t, "a look for the leader", func() bool { return counted(attempts) > 1 })
	c.setLeader("n1")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if c.proposals() != 2 {
		t.Errorf("%d proposals", c.proposals())
	}
}

func TestWriteWithoutALeaderIsDefinite(t *testing.T) {
	n := single(t)
	n.replica.cluster.setLeader("")
	expect(t, inTime(t, func(ctx context.Context) error {
		_, err := n.state.Apply(ctx, transactionOf(flag("a", `1`)))
		return err
	}), ReasonNoLeader)
}

func TestDeadLeader(t *testing.T) {
	c := newFakeCluster(t, "n1", "n2", "n3")
	follower, third := serve(t, c.replicas[1]), serve(t, c.replicas[2])
	// Nobody listens where the leader was.
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.replicas[0].set(func(r *fakeReplica) { r.addr = l.Addr().String() })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, inTime(t, func(ctx context.Context) error {
		_, err := follower.state.Apply(ctx, transactionOf(flag("a", `1`)))
		return err
	}), ReasonNoLeader)

	// A write that is under way finds the next leader.
	done := make(chan error, 1)
	go func() {
		_, err := follower.state.Apply(t.Context(), transactionOf(flag("a", `1`)))
		done <- err
	}()
	failures := follower.metrics.forwards.WithLabelValues("remote", "definite")
	before := counted(failures)
	eventually(t, "an attempt at the dead leader", func() bool { return counted(failures) > before })
	c.setLeader("n3")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if third.replica.View().Revision() != 1 {
		t.Error("the write was not applied")
	}
}

func TestForwardedOutcomes(t *testing.T) {
	t.Run("the leader does not know", func(t *testing.T) {
		leader, follower := pair(t)
		attempts := 0
		leader.replica.cluster.setOnPropose(func(*storagev1.Command) (before, after error) {
			attempts++
			return nil, consensus.ErrUnknownOutcome
		})
		_, err := follower.state.Apply(t.Context(), transactionOf(flag("a", `1`)))
		expect(t, err, ReasonUnknownOutcome)
		if attempts != 1 {
			t.Errorf("%d attempts of what may have been applied", attempts)
		}
	})
	t.Run("the leader dies while applying", func(t *testing.T) {
		leader, follower := pair(t)
		entered, leave := make(chan struct{}), make(chan struct{})
		leader.replica.cluster.setOnPropose(func(*storagev1.Command) (before, after error) {
			close(entered)
			<-leave
			return nil, nil
		})
		done := make(chan error, 1)
		go func() {
			_, err := follower.leaders().propose(t.Context(), commandOf(t))
			done <- err
		}()
		<-entered
		stopped := make(chan struct{})
		go func() {
			leader.Close()
			close(stopped)
		}()
		err := <-done
		close(leave)
		<-stopped
		expect(t, err, ReasonUnknownOutcome)
	})
	t.Run("the leader hands over", func(t *testing.T) {
		leader, follower := pair(t)
		attempts := 0
		leader.replica.cluster.setOnPropose(func(*storagev1.Command) (before, after error) {
			if attempts++; attempts < 3 {
				return &consensus.NotLeaderError{}, nil
			}
			return nil, nil
		})
		if _, err := follower.state.Apply(t.Context(), transactionOf(flag("a", `1`))); err != nil || attempts != 3 {
			t.Errorf("%d attempts, %v", attempts, err)
		}
	})
}

// leaders returns a way to the leader like the server's own.
func (n *node) leaders() *leadership {
	return &leadership{replica: n.replica, self: n.replica.id, peers: n.peers, metrics: n.metrics, wait: time.Second}
}

// commandOf returns a command as Apply would propose it.
func commandOf(t *testing.T) *storagev1.Command {
	t.Helper()
	cmd, _, err := command(anything{}, transactionOf(flag("a", `1`)), &holdfastv1.Actor{Name: "alice", Verified: true})
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestPeersPrune(t *testing.T) {
	p := newPeers(nil)
	defer p.close()
	members := []Member{{ID: "n1", APIAddr: "a-0"}}
	for _, name := range names(maxPeerConnections + 1) {
		if _, err := p.client(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.client("a-0"); err != nil {
		t.Fatal(err)
	}
	p.prune(members)
	if len(p.conns) != 1 || p.conns["a-0"] == nil {
		t.Errorf("%d connections are left", len(p.conns))
	}
	p.close()
	err := p.call(t.Context(), "a-0", nil)
	expect(t, err, ReasonDraining)
	if !errors.Is(err, errPeersClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestPeerServiceChecksCommands(t *testing.T) {
	n := single(t)
	tests := map[string]func(*storagev1.Command){
		"no body":       func(c *storagev1.Command) { c.Body = nil },
		"the leader's":  func(c *storagev1.Command) { c.Body = &storagev1.Command_Tick{Tick: &storagev1.Tick{}} },
		"a new epoch":   func(c *storagev1.Command) { c.Body = &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{}} },
		"version 0":     func(c *storagev1.Command) { c.Version = 0 },
		"newer":         func(c *storagev1.Command) { c.Version = state.Version + 1 },
		"no request id": func(c *storagev1.Command) { c.RequestId = nil },
		"negative age":  func(c *storagev1.Command) { c.AgeMs = -1 },
		"too large":     func(c *storagev1.Command) { c.Reason = big(MaxCommandBytes) },
	}
	before := n.replica.cluster.proposals()
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := commandOf(t)
			change(cmd)
			_, err := n.peer.Propose(t.Context(), &peerv1.ProposeRequest{Command: cmd})
			expect(t, err, ReasonInvalidRequest)
		})
	}
	if n.replica.cluster.proposals() != before {
		t.Error("a refused command was proposed")
	}
	n.replica.cluster.setOnPropose(func(cmd *storagev1.Command) (before, after error) {
		if cmd.GetTimeMs() != 0 {
			return errors.New("a peer has stamped the command"), nil
		}
		return nil, nil
	})
	cmd := commandOf(t)
	cmd.TimeMs = 1 << 60
	resp, err := n.peer.Propose(t.Context(), &peerv1.ProposeRequest{Command: cmd})
	if err != nil || resp.GetIndex() != 2 {
		t.Fatalf("Propose = %v, %v", resp, err)
	}
	if r := n.replica.View().Namespace("default").Get(placedKeyOf("a").Key); r.ActorVerified {
		t.Errorf("in plaintext a peer's word was taken for proof: %+v", r)
	}
}

func placedKeyOf(name string) placedKey {
	var v violations
	key, _ := v.key("", flag(name, "").GetPut().GetKey())
	return key
}

func TestPeerServiceActsHereOnly(t *testing.T) {
	_, follower := pair(t)
	_, err := follower.peer.Propose(t.Context(), &peerv1.ProposeRequest{Command: commandOf(t)})
	expect(t, err, ReasonNotLeader)
	if infoOf(err).GetMetadata()[MetaLeader] != "n1" {
		t.Errorf("metadata = %v", infoOf(err).GetMetadata())
	}
	_, err = follower.peer.ReadIndex(t.Context(), &peerv1.ReadIndexRequest{})
	expect(t, err, ReasonNotLeader)
	_, err = follower.peer.ChangeMembership(t.Context(), &peerv1.ChangeMembershipRequest{Change: &peerv1.ChangeMembershipRequest_Promote{Promote: "x"}})
	expect(t, err, ReasonNotLeader)
	_, err = follower.peer.ChangeMembership(t.Context(), &peerv1.ChangeMembershipRequest{})
	expect(t, err, ReasonInvalidRequest)
	promise, err := follower.peer.PromiseBootstrap(t.Context(), &peerv1.PromiseBootstrapRequest{FounderId: "n1"})
	if err != nil || !promise.GetPromised() {
		t.Errorf("PromiseBootstrap = %v, %v", promise, err)
	}
}

func TestSentTracker(t *testing.T) {
	// The status alone does not tell whether a request has left.
	n := single(t)
	n.replica.cluster.setOnPropose(func(*storagev1.Command) (before, after error) {
		return status.Error(codes.Unavailable, "no details"), nil
	})
	err := n.leaders().peers.call(t.Context(), n.addr, func(ctx context.Context, c peerv1.PeerServiceClient) error {
		_, err := c.Propose(ctx, &peerv1.ProposeRequest{Command: commandOf(t)})
		return err
	})
	expect(t, err, ReasonUnknownOutcome)
	err = n.leaders().peers.call(t.Context(), "127.0.0.1:1", func(ctx context.Context, c peerv1.PeerServiceClient) error {
		_, err := c.Propose(ctx, &peerv1.ProposeRequest{Command: commandOf(t)})
		return err
	})
	expect(t, err, ReasonNoLeader)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = n.leaders().peers.call(ctx, n.addr, func(ctx context.Context, c peerv1.PeerServiceClient) error {
		_, err := c.Propose(ctx, &peerv1.ProposeRequest{Command: commandOf(t)})
		return err
	})
	expect(t, err, ReasonCancelled)
}
