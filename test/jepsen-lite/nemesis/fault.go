package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

const (
	// beginLimit and endLimit bound what a fault does itself; what it waits for
	// meanwhile has its own limits below these.
	beginLimit = 90 * time.Second
	endLimit   = 90 * time.Second
	// leaderLimit is how long a fault waits for a leader to aim at.
	leaderLimit = 10 * time.Second
)

// errToothless is what a fault returns that was brought about without effect.
var errToothless = errors.New("it did not bite")

// Span is a range of times.
type Span struct{ Min, Max time.Duration }

// at is the time at a share of the way from Min to Max, each doubling of which is as
// long as any other.
func (s Span) at(share float64) time.Duration {
	return time.Duration(float64(s.Min) * math.Pow(float64(s.Max)/float64(s.Min), share))
}

func (s Span) draw(r *rand.Rand) time.Duration {
	if s.Max <= s.Min {
		return s.Min
	}
	return s.Min + time.Duration(r.Int64N(int64(s.Max-s.Min)))
}

// Fault is one way to disturb a run.
type Fault struct {
	Name string
	// Hold is how long it lasts; zero for one that is over once it has been done.
	Hold Span
	// EvenHolds spreads the times of the strikes of a run evenly over Hold, by orders of
	// magnitude; otherwise each is drawn by itself.
	EvenHolds bool
	// Able tells why the machine or the run cannot do it; nil means it always can.
	Able func(e *Env) error
	// Do aims the strike, brings the fault about, proves that it bit, and returns what
	// ends it, which may be nil. It is not called again before that has been done.
	Do func(ctx context.Context, s *Strike) (end func(context.Context) error, err error)
}

// Strike is one time that a fault is done.
type Strike struct {
	*Env
	Rand    *rand.Rand
	number  int
	targets []string
	proofs  []string
	aimed   func()
}

// Aim says whom the fault will disturb, before it does.
func (s *Strike) Aim(targets ...string) {
	s.targets = targets
	s.aimed()
}

// Prove adds a sign that the fault bit.
func (s *Strike) Prove(format string, args ...any) {
	s.proofs = append(s.proofs, fmt.Sprintf(format, args...))
}

func (s *Strike) proof() string { return strings.Join(s.proofs, "; ") }

// Pick chooses the servers that a fault aims at.
type Pick func(ctx context.Context, s *Strike) ([]*process.Server, error)

// Leader picks the leader.
func Leader(ctx context.Context, s *Strike) ([]*process.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderLimit)
	defer cancel()
	leader, err := s.Cluster.WaitLeader(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the leader: %w", err)
	}
	return []*process.Server{leader}, nil
}

// Follower picks one that does not lead.
func Follower(ctx context.Context, s *Strike) ([]*process.Server, error) {
	leader, err := Leader(ctx, s)
	if err != nil {
		return nil, err
	}
	others := s.Cluster.Except(leader...)
	return []*process.Server{others[s.Rand.IntN(len(others))]}, nil
}

// One picks any.
func One(_ context.Context, s *Strike) ([]*process.Server, error) {
	return []*process.Server{s.Cluster.Servers[s.Rand.IntN(len(s.Cluster.Servers))]}, nil
}

// Majority picks the smallest majority that has the leader.
func Majority(ctx context.Context, s *Strike) ([]*process.Server, error) {
	some, err := Leader(ctx, s)
	if err != nil {
		return nil, err
	}
	others := s.Cluster.Except(some...)
	s.Rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return append(some, others[:len(s.Cluster.Servers)/2]...), nil
}

// All picks all.
func All(_ context.Context, s *Strike) ([]*process.Server, error) {
	return slices.Clone(s.Cluster.Servers), nil
}

func ids(servers []*process.Server) []string {
	all := make([]string, len(servers))
	for i, s := range servers {
		all[i] = s.ID
	}
	return all
}
