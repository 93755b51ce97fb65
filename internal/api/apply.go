package api

import (
	"context"

	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Apply commits a transaction, or tells what it would do.
func (s *stateService) Apply(ctx context.Context, req *holdfastv1.ApplyRequest) (*holdfastv1.ApplyResponse, error) {
	cmd, keys, err := command(s.validator, req, identityOf(ctx).actor(req.GetClaimedActor()))
	if err != nil {
		return nil, err
	}
	if req.GetDryRun() {
		return s.plan(cmd, keys)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.writeTime)
		defer cancel()
	}
	p, err := s.leaders.propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if r := p.outcome.Rejection; r != nil {
		return nil, rejected(r, keys)
	}
	resp := &holdfastv1.ApplyResponse{
		Header:    s.reader.header(s.reader.replica.View()),
		Revision:  p.outcome.Revision,
		Duplicate: p.duplicate,
	}
	for i, change := range p.outcome.Changes[:min(len(p.outcome.Changes), len(keys))] {
		resp.Changes = append(resp.Changes, &holdfastv1.Change{Key: keys[i].proto(), Type: change.Proto()})
	}
	return resp, nil
}

// plan tells what the transaction would do to the state of this server.
func (s *stateService) plan(cmd *storagev1.Command, keys []placedKey) (*holdfastv1.ApplyResponse, error) {
	view := s.reader.replica.View()
	cmd.TimeMs = s.reader.replica.StateTime().UnixMilli()
	changes, rejection := view.Plan(cmd)
	if rejection != nil {
		return nil, rejected(rejection, keys)
	}
	resp := &holdfastv1.ApplyResponse{Header: s.reader.header(view), Revision: view.Revision()}
	for i := range changes {
		resp.Changes = append(resp.Changes, planned(&changes[i]))
	}
	return resp, nil
}

// planned returns the wire form of a change with what was and what would be.
func planned(c *state.Change) *holdfastv1.Change {
	p := &holdfastv1.Change{Key: placedKey{c.Namespace, c.Key}.proto(), Type: c.Type.Proto()}
	if c.Before != nil {
		p.Before = c.Before.Proto(c.Namespace)
	}
	if c.After != nil {
		p.After = c.After.Proto(c.Namespace)
	}
	return p
}
