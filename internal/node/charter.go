package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/charter"
	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// charterLoop keeps those who sign in step with the members of the cluster.
func (n *Node) charterLoop(ctx context.Context) {
	ticker := time.NewTicker(reconcileInterval)
	defer ticker.Stop()
	for {
		if err := n.leadCharter(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("the keys that servers sign with are not up to date", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// leadCharter changes the charter if it has to be changed.
func (n *Node) leadCharter(ctx context.Context) error {
	if n.charter.InStep(n.signingServers()) {
		return nil
	}
	term, err := n.confirmTerm(ctx)
	if err != nil {
		return err
	}
	changed, err := n.charter.Lead(term, n.signingServers())
	if changed {
		n.log.Info("the keys that servers sign with have changed", "servers", len(n.charter.Signers().Servers()), "version", n.charter.Signers().Version())
		n.spreadCharter()
	}
	return err //nolint:wrapcheck // the caller says what it was about
}

// confirmTerm returns the term in which this server leads, once a majority has
// confirmed it and everything acknowledged before is applied: a leader that is cut off
// changes nothing.
func (n *Node) confirmTerm(ctx context.Context) (uint64, error) {
	index, err := n.raft.ReadIndex(ctx)
	if err != nil {
		return 0, err //nolint:wrapcheck // api maps the errors of consensus
	}
	if err := n.raft.WaitApplied(ctx, index); err != nil {
		return 0, err //nolint:wrapcheck // as above
	}
	status := n.raft.Status()
	if status.Role != consensus.Leader {
		return 0, &consensus.NotLeaderError{ID: status.LeaderID, Addr: status.LeaderAddr}
	}
	return status.Term, nil
}

// signingServers returns the members of the cluster with their keys: as they say
// themselves in the pool, or, of one that is not there, as the charter has it. Of two
// that say the same key only one has it.
func (n *Node) signingServers() []trust.Server {
	present, held := n.servers(), n.charter.Signers().Servers()
	signing := []trust.Server{{ID: n.id, Key: n.key.Public()}}
	for _, m := range n.raft.Members() {
		known := trust.Server{ID: m.ID}
		if i := slices.IndexFunc(held, func(s trust.Server) bool { return s.ID == m.ID }); i >= 0 {
			known = held[i]
		}
		if s, alive := serverByID(present, m.ID); alive && len(s.Key) == ed25519.PublicKeySize {
			known.Key = s.Key
		}
		if known.Key == nil || len(signing) == trust.MaxSigners || slices.ContainsFunc(signing, func(s trust.Server) bool {
			return s.ID == known.ID || s.Key.Equal(known.Key)
		}) {
			continue
		}
		signing = append(signing, known)
	}
	return signing
}

// spreadCharter tells the other servers all of the charter that is news to them.
func (n *Node) spreadCharter() {
	for _, key := range n.charter.Keys() {
		n.toServers.Spread(key)
	}
}

// saveCharter writes the charter down, as it is when it is its turn.
func (n *Node) saveCharter() error {
	n.saving.Lock()
	defer n.saving.Unlock()
	return n.dir.write(fileCharter, n.charter.Save())
}

// Keys implements api.Fleet.
func (p *pools) Keys(namespace string) []*holdfastv1.GossipKey {
	var shown []*holdfastv1.GossipKey
	for i, k := range p.n.charter.PoolKeys(namespace) {
		key := &holdfastv1.GossipKey{Id: k.ID, Primary: i == 0}
		if k.Created != 0 {
			key.CreateTime = timestamppb.New(time.UnixMilli(k.Created))
		}
		shown = append(shown, key)
	}
	return shown
}

// RotateKey implements api.Fleet. A step is on disk and on its way to the other servers
// when it returns; how far it has come they tell themselves.
func (p *pools) RotateKey(ctx context.Context, step *holdfastv1.RotateGossipKeyRequest) ([]*holdfastv1.GossipKey, error) {
	n, namespace, id := p.n, step.GetNamespace(), step.GetId()
	term, err := n.confirmTerm(ctx)
	if err != nil {
		return nil, err
	}
	switch step.GetStep() {
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD:
		err = n.charter.Add(term, namespace, rand.Reader, n.clock.estimate().UnixMilli())
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE:
		err = n.charter.Use(term, namespace, id)
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_REMOVE:
		err = n.charter.Remove(term, namespace, id)
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_UNSPECIFIED:
		err = errors.New("no step")
	}
	if err != nil {
		return nil, refusedStep(err)
	}
	if err := n.saveCharter(); err != nil {
		return nil, fmt.Errorf("rotate gossip key: %w", err)
	}
	n.toServers.Spread(charter.RingRecord(namespace))
	n.log.Info("gossip key rotated", "namespace", namespace, "step", step.GetStep().String(), "key", id)
	return p.Keys(namespace), nil
}

// refusedStep says what keeps a step from being taken.
func refusedStep(err error) error {
	switch {
	case errors.Is(err, charter.ErrNoKey):
		return api.Errorf(api.ReasonGossipKeyNotFound, "%v; list the keys to see which there are", err)
	case errors.Is(err, charter.ErrPrimary):
		return api.Errorf(api.ReasonGossipKeyRefused, "%v; use another one first", err)
	case errors.Is(err, charter.ErrFull):
		return api.Errorf(api.ReasonGossipKeyRefused, "%v; remove old ones first", err)
	case errors.Is(err, charter.ErrPlaintext):
		return api.Errorf(api.ReasonGossipKeyRefused, "%v; give every server a gossip-key-file, and the pools of instances get keys as well", err)
	default:
		return api.Errorf(api.ReasonGossipKeyRefused, "%v", err)
	}
}
