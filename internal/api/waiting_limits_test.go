package api

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// hung is a leader whose writes never come back.
type hung struct{ *fakeReplica }

func (hung) Propose(ctx context.Context, _ *storagev1.Command) (state.Result, error) {
	<-ctx.Done()
	return state.Result{}, ctx.Err()
}

// TestWaitsAreBounded lets callers wait for what never comes, in fake time: without a
// deadline to the limit, and with one until shortly before, so that they hear why.
func TestWaitsAreBounded(t *testing.T) {
	tests := map[string]struct {
		limit  time.Duration
		reason string
		call   func(ctx context.Context, c *fakeCluster, client holdfastv1.StateServiceClient) error
	}{
		"a read for its revision": {MaxReadWait, ReasonBehind, func(ctx context.Context, _ *fakeCluster, client holdfastv1.StateServiceClient) error {
			_, err := client.Get(ctx, get("a", &holdfastv1.ReadOptions{MinRevision: 99}))
			return err
		}},
		"a write for a leader": {MaxLeaderWait, ReasonNoLeader, func(ctx context.Context, c *fakeCluster, client holdfastv1.StateServiceClient) error {
			c.setLeader("")
			_, err := client.Apply(ctx, transactionOf(flag("a", `1`)))
			return err
		}},
		"a write for its outcome": {MaxWriteTime, ReasonUnknownOutcome, func(ctx context.Context, _ *fakeCluster, client holdfastv1.StateServiceClient) error {
			_, err := client.Apply(ctx, transactionOf(flag("a", `1`)))
			return err
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newFakeCluster(t, "n1")
				client, stop := serveInMemory(t, c.replicas[0])
				defer stop()
				began := time.Now()
				expect(t, test.call(t.Context(), c, client), test.reason)
				if took := time.Since(began); took < test.limit || took > test.limit+time.Second {
					t.Errorf("it took %s, want %s", took, test.limit)
				}
				if test.reason == ReasonUnknownOutcome {
					return // without an answer it is unknown as well
				}
				began = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				expect(t, test.call(ctx, c, client), test.reason)
				if took := time.Since(began); took < 1700*time.Millisecond || took > 1900*time.Millisecond {
					t.Errorf("with 2 s it took %s", took)
				}
			})
		})
	}
}

// serveInMemory serves a hung replica over a connection in memory, so that time
// can be fake.
func serveInMemory(t *testing.T, r *fakeReplica) (client holdfastv1.StateServiceClient, stop func()) {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	s := New(Config{Replica: hung{r}, Hub: r.hub, Validator: anything{}, ServerID: r.id})
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	conn := dial(t, "memory", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return listener.DialContext(ctx)
	}))
	return holdfastv1.NewStateServiceClient(conn), func() {
		_ = conn.Close() // nothing can be done about it
		s.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	}
}

// TestEncodersWaitForASlot fills the slots: the next chunk is encoded once one is
// free.
func TestEncodersWaitForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEncoder(newMetrics(nil))
		for range MaxConcurrentEncodes {
			e.slots <- struct{}{}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = e.chunk(state.New().View().Namespace("default"), document.Key{}) // an empty one cannot fail
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("a chunk was encoded without a slot")
		default:
		}
		<-e.slots
		<-done
	})
}

// TestStreamsPerConnection opens as many streams as a connection may have. The
// next one waits, and another connection does not.
func TestStreamsPerConnection(t *testing.T) {
	n := single(t)
	open := func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	for range MaxStreamsPerConnection {
		if err := open(t.Context(), n.conn); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := open(ctx, n.conn); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("one stream too many: %v", err)
	}
	if err := open(t.Context(), dial(t, n.addr)); err != nil {
		t.Errorf("another connection: %v", err)
	}
}

func TestLabelValueLimit(t *testing.T) {
	n := single(t)
	op := flag("a", `1`)
	op.GetPut().Labels = map[string]string{"team": strings.Repeat("x", MaxLabelValueBytes)}
	n.put(t, op)
	op.GetPut().Labels["team"] += "x"
	_, err := n.state.Apply(t.Context(), transactionOf(op))
	expect(t, err, ReasonInvalidRequest)
	_, err = n.state.List(t.Context(), &holdfastv1.ListRequest{Labels: op.GetPut().GetLabels()})
	expect(t, err, ReasonInvalidRequest)
}
