package api

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// evidencePause is the least time between two batches of evidence.
	evidencePause = 100 * time.Millisecond
	// settingsLook is how often a pool is asked for other settings.
	settingsLook = time.Second
)

// errNoGossip refuses where the server has no fleet.
var errNoGossip = Errorf(ReasonNoGossip, "this server takes no part in the gossip of instances")

// fleetSpaces are the namespaces in whose pools this server has to be: those that
// have a session with gossip, or are looked at.
type fleetSpaces struct {
	fleet     Fleet // nil for none
	instances *instanceService
	metrics   *metrics
	checks    slots // limits how many addresses are verified at once

	mu     sync.Mutex
	spaces map[string]*fleetSpace
}

// fleetSpace is what the sessions of one namespace share: the pool, the newest batch
// of evidence, and what all instances are told.
type fleetSpace struct {
	of        *fleetSpaces
	namespace string
	pool      FleetPool
	release   func()
	stop      context.CancelFunc
	running   sync.WaitGroup
	// counted is closed once the instances have been counted.
	counted chan struct{}
	terms   atomic.Pointer[fleetTerms]
	batch   atomic.Pointer[evidenceBatch]

	users int // guarded by the mutex of fleetSpaces

	mu       sync.Mutex // guards what is below, and changes of terms
	sessions map[*participant]struct{}
	direct   int // sessions whose instances may join the pool
}

// fleetTerms is what all instances of a namespace are told. Nobody changes it.
type fleetTerms struct {
	settings   *holdfastv1.GossipSettings
	signers    []byte
	population []*holdfastv1.ServicePopulation // in the order of the services
}

// evidenceBatch is the records that changed between two cursors of a pool, as a
// message. All sessions that are at the first one are sent the same bytes.
type evidenceBatch struct {
	from, to uint64
	message  *frame // nil for nothing
}

// enter returns the space of a namespace. The caller calls leave when it is done.
func (s *fleetSpaces) enter(namespace string) (*fleetSpace, error) {
	if s.fleet == nil {
		return nil, errNoGossip
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	space, ok := s.spaces[namespace]
	if !ok {
		pool, release, err := s.fleet.Pool(namespace)
		if err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(context.Background())
		space = &fleetSpace{
			of: s, namespace: namespace, pool: pool, release: release, stop: stop,
			counted: make(chan struct{}), sessions: make(map[*participant]struct{}),
		}
		space.terms.Store(&fleetTerms{settings: pool.Settings(), signers: s.fleet.Signers()})
		space.batch.Store(&evidenceBatch{})
		space.running.Go(func() { space.follow(ctx) })
		space.running.Go(func() { space.count(ctx) })
		s.spaces[namespace] = space
	}
	space.users++
	return space, nil
}

// leave gives the space back; the last one ends it.
func (f *fleetSpace) leave() {
	f.of.mu.Lock()
	f.users--
	last := f.users == 0
	if last {
		delete(f.of.spaces, f.namespace)
	}
	f.of.mu.Unlock()
	if last {
		f.stop()
		f.running.Wait()
		f.release()
	}
}

// follow makes a batch after a change, at most every evidencePause, and wakes the
// sessions when there is something to tell.
func (f *fleetSpace) follow(ctx context.Context) {
	look, pause := time.NewTicker(settingsLook), time.NewTimer(0)
	defer look.Stop()
	defer pause.Stop()
	<-pause.C
	for {
		changed := f.pool.Changed()
		if f.next() {
			pause.Reset(evidencePause)
			select {
			case <-pause.C:
				continue // whatever came meanwhile is one batch
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-changed:
		case <-look.C:
			f.look()
		case <-ctx.Done():
			return
		}
	}
}

// look has the sessions tell what has become another.
func (f *fleetSpace) look() {
	settings, signers := f.pool.Settings(), f.of.fleet.Signers()
	if t := f.terms.Load(); t.settings != settings || !bytes.Equal(t.signers, signers) {
		f.change(func(t *fleetTerms) { t.settings, t.signers = settings, signers })
	}
}

// change makes other terms and wakes the sessions.
func (f *fleetSpace) change(edit func(*fleetTerms)) {
	f.mu.Lock()
	terms := *f.terms.Load()
	edit(&terms)
	f.terms.Store(&terms)
	f.mu.Unlock()
	f.wake()
}

// next makes the next batch; false if there is nothing new.
func (f *fleetSpace) next() bool {
	from := f.batch.Load().to
	records, to := f.pool.Changes(from, MaxEvidenceRecords)
	if to == from {
		return false
	}
	f.batch.Store(&evidenceBatch{from: from, to: to, message: evidenceMessage(records)})
	f.wake()
	return true
}

// evidence returns the message that brings a session from a cursor on, nil for none,
// and its next cursor. Somebody who is not where the others are gets a message of his
// own, and is with them after a few.
func (f *fleetSpace) evidence(cursor uint64) (message *frame, next uint64) {
	batch := f.batch.Load()
	switch cursor {
	case batch.to:
		return nil, cursor
	case batch.from:
		return batch.message, batch.to
	}
	records, next := f.pool.Changes(cursor, MaxEvidenceRecords)
	if len(records) < MaxEvidenceRecords {
		next = batch.to // what is newer comes again with the next batch
	}
	return evidenceMessage(records), min(next, batch.to)
}

// evidenceMessage encodes records; nil for none.
func evidenceMessage(records [][]byte) *frame {
	if len(records) == 0 {
		return nil
	}
	resp := &holdfastv1.ConnectResponse{}
	for _, r := range records {
		resp.Evidence = append(resp.Evidence, &holdfastv1.Evidence{Record: r})
	}
	body, err := proto.Marshal(resp)
	if err != nil {
		return nil // bytes always encode
	}
	return &frame{body: body}
}

// wake has every session look whether there is something to tell.
func (f *fleetSpace) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.sessions {
		p.wake()
	}
}

// enlist has a session woken from now on; dismiss ends that.
func (f *fleetSpace) enlist(p *participant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions[p] = struct{}{}
}

func (f *fleetSpace) dismiss(p *participant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sessions, p)
}

// full tells whether no further instance may join the pool. An instance that is a
// member already takes nobody's place.
func (f *fleetSpace) full(id string) bool {
	f.mu.Lock()
	direct := f.direct
	f.mu.Unlock()
	return max(direct, f.pool.Members()) >= MaxDirectMembers && !f.pool.Directs()[id]
}

// joins counts the sessions whose instances may join the pool.
func (f *fleetSpace) joins(by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.direct += by
}
