package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// pollEvery is how often a wait asks again.
const pollEvery = 20 * time.Millisecond

// dial connects lazily. The back-off is short because these tests measure how
// fast a server is back, not how politely a client waits for it.
func dial(addr string, creds credentials.TransportCredentials, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	retry := backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 100 * time.Millisecond}
	conn, err := grpc.NewClient(addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: time.Second}),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return conn, nil
}

// Dial opens another connection to server i. The caller closes it.
func (c *Cluster) Dial(i int, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return dial(c.Addr(i), c.opts.Credentials, opts...)
}

// Client reads and writes through server i.
func (c *Cluster) Client(i int) holdfastv1.StateServiceClient {
	return holdfastv1.NewStateServiceClient(c.servers[i].conn)
}

// Admin is the cluster service of server i.
func (c *Cluster) Admin(i int) holdfastv1.ClusterServiceClient {
	return holdfastv1.NewClusterServiceClient(c.servers[i].conn)
}

// Status asks server i, for at most a second.
func (c *Cluster) Status(ctx context.Context, i int) (*holdfastv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := c.Admin(i).GetStatus(ctx, &holdfastv1.GetStatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("status of server %d: %w", i, err)
	}
	return st, nil
}

// Serves tells whether server i answers more than its status: a leader has told it
// the time and what is committed. It asks for at most a second.
func (c *Cluster) Serves(ctx context.Context, i int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	res, err := grpc_health_v1.NewHealthClient(c.servers[i].conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err == nil && res.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING
}

// Leader is the number of the server that leads in the highest term; an error
// when nobody says so. Paused servers count as silent.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	leader, term := -1, uint64(0)
	for i := range c.servers {
		if !c.Alive(i) {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		st, err := c.Status(short, i)
		cancel()
		if err == nil && st.GetRole() == holdfastv1.Role_ROLE_LEADER && st.GetTerm() >= term {
			leader, term = i, st.GetTerm()
		}
	}
	if leader < 0 {
		return 0, errors.New("no server leads")
	}
	return leader, nil
}

// WaitLeader waits for a leader other than the server old; -1 allows any.
func (c *Cluster) WaitLeader(ctx context.Context, old int) (int, error) {
	var leader int
	err := Poll(ctx, func() (err error) {
		leader, err = c.Leader(ctx)
		if err == nil && leader == old {
			err = fmt.Errorf("server %d still leads", old)
		}
		return err
	})
	return leader, err
}

// WaitVoters waits until every running server serves, knows the leader and
// lists n voters and nobody else.
func (c *Cluster) WaitVoters(ctx context.Context, n int) error {
	for i := range c.servers {
		if !c.Alive(i) {
			continue
		}
		err := Poll(ctx, func() error {
			if err := c.ready(ctx, i); err != nil {
				return err
			}
			return c.hasVoters(ctx, i, n)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) hasVoters(ctx context.Context, i, n int) error {
	resp, err := c.Admin(i).ListMembers(ctx, &holdfastv1.ListMembersRequest{})
	if err != nil {
		return fmt.Errorf("members of server %d: %w", i, err)
	}
	voters := 0
	for _, m := range resp.GetMembers() {
		if m.GetRole() != holdfastv1.Role_ROLE_NON_VOTER {
			voters++
		}
	}
	if voters != n || len(resp.GetMembers()) != n {
		return fmt.Errorf("server %d lists %d voters of %d members, want %d", i, voters, len(resp.GetMembers()), n)
	}
	return nil
}

func (c *Cluster) ready(ctx context.Context, i int) error {
	if !c.Alive(i) {
		code, _ := c.WaitExit(i, 0)
		return permanent{fmt.Errorf("server %d exited with code %d", i, code)}
	}
	st, err := c.Status(ctx, i)
	switch {
	case err != nil:
		return err
	case st.GetFenced() != "":
		return permanent{fmt.Errorf("server %d is fenced: %s", i, st.GetFenced())}
	case st.GetLeaderId() == "" || len(st.GetHeader().GetEpoch().GetLineage()) == 0:
		return fmt.Errorf("server %d knows no leader or lineage", i)
	}
	return c.readyz(ctx, i)
}

// readyz asks server i what a load balancer asks it.
func (c *Cluster) readyz(ctx context.Context, i int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.HTTPAddr(i)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask server %d: %w", i, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask server %d: %w", i, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("server %d is not ready: %s", i, body)
	}
	return nil
}

// WaitReady waits until server i serves, knows the leader and has applied what
// was committed when the call began.
func (c *Cluster) WaitReady(ctx context.Context, i int) error {
	var committed uint64
	for p := range c.servers {
		if !c.Alive(p) || p == i {
			continue
		}
		if st, err := c.Status(ctx, p); err == nil {
			committed = max(committed, st.GetHeader().GetRevision())
		}
	}
	return Poll(ctx, func() error {
		if err := c.ready(ctx, i); err != nil {
			return err
		}
		st, err := c.Status(ctx, i)
		if err == nil && st.GetHeader().GetRevision() < committed {
			err = fmt.Errorf("server %d is at revision %d, want %d", i, st.GetHeader().GetRevision(), committed)
		}
		return err
	})
}

// Agree waits until all running servers stand at one revision with equal
// namespace roots, and returns that status. Nobody may be writing.
func (c *Cluster) Agree(ctx context.Context) (*holdfastv1.GetStatusResponse, error) {
	var first *holdfastv1.GetStatusResponse
	err := Poll(ctx, func() error {
		first = nil
		for i := range c.servers {
			if !c.Alive(i) {
				continue
			}
			st, err := c.Status(ctx, i)
			if err != nil {
				return err
			}
			if first == nil {
				first = st
			}
			if err := sameState(first, st); err != nil {
				return fmt.Errorf("server %d differs: %w", i, err)
			}
		}
		return nil
	})
	return first, err
}

func sameState(a, b *holdfastv1.GetStatusResponse) error {
	if x, y := a.GetHeader().GetRevision(), b.GetHeader().GetRevision(); x != y {
		return fmt.Errorf("revision %d, other %d", y, x)
	}
	if x, y := Roots(a), Roots(b); x != y {
		return fmt.Errorf("roots %s, other %s", y, x)
	}
	if x, y := a.GetHeader().GetEpoch(), b.GetHeader().GetEpoch(); x.String() != y.String() {
		return fmt.Errorf("epoch %v, other %v", y, x)
	}
	return nil
}

// Roots lists the namespaces of a status with their roots.
func Roots(st *holdfastv1.GetStatusResponse) string {
	var s strings.Builder
	for _, ns := range st.GetNamespaces() {
		fmt.Fprintf(&s, "%s=%x(%d) ", ns.GetName(), ns.GetRoot(), ns.GetResources())
	}
	return s.String()
}

// permanent marks an error that no waiting cures.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Poll calls fn until it returns nil or an error marked permanent, or until ctx
// ends; then the last error tells why.
func Poll(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		var stop permanent
		if err == nil || errors.As(err, &stop) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(pollEvery):
		}
	}
}

// Reason is the stable reason of an error of the API, and whether it says that
// the request had no effect.
func Reason(err error) (reason string, definite bool) {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "holdfast" {
			return info.GetReason(), info.GetMetadata()["outcome"] == "definite"
		}
	}
	return "", false
}
