package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// askTime is what another server gets to answer beyond the time to wait.
const askTime = time.Second

// AwaitRevision waits until every server has applied a revision and names those
// that have not.
func (s *stateService) AwaitRevision(ctx context.Context, req *holdfastv1.AwaitRevisionRequest) (*holdfastv1.AwaitRevisionResponse, error) {
	var v violations
	wait := v.await("wait", req.GetWait())
	if err := v.err(); err != nil {
		return nil, err
	}
	members := s.reader.replica.Members()
	resp := &holdfastv1.AwaitRevisionResponse{Reached: true, Servers: make([]*holdfastv1.ServerProgress, len(members))}
	wait = patience(ctx, wait)
	epoch := s.reader.replica.View().Epoch()
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() { resp.Servers[i] = s.ask(ctx, m, req.GetRevision(), wait, epoch) })
	}
	asked.Wait()
	s.leaders.peers.prune(members)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, p := range resp.GetServers() {
		resp.Reached = resp.GetReached() && p.GetReached()
	}
	resp.Header = s.reader.header(s.reader.replica.View())
	return resp, nil
}

// await checks how long to wait for a revision.
func (v *violations) await(field string, d *durationpb.Duration) time.Duration {
	if v.duration(field, d) && d.AsDuration() > MaxAwait {
		v.addf(field, "is %s; at most %s are allowed", d.AsDuration(), MaxAwait)
	}
	return d.AsDuration()
}

// ask waits until one server has applied the revision in this epoch. A revision
// of another epoch is another state.
func (s *stateService) ask(ctx context.Context, m Member, revision uint64, wait time.Duration, epoch document.Epoch) *holdfastv1.ServerProgress {
	p := &holdfastv1.ServerProgress{ServerId: m.ID}
	switch {
	case m.ID == s.reader.self:
		view := awaitHere(ctx, s.reader.replica, revision, wait)
		p.Revision, p.Reached = view.Revision(), view.Revision() >= revision
		return p
	case m.APIAddr == "":
		p.Error = "its API address is not known: the server pool has not seen it"
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, wait+askTime)
	defer cancel()
	err := s.leaders.peers.call(ctx, m.APIAddr, func(ctx context.Context, peer peerv1.PeerServiceClient) error {
		resp, err := peer.AwaitRevision(ctx, &peerv1.AwaitRevisionRequest{Revision: revision, Wait: durationpb.New(wait)})
		if err != nil {
			return err
		}
		theirs, err := document.EpochFromProto(resp.GetEpoch())
		if err != nil {
			return fmt.Errorf("read its epoch: %w", err)
		}
		p.Revision = resp.GetRevision()
		// A server that is behind may not have seen the newest epoch yet; one that
		// claims to be there must be in it.
		if p.Reached = resp.GetRevision() >= revision && theirs.Counter >= epoch.Counter; !p.GetReached() && p.GetRevision() >= revision {
			p.Error = fmt.Sprintf("it is in epoch %s, this server in %s", theirs, epoch)
		}
		return nil
	})
	if err != nil {
		p.Error = status.Convert(asStatus(err)).Message()
	}
	return p
}

// awaitHere waits until this server has applied a revision, or until the time is
// over, and returns the state.
func awaitHere(ctx context.Context, replica Replica, revision uint64, wait time.Duration) *state.View {
	if v := replica.View(); v.Revision() >= revision {
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_ = replica.WaitRevision(ctx, revision) // the view tells
	return replica.View()
}
