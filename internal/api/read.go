package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/seam"
	"github.com/holdfast-dev/holdfast/internal/state"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// reader gives out views that are as fresh as a request wants them.
type reader struct {
	replica Replica
	leaders *leadership
	self    string
	// wait is how long a read waits at most.
	wait time.Duration
}

// header tells which state a response reflects.
func (r *reader) header(v *state.View) *holdfastv1.Header {
	return &holdfastv1.Header{
		Epoch:     v.Epoch().Proto(),
		Revision:  v.Revision(),
		ServerId:  r.self,
		StateTime: timestamppb.New(r.replica.StateTime()),
	}
}

// check adds what is wrong with the options.
func (r *reader) check(v *violations, opts *holdfastv1.ReadOptions) {
	switch opts.GetConsistency() {
	case holdfastv1.Consistency_CONSISTENCY_UNSPECIFIED, holdfastv1.Consistency_CONSISTENCY_LOCAL, holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE:
	default:
		v.addf("read.consistency", "is %v, which is unknown", opts.GetConsistency())
	}
	v.duration("read.max_staleness", opts.GetMaxStaleness())
}

// view returns a state that is as fresh as the options want it. It waits for it,
// bounded by ctx and the time for reads.
func (r *reader) view(ctx context.Context, opts *holdfastv1.ReadOptions) (*state.View, error) {
	bounded, cancel := context.WithTimeout(ctx, patience(ctx, r.wait))
	defer cancel()
	if opts.GetConsistency() == holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE {
		index, err := r.leaders.readIndex(bounded)
		if err != nil {
			return nil, err
		}
		if seam.Bug(seam.ReadsWithoutApply) {
			index = 0
		}
		if err := r.replica.WaitApplied(bounded, index); err != nil {
			return nil, r.behind(ctx, err, "what the leader has committed")
		}
	}
	if least := opts.GetMinRevision(); r.replica.View().Revision() < least && !seam.Bug(seam.MinRevisionIgnored) {
		if err := r.replica.WaitRevision(bounded, least); err != nil {
			return nil, r.behind(ctx, err, "revision "+formatRevision(least))
		}
	}
	// The view is taken before its age is estimated: in the other order it could
	// be older than what was checked.
	v := r.replica.View()
	if bound := opts.GetMaxStaleness(); bound != nil {
		if age := r.replica.Staleness(); age > bound.AsDuration() {
			return nil, Errorf(ReasonStale, "this server may be %s behind the leader; the read allows %s", age.Round(time.Millisecond), bound.AsDuration()).
				with(MetaRevision, formatRevision(v.Revision()))
		}
	}
	return v, nil
}

// behind is the failure of a read that waited in vain.
func (r *reader) behind(ctx context.Context, cause error, what string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	have := formatRevision(r.replica.View().Revision())
	return newError(ReasonBehind, cause, "this server is at revision %s and has not applied %s in time", have, what).with(MetaRevision, have)
}
