package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// fleetPause is the least time between two pictures of a watch, fleetRefresh the
	// most: ages and what follows from time alone are told that often.
	fleetPause   = 200 * time.Millisecond
	fleetRefresh = 5 * time.Second
	// fleetLook is how often a watch looks for what no record tells: a policy, or
	// evidence that has grown too old.
	fleetLook = time.Second
)

// How an instance takes part in gossip.
const (
	modeOff     = "off"
	modeRelayed = "relayed"
	modeDirect  = "direct"
)

// fleetService shows what instances tell each other, and turns the keys of their
// pools.
type fleetService struct {
	holdfastv1.UnimplementedFleetServiceServer

	replica  Replica
	self     string
	leaders  *leadership
	spaces   *fleetSpaces
	policies *policyViews
}

// GetFleet returns what this server knows now.
func (s *fleetService) GetFleet(ctx context.Context, req *holdfastv1.GetFleetRequest) (*holdfastv1.GetFleetResponse, error) {
	space, leave, err := s.open(ctx, req)
	if err != nil {
		return nil, err
	}
	defer leave()
	return &holdfastv1.GetFleetResponse{Fleet: s.picture(space, req.GetDependency())}, nil
}

// WatchFleet returns it at once and after each change.
func (s *fleetService) WatchFleet(req *holdfastv1.WatchFleetRequest, stream grpc.ServerStreamingServer[holdfastv1.WatchFleetResponse]) error {
	ctx := stream.Context()
	space, leave, err := s.open(ctx, req)
	if err != nil {
		return err
	}
	defer leave()
	look, pause := time.NewTicker(fleetLook), time.NewTimer(0)
	defer look.Stop()
	defer pause.Stop()
	var told *holdfastv1.Fleet
	var at time.Time
	for {
		select { // however much happens meanwhile, it is told at once
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := servingError(s.replica); err != nil {
			return err
		}
		changed := space.pool.Changed()
		picture := s.picture(space, req.GetDependency())
		if told == nil || time.Since(at) >= fleetRefresh || !sameFleet(told, picture) {
			if err := stream.Send(&holdfastv1.WatchFleetResponse{Fleet: picture}); err != nil {
				return err
			}
			told, at = picture, time.Now()
		}
		pause.Reset(fleetPause)
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fleetQuestion is a request for evidence.
type fleetQuestion interface {
	GetNamespace() string
	GetDependency() string
}

// open checks a question and returns what is known of its namespace. The caller calls
// leave when it is done.
func (s *fleetService) open(ctx context.Context, q fleetQuestion) (space *fleetSpace, leave func(), err error) {
	var v violations
	namespace := v.namespace("namespace", q.GetNamespace())
	v.text("dependency", q.GetDependency(), document.MaxName)
	if err := v.err(); err != nil {
		return nil, nil, err
	}
	if space, err = s.spaces.enter(namespace); err != nil {
		return nil, nil, err
	}
	select {
	case <-space.counted:
		return space, space.leave, nil
	case <-ctx.Done():
		space.leave()
		return nil, nil, ctx.Err()
	}
}

// picture shows a namespace's fleet as this server sees it now.
func (s *fleetService) picture(space *fleetSpace, dependency string) *holdfastv1.Fleet {
	view, direct := s.replica.View(), space.pool.Directs()
	fleet := space.pool.Picture(dependency, s.policies.of(view, space.namespace), func(id string) string {
		if direct[id] {
			return modeDirect
		}
		return modeRelayed
	})
	fleet.ServerId, fleet.Revision, fleet.Time = s.self, view.Revision(), timestamppb.Now()
	fleet.Members = uint32(space.pool.Members()) //nolint:gosec // few
	return fleet
}

// sameFleet tells whether two pictures differ in nothing but in what time alone
// changes.
func sameFleet(a, b *holdfastv1.Fleet) bool { return proto.Equal(timeless(a), timeless(b)) }

func timeless(f *holdfastv1.Fleet) *holdfastv1.Fleet {
	f = proto.CloneOf(f)
	f.Time, f.Revision = nil, 0
	for _, d := range f.GetDependencies() {
		for _, r := range d.GetReports() {
			r.Age, r.Since = nil, (*durationpb.Duration)(nil)
		}
	}
	return f
}

// ListGossipKeys shows the keys of a pool.
func (s *fleetService) ListGossipKeys(_ context.Context, req *holdfastv1.ListGossipKeysRequest) (*holdfastv1.ListGossipKeysResponse, error) {
	var v violations
	namespace := v.namespace("namespace", req.GetNamespace())
	if err := v.err(); err != nil {
		return nil, err
	}
	if s.spaces.fleet == nil {
		return nil, errNoGossip
	}
	return &holdfastv1.ListGossipKeysResponse{Keys: s.spaces.fleet.Keys(namespace)}, nil
}

// RotateGossipKey has the leader take a step of a rotation.
func (s *fleetService) RotateGossipKey(ctx context.Context, req *holdfastv1.RotateGossipKeyRequest) (*holdfastv1.RotateGossipKeyResponse, error) {
	var v violations
	step := v.rotation(req)
	if err := v.err(); err != nil {
		return nil, err
	}
	if s.spaces.fleet == nil {
		return nil, errNoGossip
	}
	resp := &holdfastv1.RotateGossipKeyResponse{}
	err := s.leaders.do(ctx, action{
		// A key made twice is one too many, and one removed twice is not found.
		harmless: step.GetStep() == holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE,
		local: func(ctx context.Context) (err error) {
			resp.Keys, err = rotateHere(ctx, s.spaces.fleet, step)
			return err
		},
		remote: func(ctx context.Context, leader peerv1.PeerServiceClient) error {
			answer, err := leader.RotateGossipKey(ctx, &peerv1.RotateGossipKeyRequest{Step: step})
			resp.Keys = answer.GetKeys()
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// RotateGossipKey takes another server's step, if this server leads.
func (s *peerService) RotateGossipKey(ctx context.Context, req *peerv1.RotateGossipKeyRequest) (*peerv1.RotateGossipKeyResponse, error) {
	var v violations
	step := v.rotation(req.GetStep())
	if err := v.err(); err != nil {
		return nil, err
	}
	if s.fleet == nil {
		return nil, errNoGossip
	}
	keys, err := rotateHere(ctx, s.fleet, step)
	if err != nil {
		return nil, err
	}
	return &peerv1.RotateGossipKeyResponse{Keys: keys}, nil
}

// rotateHere takes a step at this server, which has to lead.
func rotateHere(ctx context.Context, fleet Fleet, step *holdfastv1.RotateGossipKeyRequest) ([]*holdfastv1.GossipKey, error) {
	keys, err := fleet.RotateKey(ctx, step)
	if err != nil && isContext(err) {
		return nil, newError(ReasonUnknownOutcome, err, "the outcome of the step is unknown: %v", err)
	}
	return keys, err
}

// rotation checks a step of a rotation and returns it with its namespace.
func (v *violations) rotation(req *holdfastv1.RotateGossipKeyRequest) *holdfastv1.RotateGossipKeyRequest {
	step := &holdfastv1.RotateGossipKeyRequest{
		Namespace: v.namespace("namespace", req.GetNamespace()), Step: req.GetStep(), Id: req.GetId(),
	}
	v.text("id", req.GetId(), MaxKeyIDBytes)
	switch req.GetStep() {
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_ADD:
		if req.GetId() != "" {
			v.addf("id", "is set; a new key gets its own")
		}
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_USE, holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_REMOVE:
		if req.GetId() == "" {
			v.addf("id", "is missing; ListGossipKeys shows the ids")
		}
	case holdfastv1.GossipKeyStep_GOSSIP_KEY_STEP_UNSPECIFIED:
		v.addf("step", "is not set")
	default:
		v.addf("step", "is %v, which is unknown", req.GetStep())
	}
	return step
}
