package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const pollEvery = 20 * time.Millisecond

// ErrNoLeader tells that no server said it leads.
var ErrNoLeader = errors.New("no server leads")

func dial(addr string) (*grpc.ClientConn, error) {
	retry := backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 100 * time.Millisecond}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return conn, nil
}

// State reads the state of its cluster. It is asked from an address that no fault cuts.
func (s *Server) State() holdfastv1.StateServiceClient {
	return holdfastv1.NewStateServiceClient(s.conn)
}

// Admin asks about its cluster and changes it.
func (s *Server) Admin() holdfastv1.ClusterServiceClient {
	return holdfastv1.NewClusterServiceClient(s.conn)
}

// Status asks it, for at most a second.
func (s *Server) Status(ctx context.Context) (*holdfastv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := s.Admin().GetStatus(ctx, &holdfastv1.GetStatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", s.ID, err)
	}
	return st, nil
}

// Members asks it who the servers of its cluster are.
func (s *Server) Members(ctx context.Context) ([]*holdfastv1.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resp, err := s.Admin().ListMembers(ctx, &holdfastv1.ListMembersRequest{})
	if err != nil {
		return nil, fmt.Errorf("members of %s: %w", s.ID, err)
	}
	return resp.GetMembers(), nil
}

// Leader is the server that leads in the highest term. Paused servers are not asked.
func (c *Cluster) Leader(ctx context.Context) (*Server, error) {
	var leader *Server
	var term uint64
	for _, s := range c.Servers {
		if !s.Alive() || s.Paused() {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		st, err := s.Status(short)
		cancel()
		if err == nil && st.GetRole() == holdfastv1.Role_ROLE_LEADER && st.GetTerm() >= term {
			leader, term = s, st.GetTerm()
		}
	}
	if leader == nil {
		return nil, ErrNoLeader
	}
	return leader, nil
}

// WaitLeader waits for a leader that is none of those given.
func (c *Cluster) WaitLeader(ctx context.Context, not ...*Server) (*Server, error) {
	var leader *Server
	err := Poll(ctx, func() (err error) {
		if leader, err = c.Leader(ctx); err != nil {
			return err
		}
		for _, s := range not {
			if s == leader {
				return fmt.Errorf("server %s still leads", s.ID)
			}
		}
		return nil
	})
	return leader, err
}

// Ready tells by an error why it does not serve: whether it is up, knows a leader and
// the lineage, and is told healthy.
func (s *Server) Ready(ctx context.Context) error {
	if !s.Alive() {
		return fmt.Errorf("server %s does not run", s.ID)
	}
	st, err := s.Status(ctx)
	switch {
	case err != nil:
		return err
	case st.GetFenced() != "":
		return fmt.Errorf("server %s is fenced: %s", s.ID, st.GetFenced())
	case st.GetLeaderId() == "" || len(st.GetHeader().GetEpoch().GetLineage()) == 0:
		return fmt.Errorf("server %s knows no leader or lineage", s.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	res, err := grpc_health_v1.NewHealthClient(s.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("health of %s: %w", s.ID, err)
	}
	if res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("server %s says %v", s.ID, res.GetStatus())
	}
	return nil
}

// WaitVoters waits until it serves and lists n voters and nobody else, itself among
// them: one that replaces another lists that at first, as the log that it reads does.
func (s *Server) WaitVoters(ctx context.Context, n int) error {
	return Poll(ctx, func() error {
		if err := s.Ready(ctx); err != nil {
			return err
		}
		own, err := s.NodeID(ctx)
		if err != nil {
			return err
		}
		members, err := s.Members(ctx)
		if err != nil {
			return err
		}
		voters, itself := 0, false
		for _, m := range members {
			if m.GetRole() != holdfastv1.Role_ROLE_NON_VOTER {
				voters++
				itself = itself || m.GetId() == own
			}
		}
		if voters != n || len(members) != n || !itself {
			return fmt.Errorf("server %s lists %d voters of %d members, want %d with itself", s.ID, voters, len(members), n)
		}
		return nil
	})
}

// WaitCaughtUp waits until it serves and has applied what any server had applied when
// the call began.
func (s *Server) WaitCaughtUp(ctx context.Context) error {
	var committed uint64
	for _, other := range s.cluster.Except(s) {
		if !other.Alive() || other.Paused() {
			continue
		}
		if st, err := other.Status(ctx); err == nil {
			committed = max(committed, st.GetHeader().GetRevision())
		}
	}
	return Poll(ctx, func() error {
		if err := s.Ready(ctx); err != nil {
			return err
		}
		st, err := s.Status(ctx)
		if err == nil && st.GetHeader().GetRevision() < committed {
			err = fmt.Errorf("server %s is at revision %d, want %d", s.ID, st.GetHeader().GetRevision(), committed)
		}
		return err
	})
}

// Poll calls fn until it returns nil, or until ctx ends; then the last error tells why.
func Poll(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(pollEvery):
		}
	}
}
