package api

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/registry"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// countPause is how far apart counts are told while they change. That all obey is
	// told at once.
	countPause = 20 * time.Millisecond
	// askAgain is when a server that could not be asked is asked again.
	askAgain = 500 * time.Millisecond
	// recountAfter is when instances are counted one by one for the first time, and
	// longRecount how far apart that is later.
	recountAfter = time.Second
	longRecount  = 5 * time.Second
	// namedBytes is how much is told of the instances that are named in a count.
	namedBytes = 256 << 10
)

// AwaitInstances tells how many of the connected instances obey a revision, until
// all do or the time is over.
func (s *instanceService) AwaitInstances(req *holdfastv1.AwaitInstancesRequest, stream grpc.ServerStreamingServer[holdfastv1.AwaitInstancesResponse]) error {
	var v violations
	filter := v.instances("filter", req.GetFilter())
	if v.duration("wait", req.GetWait()) && req.GetWait().AsDuration() > MaxInstancesWait {
		v.addf("wait", "is %s; at most %s are allowed", req.GetWait().AsDuration(), MaxInstancesWait)
	}
	if err := v.err(); err != nil {
		return err
	}
	a := &instancesAwait{service: s, req: req, filter: filter, changed: make(chan struct{}, 1)}
	send := func(resp *holdfastv1.AwaitInstancesResponse) error {
		resp.Header = s.reader.header(s.reader.replica.View())
		return stream.Send(resp)
	}
	if req.GetWait().AsDuration() == 0 {
		resp, err := a.recount(stream.Context())
		if err != nil {
			return err
		}
		return send(resp)
	}
	return a.run(stream.Context(), send)
}

// instancesAwait is one wait for the instances of all servers.
type instancesAwait struct {
	service *instanceService
	req     *holdfastv1.AwaitInstancesRequest
	filter  instanceFilter
	changed chan struct{} // holds one

	mu    sync.Mutex
	heard []heard // one for each server
}

// heard is what a server has told last.
type heard struct {
	server string
	counts *peerv1.AwaitInstancesResponse // nil while it cannot be asked
	err    error                          // why; nil while it has not answered yet
}

// errOutdated tells that the members of the cluster are not those who were asked.
var errOutdated = errors.New("the members have changed")

// run asks all servers and tells what they say until all instances obey or the time
// is over. Whenever other servers are members it begins anew.
func (a *instancesAwait) run(ctx context.Context, send func(*holdfastv1.AwaitInstancesResponse) error) error {
	deadline := time.Now().Add(patience(ctx, a.req.GetWait().AsDuration()))
	err := errOutdated
	for errors.Is(err, errOutdated) {
		err = a.among(ctx, deadline, a.service.reader.replica.Members(), send)
	}
	return err
}

// among asks these servers.
func (a *instancesAwait) among(ctx context.Context, deadline time.Time, members []Member, send func(*holdfastv1.AwaitInstancesResponse) error) error {
	a.heard = make([]heard, len(members))
	asking, stop := context.WithCancel(ctx)
	var askers sync.WaitGroup
	defer askers.Wait()
	defer stop()
	for i, m := range members {
		a.heard[i].server = m.ID
		askers.Go(func() { a.ask(asking, i, m) })
	}
	return a.tell(ctx, deadline, send)
}

// tell sends what servers say, in a while what they say when asked anew.
func (a *instancesAwait) tell(ctx context.Context, deadline time.Time, send func(*holdfastv1.AwaitInstancesResponse) error) error {
	within, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	// The first answer waits for all servers, but not for long.
	next := time.NewTimer(askTime)
	defer next.Stop()
	recount, pause := time.NewTimer(recountAfter), recountAfter
	defer recount.Stop()
	for told := (time.Time{}); ; {
		var resp *holdfastv1.AwaitInstancesResponse
		select {
		case <-a.changed:
			resp = a.sum()
			if !resp.GetReached() {
				if !told.IsZero() || a.allHeard() {
					next.Reset(countPause - time.Since(told))
				}
				continue
			}
		case <-next.C:
			resp = a.sum()
		case <-recount.C:
			if a.outdated() {
				return errOutdated
			}
			pause = min(2*pause, longRecount)
			recount.Reset(pause)
			if !a.recountable() {
				continue
			}
			var err error
			if resp, err = a.recount(within); err != nil {
				continue // the time is over
			}
		case <-within.Done():
			if err := ctx.Err(); err != nil {
				return err
			}
			return send(a.sum())
		}
		if resp.GetReached() && a.outdated() {
			return errOutdated
		}
		if err := send(resp); err != nil || resp.GetReached() {
			return err
		}
		told = time.Now()
	}
}

// ask has one server count, again and again while it cannot be asked.
func (a *instancesAwait) ask(ctx context.Context, at int, m Member) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		err := a.listen(ctx, m, func(counts *peerv1.AwaitInstancesResponse) error {
			a.hear(at, counts, nil)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		a.hear(at, nil, err)
		timer.Reset(askAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		for _, now := range a.service.reader.replica.Members() {
			if now.ID == m.ID {
				m = now // it may have another address
			}
		}
	}
}

// listen hears the counts of one server until something breaks.
func (a *instancesAwait) listen(ctx context.Context, m Member, hear func(*peerv1.AwaitInstancesResponse) error) error {
	switch {
	case m.ID == a.service.reader.self:
		return a.service.countHere(ctx, a.filter, a.req.GetRevision(), hear)
	case m.APIAddr == "":
		return errAddrUnknown
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return a.service.peers.call(ctx, m.APIAddr, func(ctx context.Context, peer peerv1.PeerServiceClient) error {
		stream, err := peer.AwaitInstances(ctx, &peerv1.AwaitInstancesRequest{Filter: a.req.GetFilter(), Revision: a.req.GetRevision()})
		for err == nil {
			var counts *peerv1.AwaitInstancesResponse
			if counts, err = stream.Recv(); err == nil {
				err = hear(counts)
			}
		}
		return err
	})
}

// hear keeps what a server said, or why it said nothing.
func (a *instancesAwait) hear(at int, counts *peerv1.AwaitInstancesResponse, err error) {
	a.mu.Lock()
	a.heard[at].counts, a.heard[at].err = counts, err
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// allHeard tells whether every server has answered or is known to be out of reach.
func (a *instancesAwait) allHeard() bool {
	return a.all(func(h heard) bool { return h.counts != nil || h.err != nil })
}

// recountable tells whether counting the instances one by one could come to another
// result: some server may tell of a connection that is gone, and whose instance has
// another now, or was behind when it was asked.
func (a *instancesAwait) recountable() bool {
	return a.all(func(h heard) bool { return h.counts != nil })
}

// outdated tells whether others than those who are asked are the members now.
func (a *instancesAwait) outdated() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !slices.EqualFunc(a.heard, a.service.reader.replica.Members(), func(h heard, m Member) bool { return h.server == m.ID })
}

func (a *instancesAwait) all(is func(heard) bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !slices.ContainsFunc(a.heard, func(h heard) bool { return !is(h) })
}

// sum adds up what the servers have said.
func (a *instancesAwait) sum() *holdfastv1.AwaitInstancesResponse {
	a.mu.Lock()
	defer a.mu.Unlock()
	resp := &holdfastv1.AwaitInstancesResponse{}
	for _, h := range a.heard {
		switch {
		case h.counts != nil:
			resp.Connected += h.counts.GetConnected()
			resp.Obeying += h.counts.GetObeying()
			resp.Impaired += h.counts.GetImpaired()
			resp.Behind = append(resp.Behind, h.counts.GetBehind()...)
			resp.ImpairedInstances = append(resp.ImpairedInstances, h.counts.GetImpairedInstances()...)
		case h.err != nil:
			resp.Unreachable = append(resp.Unreachable, &holdfastv1.UnreachableServer{ServerId: h.server, Error: unreached(h.err)})
		default:
			resp.Unreachable = append(resp.Unreachable, &holdfastv1.UnreachableServer{ServerId: h.server, Error: "it has not answered yet"})
		}
	}
	return finished(resp)
}

// recount counts the instances of all servers one by one, each once.
func (a *instancesAwait) recount(ctx context.Context) (*holdfastv1.AwaitInstancesResponse, error) {
	resp := &holdfastv1.AwaitInstancesResponse{}
	demanded := demand(a.service.reader.replica.View(), a.filter.namespace, a.req.GetRevision())
	var err error
	resp.Unreachable, err = a.service.merged(ctx, &peerv1.ListInstancesRequest{Filter: a.req.GetFilter()}, a.filter, func(i *holdfastv1.Instance) {
		resp.Connected++
		switch {
		case !demanded.MetBy(i.GetEpoch(), i.GetRevision()):
			if len(resp.GetBehind()) < registry.MaxNamed {
				resp.Behind = append(resp.Behind, i)
			}
			return
		case i.GetProblemCount() > 0 || i.GetOverriddenBy() != "":
			resp.Impaired++
			if len(resp.GetImpairedInstances()) < registry.MaxNamed {
				resp.ImpairedInstances = append(resp.ImpairedInstances, i)
			}
		}
		resp.Obeying++
	})
	return finished(resp), err
}

// finished sorts and bounds the names in an answer and says whether it is the last.
func finished(resp *holdfastv1.AwaitInstancesResponse) *holdfastv1.AwaitInstancesResponse {
	resp.Behind = firstOf(resp.GetBehind())
	resp.ImpairedInstances = firstOf(resp.GetImpairedInstances())
	resp.Reached = resp.GetObeying() == resp.GetConnected() && len(resp.GetUnreachable()) == 0
	return resp
}

func firstOf(list []*holdfastv1.Instance) []*holdfastv1.Instance {
	slices.SortFunc(list, func(a, b *holdfastv1.Instance) int { return comparePlaces(placeAt(a), placeAt(b)) })
	return fitting(list[:min(len(list), registry.MaxNamed)])
}

// fitting returns as many of the first instances as fit into a message beside
// everything else, at least one.
func fitting(list []*holdfastv1.Instance) []*holdfastv1.Instance {
	size := 0
	for n, i := range list {
		if size += proto.Size(i); n > 0 && size > namedBytes {
			return list[:n]
		}
	}
	return list
}

// countHere tells how many of the instances connected to this server obey a
// revision, at once and whenever that changes, until ctx ends or hear fails.
func (s *instanceService) countHere(ctx context.Context, filter instanceFilter, revision uint64, hear func(*peerv1.AwaitInstancesResponse) error) error {
	// A server that has not applied the revision yet may ask too much. Whoever waits
	// recounts.
	tally, err := s.registry.Tally(filter.namespace, filter.matches, demand(s.reader.replica.View(), filter.namespace, revision))
	if err != nil {
		return err
	}
	defer tally.Close()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		if err := hear(s.told(tally.Counts())); err != nil {
			return err
		}
		pause.Reset(countPause)
		select {
		case <-tally.Changed():
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-pause.C:
		case <-tally.Reached():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// told returns the wire form of counts.
func (s *instanceService) told(c registry.Counts) *peerv1.AwaitInstancesResponse {
	now := time.Now()
	protos := func(list []*registry.Instance) []*holdfastv1.Instance {
		out := make([]*holdfastv1.Instance, len(list))
		for i, one := range list {
			out[i] = one.Proto(s.reader.self, now)
		}
		return fitting(out)
	}
	return &peerv1.AwaitInstancesResponse{
		Connected: uint32(c.Connected), //nolint:gosec // bounded by MaxSessions
		Obeying:   uint32(c.Obeying),   //nolint:gosec // as above
		Impaired:  uint32(c.Impaired),  //nolint:gosec // as above
		Behind:    protos(c.NotObeying), ImpairedInstances: protos(c.ImpairedOnes),
	}
}
