package cluster

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Replica follows a namespace through one server and keeps what a client would
// have: installed at once when the last chunk is there. It checks the rules of
// the stream as it goes. Its methods may be called concurrently.
type Replica struct {
	namespace string

	mu        sync.Mutex // guards the fields below
	epoch     *holdfastv1.Epoch
	revision  uint64
	root      []byte
	resources map[string]*holdfastv1.Resource // by kind and name
	snapshots int
	chunks    int // of the last snapshot
	ended     map[string]time.Time
	changed   chan struct{}
	broken    error
}

// NewReplica returns an empty replica of a namespace.
func NewReplica(namespace string) *Replica {
	return &Replica{
		namespace: namespace, resources: make(map[string]*holdfastv1.Resource),
		ended: make(map[string]time.Time), changed: make(chan struct{}),
	}
}

// Follow watches from where the replica stands until ctx or the stream ends. It
// returns nil when ctx ended, the stream's error, or the rule that was broken.
func (r *Replica) Follow(ctx context.Context, client holdfastv1.StateServiceClient) error {
	req := &holdfastv1.WatchRequest{Namespace: r.namespace}
	r.mu.Lock()
	if r.epoch != nil {
		req.Cursor = &holdfastv1.Cursor{Epoch: r.epoch, Revision: r.revision}
	}
	r.mu.Unlock()
	stream, err := client.Watch(ctx, req)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	var pending []*holdfastv1.WatchResponse
	for {
		msg, err := stream.Recv()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if pending, err = r.take(pending, msg); err != nil {
			r.mu.Lock()
			r.broken = err
			r.wake()
			r.mu.Unlock()
			return err
		}
	}
}

// Keep follows through the given servers, one after the other, until ctx ends
// or a rule is broken.
func (r *Replica) Keep(ctx context.Context, clients ...holdfastv1.StateServiceClient) error {
	for i := 0; ctx.Err() == nil; i++ {
		_ = r.Follow(ctx, clients[i%len(clients)])
		if err := r.Err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
		}
	}
	return nil
}

func (r *Replica) take(pending []*holdfastv1.WatchResponse, msg *holdfastv1.WatchResponse) ([]*holdfastv1.WatchResponse, error) {
	var chunk uint32
	var last bool
	switch {
	case msg.GetSnapshot() != nil:
		chunk, last = msg.GetSnapshot().GetChunk(), msg.GetSnapshot().GetLast()
	case msg.GetDelta() != nil:
		chunk, last = msg.GetDelta().GetChunk(), msg.GetDelta().GetLast()
	case msg.GetProgress() != nil:
		if len(pending) > 0 {
			return nil, fmt.Errorf("progress between chunks: %v", msg)
		}
		return nil, r.progress(msg)
	default:
		return nil, fmt.Errorf("empty message: %v", msg)
	}
	if int(chunk) != len(pending) {
		return nil, fmt.Errorf("chunk %d where %d was due", chunk, len(pending))
	}
	pending = append(pending, msg)
	if !last {
		return pending, nil
	}
	return nil, r.install(pending)
}

func (r *Replica) progress(msg *holdfastv1.WatchResponse) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := msg.GetProgress()
	if p.GetRevision() < r.revision {
		return fmt.Errorf("progress went back from %d to %d", r.revision, p.GetRevision())
	}
	if r.root != nil && string(p.GetRoot()) != string(r.root) {
		return fmt.Errorf("progress to %d changed the root without a delta", p.GetRevision())
	}
	if !sameEpoch(msg.GetEpoch(), r.epoch) {
		return fmt.Errorf("progress in epoch %v, replica in %v", msg.GetEpoch(), r.epoch)
	}
	r.revision = p.GetRevision()
	r.wake()
	return nil
}

func (r *Replica) install(msgs []*holdfastv1.WatchResponse) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.wake()
	if s := msgs[0].GetSnapshot(); s != nil {
		return r.installSnapshot(msgs, s)
	}
	return r.installDelta(msgs, msgs[0].GetDelta())
}

func (r *Replica) installSnapshot(msgs []*holdfastv1.WatchResponse, first *holdfastv1.Snapshot) error {
	epoch := msgs[0].GetEpoch()
	if sameEpoch(epoch, r.epoch) && first.GetRevision() < r.revision {
		return fmt.Errorf("snapshot went back from %d to %d in one epoch", r.revision, first.GetRevision())
	}
	if r.epoch != nil && epoch.GetCounter() < r.epoch.GetCounter() {
		return fmt.Errorf("epoch went back from %v to %v", r.epoch, epoch)
	}
	resources := make(map[string]*holdfastv1.Resource)
	for _, m := range msgs {
		s := m.GetSnapshot()
		if s.GetRevision() != first.GetRevision() || string(s.GetRoot()) != string(first.GetRoot()) || !sameEpoch(m.GetEpoch(), epoch) {
			return fmt.Errorf("chunk %d is of another snapshot", s.GetChunk())
		}
		for _, res := range s.GetResources() {
			if _, dup := resources[resourceName(res.GetKey())]; dup {
				return fmt.Errorf("snapshot names %v twice", res.GetKey())
			}
			resources[resourceName(res.GetKey())] = res
		}
	}
	r.epoch, r.revision, r.root, r.resources = epoch, first.GetRevision(), first.GetRoot(), resources
	r.snapshots++
	r.chunks = len(msgs)
	return nil
}

func (r *Replica) installDelta(msgs []*holdfastv1.WatchResponse, first *holdfastv1.Delta) error {
	if !sameEpoch(msgs[0].GetEpoch(), r.epoch) {
		return fmt.Errorf("delta in epoch %v, replica in %v", msgs[0].GetEpoch(), r.epoch)
	}
	// A delta may begin before the revision that the client has, by revisions
	// that did not touch the namespace, so that servers can share it.
	if first.GetFrom() > r.revision || first.GetTo() <= r.revision {
		return fmt.Errorf("delta (%d, %d] does not continue from %d", first.GetFrom(), first.GetTo(), r.revision)
	}
	now := time.Now()
	for _, m := range msgs {
		d := m.GetDelta()
		if d.GetFrom() != first.GetFrom() || d.GetTo() != first.GetTo() || string(d.GetRoot()) != string(first.GetRoot()) {
			return fmt.Errorf("chunk %d is of another delta", d.GetChunk())
		}
		for _, res := range d.GetPuts() {
			if rev := res.GetModRevision(); rev <= r.revision || rev > d.GetTo() {
				return fmt.Errorf("delta (%d, %d] for a client at %d carries revision %d", d.GetFrom(), d.GetTo(), r.revision, rev)
			}
			r.resources[resourceName(res.GetKey())] = res
		}
		for _, dead := range d.GetDeletes() {
			if rev := dead.GetRevision(); rev <= r.revision || rev > d.GetTo() {
				return fmt.Errorf("delta (%d, %d] for a client at %d carries tombstone %d", d.GetFrom(), d.GetTo(), r.revision, rev)
			}
			delete(r.resources, resourceName(dead.GetKey()))
			if dead.GetType() == holdfastv1.ChangeType_CHANGE_TYPE_ENDED {
				r.ended[dead.GetKey().GetName()] = now
			}
		}
	}
	r.revision, r.root = first.GetTo(), first.GetRoot()
	return nil
}

// wake lets waiters look again. The caller holds mu.
func (r *Replica) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Err is the rule that the stream broke, if any.
func (r *Replica) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// State is a copy of what the replica has.
func (r *Replica) State() ReplicaState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state()
}

// ReplicaState is what a replica has at one moment.
type ReplicaState struct {
	Epoch     *holdfastv1.Epoch
	Revision  uint64
	Root      []byte
	Resources map[string]*holdfastv1.Resource // by kind and name; not to be changed
	Snapshots int                             // how many were installed so far
	Chunks    int                             // of the last snapshot
	Ended     map[string]time.Time            // when the end of an override arrived, by name
}

// state copies; the caller holds mu.
func (r *Replica) state() ReplicaState {
	s := ReplicaState{
		Epoch: r.epoch, Revision: r.revision, Root: r.root, Snapshots: r.snapshots, Chunks: r.chunks,
		Resources: make(map[string]*holdfastv1.Resource, len(r.resources)), Ended: make(map[string]time.Time, len(r.ended)),
	}
	maps.Copy(s.Resources, r.resources)
	maps.Copy(s.Ended, r.ended)
	return s
}

// Wait waits until the replica satisfies a condition, and returns it as it was
// then. It fails when ctx ends or when the stream breaks a rule.
func (r *Replica) Wait(ctx context.Context, ok func(ReplicaState) bool) (ReplicaState, error) {
	for {
		r.mu.Lock()
		s, changed, broken := r.state(), r.changed, r.broken
		r.mu.Unlock()
		if broken != nil {
			return s, broken
		}
		if ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, fmt.Errorf("replica at revision %d of epoch %v: %w", s.Revision, s.Epoch, context.Cause(ctx))
		}
	}
}

func sameEpoch(a, b *holdfastv1.Epoch) bool {
	return a != nil && b != nil && a.GetCounter() == b.GetCounter() && a.GetNonce() == b.GetNonce() &&
		string(a.GetLineage()) == string(b.GetLineage())
}

// ResourceName is how replicas call a resource.
func ResourceName(kind holdfastv1.Kind, name string) string {
	return resourceName(&holdfastv1.ResourceKey{Kind: kind, Name: name})
}

func resourceName(k *holdfastv1.ResourceKey) string {
	return k.GetKind().String() + "/" + k.GetName()
}
