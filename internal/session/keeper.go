package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

const (
	// maxStreams is one that is silent, and one beside it that may answer sooner.
	maxStreams = 2
	// secondLook is how much later a server that seems to be silent is looked at again: a
	// process that was stopped finds its timers due before it has read what came meanwhile.
	secondLook = 200 * time.Millisecond
)

// keeper is the goroutine that owns a session. It looks for a server while there is none.
// Beside one that has fallen silent it looks for another: the old one may only be slow,
// or its connection may wait for a retransmission that is as far away as the network was
// down for. The first that says something is followed, the other one is left.
type keeper struct {
	session *Session
	backoff backoff
	next    time.Time // when the next attempt may begin
	doubts  bool      // the server that is followed seemed to be silent
	warned  string    // the refusal that was logged last
	ended   chan *stream
}

// run keeps the session until ctx ends, and waits for every stream.
func (k *keeper) run(ctx context.Context) {
	timer := time.NewTimer(k.tend(ctx))
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-timer.C:
		case <-k.session.woken:
		case st := <-k.ended:
			k.bury(ctx, st)
		case <-ctx.Done():
			continue
		}
		timer.Reset(max(k.tend(ctx), time.Millisecond))
	}
	for len(k.running()) > 0 {
		k.bury(ctx, <-k.ended)
	}
}

// running returns the streams. Only the keeper changes them.
func (k *keeper) running() []*stream {
	k.session.mu.Lock()
	defer k.session.mu.Unlock()
	return k.session.streams
}

// tend does what is due and returns when to look again.
func (k *keeper) tend(ctx context.Context) time.Duration {
	wait := k.watch()
	if wait > 0 {
		return wait
	}
	now, pending, running := time.Now(), false, k.running()
	wait = time.Minute
	for _, st := range running {
		rest, waiting := st.rest(now)
		if pending = pending || waiting; rest <= 0 {
			st.cancel(errSilent) // and ends, which is told
			continue
		}
		wait = min(wait, rest)
	}
	switch pause := k.next.Sub(now); {
	case pending || len(running) >= maxStreams:
	case pause > 0:
		wait = min(wait, pause)
	default:
		wait = min(wait, k.attempt(ctx))
	}
	return wait
}

// watch looks at the server that is followed. It returns when to look at it again, 0 if
// there is none.
func (k *keeper) watch() time.Duration {
	s := k.session
	s.mu.Lock()
	st, rest := s.follows, time.Duration(0)
	if st != nil {
		rest = s.patience(st) - time.Since(st.heard)
	}
	s.mu.Unlock()
	switch {
	case st == nil || rest > 0:
		k.doubts = false
		return min(rest, s.config.ProgressInterval) // its patience may shrink
	case !k.doubts:
		k.doubts = true
		return secondLook
	}
	k.doubts = false
	return k.left(st)
}

// left notes that the server that is followed has fallen silent. Its stream goes on: it
// may speak again before another server does. One that has spoken meanwhile stays.
func (k *keeper) left(st *stream) time.Duration {
	s := k.session
	if !s.turn.TryLock() { // the instance is busy with what the server has said
		return secondLook
	}
	defer s.turn.Unlock()
	s.mu.Lock()
	silence := time.Since(st.heard)
	rest := s.patience(st) - silence
	if s.follows == st && rest <= 0 {
		s.follows, st.silent = nil, true
	}
	gone := st.silent
	s.mu.Unlock()
	if !gone {
		return max(rest, time.Millisecond)
	}
	k.lost(st, fmt.Errorf("%w for %v", errSilent, silence.Round(100*time.Millisecond)))
	return 0
}

// attempt begins a stream with the next server, unless the silent one has spoken by now,
// and returns how long that has to answer.
func (k *keeper) attempt(ctx context.Context) time.Duration {
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows != nil {
		return s.config.ProgressInterval
	}
	s.status.Attempts++
	if seam.Bug(seam.TriesCountAsHeard) {
		s.status.Heard = time.Now()
	}
	if seam.Bug(seam.ForgetsOnReconnect) {
		s.held = mirror.New(s.config.Namespace, mirror.Position{})
	}
	st := newStream(s, s.servers.next(), min(connectTimeout, firstConnectTimeout<<min(k.backoff.failures, 2)))
	for _, other := range s.streams {
		if other.addr == st.addr { // it would take this one for another process
			other.drop()
		}
	}
	ctx, st.cancel = context.WithCancelCause(ctx)
	s.streams = append(slices.Clone(s.streams), st)
	go func() {
		defer st.cancel(nil)
		st.err = st.explain(contain(func() error { return st.run(ctx) }))
		k.ended <- st
	}()
	return st.limit
}

// bury notes the end of a stream.
func (k *keeper) bury(ctx context.Context, st *stream) {
	s := k.session
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	s.streams = slices.DeleteFunc(slices.Clone(s.streams), func(o *stream) bool { return o == st })
	if s.follows == st {
		s.follows = nil
	}
	told := st.silent || st.dropped
	if ctx.Err() == nil && mirror.NeedsSnapshot(st.err) && !st.dropped {
		s.needSnapshot()
	}
	s.mu.Unlock()
	if ctx.Err() != nil {
		st.err = nil
	}
	if !told || ctx.Err() != nil {
		k.lost(st, st.err)
	}
}

// needSnapshot makes the next stream begin with a snapshot, unless this one did. The
// caller holds mu.
func (s *Session) needSnapshot() {
	if s.resync = !s.resync; s.resync {
		s.status.Resyncs++
	}
}

// lost notes that a server is not followed any more, or could not be reached, and when to
// try the next one; err is nil when the session itself ends. The caller holds turn.
func (k *keeper) lost(st *stream, err error) {
	s := k.session
	s.mu.Lock()
	was := s.status.Connected
	if was {
		s.status.Connected, s.status.Server, s.status.Since = false, Server{}, time.Now()
	}
	if err != nil {
		s.status.Err = err
	}
	if errors.Is(err, mirror.ErrForeign) {
		s.status.Foreign = err
	}
	s.mu.Unlock()
	if err == nil {
		return
	}
	k.log(st.addr, err, was)
	s.contained(func() { s.config.Handler.Disconnected(st.addr, err) })
	k.next = time.Now().Add(k.backoff.pause(st.lasted(), err))
}

// log warns when a server is lost, when the first attempt fails, and of each new
// refusal; of what follows for the same reason it only tells who debugs.
func (k *keeper) log(addr string, err error, was bool) {
	logger := k.session.config.Logger
	switch refused := hopeless(err); {
	case was:
		logger.Warn("lost the server", "server", addr, "error", err)
	case refused && err.Error() != k.warned:
		k.warned = err.Error()
		if errors.Is(err, mirror.ErrForeign) {
			logger.Error(k.warned, "server", addr) //nolint:sloglint // the words of Status
			return
		}
		logger.Warn("no session; what is held stays in force", "server", addr, "error", err)
	case !refused && k.backoff.failures == 0:
		logger.Warn("cannot reach a server; trying on", "server", addr, "error", err)
	default:
		logger.Debug("cannot reach a server", "server", addr, "error", err)
	}
}

// follow makes a stream, whose server has just said something, the one whose word counts,
// and leaves the others. The caller holds turn.
func (s *Session) follow(st *stream) {
	s.mu.Lock()
	again := st.silent
	alone := !again
	for _, other := range s.streams {
		if other != st {
			alone = false
			if other.silent && !other.dropped {
				s.late.overtaken(s.config.ProgressInterval)
			}
			other.drop()
		}
	}
	s.follows, st.silent = st, false
	s.status.Connected, s.status.Server, s.status.Since, s.status.Foreign = true, st.server, time.Now(), nil
	if !again {
		s.status.Connects++
	}
	s.mu.Unlock()
	s.config.Logger.Info("connected", "server", st.server.Addr, "server_id", st.server.ID)
	s.config.Handler.Connected(st.server)
	if again {
		st.grant(st.granting)
	}
	if !alone { // another stream may have sent what this server has to know
		s.Acknowledge()
		s.SendGossip()
		s.SendEvidence()
	}
	poke(s.woken)
}

// lateness is how much later than they were asked to servers report as a rule, which is no
// sign of silence. One silence that is too long is no rule: the network may have been down.
type lateness struct {
	by      time.Duration
	last    time.Duration // by how much the longest silence of the last interval was too long
	longest time.Duration // silence since then
	since   time.Time
}

// heard takes in how long a server that is followed was silent before it spoke.
func (l *lateness) heard(now time.Time, silence, interval time.Duration) {
	if l.longest = max(l.longest, silence); now.Sub(l.since) < interval {
		return
	}
	before, late := l.last, l.longest-interval
	if l.since, l.longest, l.last = now, 0, late; late < firstSlack {
		l.by /= 2
	}
	l.by = min(max(l.by, 2*min(before, late)), (missed-1)*interval)
}

// overtaken takes in that another server has spoken before the silent one did, of which
// nobody knows how late it would have been.
func (l *lateness) overtaken(interval time.Duration) {
	l.by = min(max(2*l.by, firstSlack), (missed-1)*interval)
}

// patience returns for how long the server that is followed may be silent. One that is in
// the middle of a change sends as fast as the network can. The caller holds mu.
func (s *Session) patience(st *stream) time.Duration {
	longest := st.longest()
	if !st.settled {
		return longest
	}
	return min(s.config.ProgressInterval+st.slack+s.late.by, longest)
}
