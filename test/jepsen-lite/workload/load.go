package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// Config says who is asked, and how much.
type Config struct {
	Servers []Endpoint
	// Dial connects a node (see Nodes) to a server.
	Dial   DialFunc
	Record func(record any)
	Seed   uint64
	// Rate is about how many operations per second all clients do together; 0 means 250.
	// Probe reads come on top, 25 per second and server.
	Rate float64
	// Beats adds writes that are begun at fixed times, 50 per second, whatever became of
	// those before.
	Beats bool
}

const (
	defaultRate = 250
	// attemptLimit is how long clients wait for one answer; hastyLimit is less than what a
	// server takes that waits for a new leader.
	attemptLimit = 2 * time.Second
	hastyLimit   = 300 * time.Millisecond
	patience     = 8 * time.Second
	// onceLimit is how long who never repeats a write waits for its answer: longer than a
	// leader that hears nobody takes to step down, shorter than an election.
	onceLimit   = 400 * time.Millisecond
	deciderPace = 150 * time.Millisecond
	setupLimit  = 20 * time.Second
	// settleRounds is how often servers are asked for the last time, at most.
	settleRounds = 3
)

// Load is a running workload.
type Load struct {
	config    Config
	registers *registers
	links     []*links
	watchers  []*watcher

	stopWriting, stopWatching context.CancelFunc
	writing, watching         sync.WaitGroup
}

// Start defines what is worked on, and starts all clients. Stop ends those that
// write, Settle asks for the last time, Close ends the rest.
func Start(ctx context.Context, config Config) (*Load, error) {
	if config.Rate == 0 {
		config.Rate = defaultRate
	}
	l := &Load{config: config, registers: &registers{}}
	if err := l.prepare(ctx); err != nil {
		l.closeLinks()
		return nil, fmt.Errorf("prepare the workload: %w", err)
	}
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	l.stopWriting, l.stopWatching = stopWriting, stopWatching
	l.startClients(writing)
	for at := range config.Servers {
		p := &prober{server: at, links: l.connect(NodeProbes), registers: l.registers, record: config.Record, random: l.random(100 + at)}
		l.writing.Go(func() { p.run(writing) })
	}
	if config.Beats {
		m := newMetronome(l.connect(NodeProbes), config.Record)
		l.writing.Go(func() { m.run(writing) })
	}
	for i, kind := range watcherKinds() {
		w := &watcher{
			id: fmt.Sprintf("w%d-%s", i+1, kind.name), kind: kind, at: i % len(config.Servers),
			links: l.connect(NodeWatches), record: config.Record, random: l.random(200 + i), hurry: writing.Done(),
		}
		l.watchers = append(l.watchers, w)
		l.watching.Go(func() { w.run(watching) })
	}
	return l, nil
}

func (l *Load) random(who int) *rand.Rand { return rand.New(rand.NewPCG(l.config.Seed, uint64(who))) }

func (l *Load) connect(node string) *links {
	one := newLinks(node, &l.config)
	l.links = append(l.links, one)
	return one
}

// session is a client by name. Half of them are hasty: they repeat a write while the
// attempt before may still be under way.
func (l *Load) session(base, node string, at int, pinned, hasty bool) session {
	s := session{
		base: base, links: l.connect(node), record: l.config.Record, pinned: pinned, at: at, attempt: attemptLimit, patient: patience,
	}
	if hasty {
		s.attempt = hastyLimit
	}
	return s
}

// startClients starts four clients that stay with each server, two of which take the
// first answer for an answer; four that roam, one of which loses the first answer to
// each write; and those that decide for instances.
func (l *Load) startClients(ctx context.Context) {
	var sessions []session
	for at, server := range l.config.Servers {
		for _, hasty := range []bool{false, true} {
			sessions = append(sessions, l.session(fmt.Sprintf("pinned-%s-%d", server.ID, len(sessions)), NodePinned, at, true, hasty))
		}
	}
	for i := range 4 {
		s := l.session(fmt.Sprintf("roaming-%d", i), NodeRoaming, i%len(l.config.Servers), false, i%2 == 0)
		if i == 0 {
			s.deaf = 1
		}
		sessions = append(sessions, s)
	}
	for i := range 2 * len(l.config.Servers) {
		s := l.session(fmt.Sprintf("once-%d", i), NodePinned, i%len(l.config.Servers), true, false)
		s.attempt, s.patient = onceLimit, 0
		sessions = append(sessions, s)
	}
	pace := time.Duration(float64(len(sessions)) / l.config.Rate * float64(time.Second))
	for i, s := range sessions {
		c := &registerClient{session: s, registers: l.registers, random: l.random(i), pace: pace, known: make(map[string]uint64)}
		l.writing.Go(func() { c.run(ctx) })
	}
	d := &decider{session: l.session("decider", NodeRoaming, 0, false, false), random: l.random(50), pace: deciderPace}
	l.writing.Go(func() { d.run(ctx) })
	m := &modeClient{session: l.session("operator", NodeRoaming, 1, false, false), random: l.random(70)}
	l.writing.Go(func() { m.run(ctx) })
}

// prepare writes what everybody expects to be there.
func (l *Load) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	s := l.session("setup", NodeRoaming, 0, false, false)
	d := &decider{session: s, random: l.random(60)}
	for _, key := range DecisionKeys() {
		cell := history.Cell{Key: key, Value: d.value()}
		if op := d.write(ctx, history.Op{F: history.Put, Cells: []history.Cell{cell}}, "set up", put(key, cell.Value)); op.Outcome != history.OK {
			return fmt.Errorf("define the flag %s: %s %s", key, op.Outcome, op.Code)
		}
	}
	// The mode and the policy are no registers, and nobody is to look for them there.
	silent := s
	silent.record = func(any) {}
	mode := &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_MODE, Name: Mode}, Spec: modeSpec(),
	}}}
	if op := silent.write(ctx, history.Op{F: history.Put}, "set up", mode); op.Outcome != history.OK {
		return fmt.Errorf("define the mode: %s %s", op.Outcome, op.Code)
	}
	policy := &holdfastv1.Operation{Action: &holdfastv1.Operation_Put{Put: &holdfastv1.Put{
		Key: &holdfastv1.ResourceKey{Kind: holdfastv1.Kind_KIND_POLICY, Name: Dependency}, Spec: []byte(policySpec),
	}}}
	if op := silent.write(ctx, history.Op{F: history.Put}, "set up", policy); op.Outcome != history.OK {
		return fmt.Errorf("define the policy: %s %s", op.Outcome, op.Code)
	}
	if op := d.together(ctx); op.Outcome != history.OK {
		return fmt.Errorf("define the pair: %s %s", op.Outcome, op.Code)
	}
	return nil
}

// Stop ends the clients that write and the probes, and waits for them.
func (l *Load) Stop() {
	l.stopWriting()
	l.writing.Wait()
}

// Settle asks every server for everything, and every watcher for what it has once it
// has caught up with the servers. It is called after Stop, and returns how far the
// servers have come.
func (l *Load) Settle(ctx context.Context) history.Place {
	links := l.connect(NodeProbes)
	var asked sync.WaitGroup
	ends := make([]history.End, len(l.config.Servers))
	var newest history.Place
	// What ends by itself, such as an override, may come between two answers. Who
	// answered before it is asked again.
	for range settleRounds {
		for at := range ends {
			if end := &ends[at]; end.Err == "" && (end.ID == "" || placeOf(end).Before(newest)) {
				asked.Go(func() { *end = l.last(ctx, links, at) })
			}
		}
		asked.Wait()
		for at := range ends {
			if place := placeOf(&ends[at]); newest.Before(place) {
				newest = place
			}
		}
	}
	for _, end := range ends {
		l.config.Record(end)
	}
	for _, w := range l.watchers {
		asked.Go(func() { l.config.Record(w.last(ctx, newest)) })
	}
	asked.Wait()
	return newest
}

func placeOf(end *history.End) history.Place {
	return history.Place{Epoch: end.Epoch, Revision: end.Revision}
}

// last reads everything from one server until it answers.
func (l *Load) last(ctx context.Context, links *links, at int) history.End {
	end := history.End{Who: history.WhoServer, ID: l.config.Servers[at].ID}
	for {
		err := readAll(ctx, links, at, &end)
		end.T = history.Now()
		if err == nil {
			end.Err = ""
			return end
		}
		if end.Err = err.Error(); ctx.Err() != nil {
			return end
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// readAll reads all flags. Pages may be of different revisions, so that it begins
// again if they are.
func readAll(ctx context.Context, links *links, at int, end *history.End) error {
	state, conn, err := links.state(at)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	request := &holdfastv1.ListRequest{
		Kind: holdfastv1.Kind_KIND_FLAG, PageSize: 1000,
		Read: &holdfastv1.ReadOptions{Consistency: holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE},
	}
	end.Cells, end.Complete = nil, true
	for page := 0; ; page++ {
		response, err := state.List(ctx, request)
		if err != nil {
			if explain(err).silent {
				links.renew(at, conn)
			}
			return err //nolint:wrapcheck // the message of the API says enough
		}
		place := history.Place{Epoch: response.GetHeader().GetEpoch().GetCounter(), Revision: response.GetHeader().GetRevision()}
		if page > 0 && place != placeOf(end) {
			return errors.New("the state changed between two pages")
		}
		end.Epoch, end.Revision = place.Epoch, place.Revision
		for _, r := range response.GetResources() {
			end.Cells = append(end.Cells, cellOf(r))
		}
		if request.PageToken = response.GetNextPageToken(); request.PageToken == "" {
			return nil
		}
	}
}

func cellOf(r *holdfastv1.Resource) history.Cell {
	return history.Cell{Key: cellKey(r.GetKey()), Value: valueOf(r.GetSpec()), Revision: r.GetModRevision()}
}

// Close ends what Stop has left.
func (l *Load) Close() {
	l.Stop()
	l.stopWatching()
	l.closeLinks()
	l.watching.Wait()
}

func (l *Load) closeLinks() {
	for _, one := range l.links {
		one.close()
	}
}
