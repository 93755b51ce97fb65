package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/seam"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
)

const (
	// foundingInterval is how often a server without a cluster looks around.
	foundingInterval = 500 * time.Millisecond
	// promiseTimeout bounds one request for a promise.
	promiseTimeout = 3 * time.Second
	// waitingNotice is how often a server without a cluster says what it waits
	// for.
	waitingNotice = 10 * time.Second
)

// foundLoop finds this server a cluster: it waits to be joined to one, or takes
// part in founding one. It ends when the server belongs to a cluster.
func (n *Node) foundLoop(ctx context.Context) {
	var told time.Time
	ticker := time.NewTicker(foundingInterval)
	defer ticker.Stop()
	for !n.raft.HasState() {
		waiting := n.tryToFound(ctx)
		if waiting != nil && time.Since(told) > waitingNotice {
			told = time.Now()
			n.log.Info("waiting for a cluster", "why", waiting.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	if err := n.promise.clear(); err != nil {
		n.log.Warn("cannot forget the promise", "error", err)
	}
	n.pool.UpdateMeta()
}

// tryToFound makes one attempt; the error says what is missing.
func (n *Node) tryToFound(ctx context.Context) error {
	servers := n.servers()
	if i := slices.IndexFunc(servers, func(s server) bool { return s.State }); i >= 0 {
		return fmt.Errorf("the leader of the cluster that %s belongs to will let this server join", servers[i].ID)
	}
	if n.config.founders() == 1 {
		return errors.New("none of the servers to join belongs to a cluster")
	}
	candidates := n.candidates(servers)
	if len(candidates) < n.config.founders() {
		return fmt.Errorf("%d of %d servers are here", len(candidates), n.config.founders())
	}
	switch founder := n.promise.to(); {
	case founder == n.id:
	case founder == "" && candidates[0].ID == n.id:
		if err := n.promise.give(n.id, gaveUp(servers)); err != nil {
			return err
		}
		n.pool.UpdateMeta()
	case founder != "":
		if _, ok := serverByID(servers, founder); !ok {
			return fmt.Errorf("this server is promised to %s, which is not here; if its disk is lost, "+
				"stop this server, delete %s and start it again", founder, n.dir.file(filePromise))
		}
		return fmt.Errorf("%s founds the cluster", founder)
	default:
		return fmt.Errorf("%s is to found the cluster", candidates[0].ID)
	}
	return n.found(ctx, candidates)
}

// candidates are the servers that could found a cluster with this one, by id.
func (n *Node) candidates(servers []server) []server {
	return slices.DeleteFunc(slices.Clone(servers), func(s server) bool {
		return s.State || s.Expect != n.config.founders()
	})
}

// found asks the others for their promise, and founds the cluster when it has
// enough.
func (n *Node) found(ctx context.Context, candidates []server) error {
	chosen := chooseFounders(n.id, candidates, n.config.founders())
	ids := make([]string, len(chosen))
	members := make([]consensus.Member, len(chosen))
	for i, s := range chosen {
		ids[i] = s.ID
		members[i] = consensus.Member{ID: s.ID, Addr: s.Raft, Voter: true}
	}
	slices.Sort(ids)
	refusals := make([]error, len(chosen))
	var asked sync.WaitGroup
	for i, s := range chosen {
		if s.ID == n.id {
			continue
		}
		asked.Go(func() { refusals[i] = n.askPromise(ctx, s, ids) })
	}
	asked.Wait()
	if err := errors.Join(refusals...); err != nil {
		return err
	}
	err := n.promise.found(func() error { return n.raft.Bootstrap(members) })
	if err != nil && !errors.Is(err, consensus.ErrHasState) {
		return fmt.Errorf("found cluster: %w", err)
	}
	n.log.Info("cluster founded", "servers", strings.Join(ids, ","))
	seam.Event("founded", "server", n.id, "servers", ids)
	return nil
}

// chooseFounders picks this server and others: first those that are promised to
// it already, then those that are free, then the rest.
func chooseFounders(self string, candidates []server, count int) []server {
	rank := func(s server) int {
		switch {
		case s.ID == self:
			return 0
		case s.Founder == self:
			return 1
		case s.Founder == "":
			return 2
		default:
			return 3
		}
	}
	ordered := slices.Clone(candidates)
	slices.SortStableFunc(ordered, func(a, b server) int { return rank(a) - rank(b) })
	return ordered[:min(count, len(ordered))]
}

func (n *Node) askPromise(ctx context.Context, s server, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, promiseTimeout)
	defer cancel()
	return n.callPeer(s.API, func(peer peerv1.PeerServiceClient) error {
		resp, err := peer.PromiseBootstrap(ctx, &peerv1.PromiseBootstrapRequest{FounderId: n.id, ServerIds: ids})
		if err != nil {
			return fmt.Errorf("ask %s for its promise: %w", s.ID, err)
		}
		if !resp.GetPromised() {
			return fmt.Errorf("%s does not promise: %s", s.ID, resp.GetRefusal())
		}
		return nil
	})
}

// Promise implements api.Replica.
func (n *Node) Promise(_ context.Context, req *peerv1.PromiseBootstrapRequest) *peerv1.PromiseBootstrapResponse {
	refuse := func(err error) *peerv1.PromiseBootstrapResponse {
		return &peerv1.PromiseBootstrapResponse{Refusal: err.Error()}
	}
	servers := n.servers()
	switch {
	case n.raft.HasState():
		return refuse(errors.New("it belongs to a cluster"))
	case n.config.founders() != len(req.GetServerIds()):
		return refuse(fmt.Errorf("it expects %d servers", n.config.founders()))
	case !slices.Contains(req.GetServerIds(), n.id) || !slices.Contains(req.GetServerIds(), req.GetFounderId()):
		return refuse(errors.New("it is not among the founders"))
	case slices.ContainsFunc(servers, func(s server) bool { return s.State }):
		return refuse(errors.New("it sees a cluster"))
	}
	if err := n.promise.give(req.GetFounderId(), gaveUp(servers)); err != nil {
		return refuse(err)
	}
	n.pool.UpdateMeta()
	return &peerv1.PromiseBootstrapResponse{Promised: true}
}

// gaveUp tells whom a founder has promised itself to, by its own word in the
// pool: a server says so only after it is on its disk.
func gaveUp(servers []server) func(founder string) string {
	return func(founder string) string {
		s, ok := serverByID(servers, founder)
		if !ok || s.State || s.Founder == founder {
			return ""
		}
		return s.Founder
	}
}
