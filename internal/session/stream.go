package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/seam"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// firstConnectTimeout is how long a server may take to answer at all. It doubles with
	// each failure to connectTimeout: who has three servers of which two swallow what
	// they are sent finds the third one within 5 s.
	firstConnectTimeout = 1500 * time.Millisecond
	connectTimeout      = 5 * time.Second
	// farewell is how long a server may take to hear the last words of a session that ends.
	farewell = 200 * time.Millisecond
	// missed is how many reports of progress may be missing before a silent stream ends.
	missed = 3
	// firstSlack is how late a report may be before another server is looked for, and as
	// much again, at random: instances that a server falls silent to at the same moment
	// do not all turn to the others in the same moment.
	firstSlack = time.Second
)

var (
	// errSilent ends a stream on which nothing comes.
	errSilent = errors.New("the server said nothing")
	// errNoWelcome ends a stream whose server tells of changes before it says who it is.
	errNoWelcome = errors.New("the server has not said who it is")
)

// stream is one connection to one server, and the goroutine that uses it.
type stream struct {
	session   *Session
	addr      string
	limit     time.Duration // how long the server may take to answer
	slack     time.Duration
	assembler *mirror.Assembler
	cancel    context.CancelCauseFunc
	err       error // why it ended, once it has

	// Of the stream's goroutine.
	server   Server
	told     document.Epoch
	native   bool                       // the server has told of the lineage that is held
	granting *holdfastv1.GossipSettings // the last ones; nil for none
	granted  atomic.Bool                // the instance's records are taken

	// Guarded by the session's mu.
	heard    time.Time // when the server said something last; at first, when the stream began
	answered time.Time // when the server was known to be there; zero before
	settled  bool      // the server has told all that it had to
	silent   bool      // it was followed, until it was silent for too long
	dropped  bool      // another stream is followed instead: nothing it says counts
}

// message is what a server sends, over Connect or over Watch.
type message interface {
	mirror.Message
	GetStateTime() *timestamppb.Timestamp
}

func newStream(s *Session, addr string, limit time.Duration) *stream {
	return &stream{
		session: s, addr: addr, limit: limit, slack: firstSlack + rand.N(firstSlack), assembler: mirror.NewAssembler(s.config.Namespace), heard: time.Now(),
	}
}

// longest returns for how long a server that has answered may be silent before its stream
// ends.
func (st *stream) longest() time.Duration {
	return max(missed*st.session.config.ProgressInterval, connectTimeout)
}

// rest returns how much longer a stream that is not followed may last, and whether an
// answer is still to be waited for.
func (st *stream) rest(now time.Time) (rest time.Duration, waiting bool) {
	st.session.mu.Lock()
	defer st.session.mu.Unlock()
	switch {
	case st.dropped:
		return time.Minute, false // it ends by itself
	case st.answered.IsZero():
		return st.limit - now.Sub(st.heard), true
	default:
		return st.longest() - now.Sub(st.heard), false
	}
}

// drop ends a stream in favour of another one. The caller holds mu.
func (st *stream) drop() {
	st.dropped = true
	st.cancel(errSilent)
}

// lasted returns how long the server has been there.
func (st *stream) lasted() time.Duration {
	st.session.mu.Lock()
	defer st.session.mu.Unlock()
	if st.answered.IsZero() {
		return 0
	}
	return time.Since(st.answered)
}

// run follows the server until the stream ends, which is always an error.
func (st *stream) run(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+st.addr, st.session.options...)
	if err != nil {
		return fmt.Errorf("the address %q cannot be used: %w", st.addr, err)
	}
	if !seam.Bug(seam.ConnectionsLeft) {
		defer func() { _ = conn.Close() }()
	}
	err = st.connect(ctx, conn)
	if status.Code(err) == codes.Unimplemented && st.lasted() == 0 {
		err = st.watch(ctx, conn)
	}
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return fmt.Errorf("%w for too long: %w", cause, err)
	}
	return err
}

// connect speaks with a server of this version.
func (st *stream) connect(ctx context.Context, conn *grpc.ClientConn) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	streaming, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	early := context.AfterFunc(ctx, end)
	stream, err := holdfastv1.NewSessionServiceClient(conn).Connect(streaming)
	if err != nil {
		return err
	}
	if err := stream.Send(st.session.hello()); err != nil && !errors.Is(err, io.EOF) {
		return err // of a stream that has ended, Recv tells why
	}
	if early() {
		lingered := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(lingered)
			st.linger(ctx, streaming)
			end()
		})
		defer func() {
			if end(); !stop() {
				<-lingered
			}
		}()
		beside.Go(func() { st.send(ctx, stream) })
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if ctx.Err() != nil { // only the server's end is waited for
			continue
		}
		if err := st.handle(m); err != nil {
			return err
		}
	}
}

// linger is what a session that ends waits for before its stream ends: where records
// travel over it, that the server has ended it because nothing follows, for a while. A
// server that is silent is not waited for.
func (st *stream) linger(ctx, streaming context.Context) {
	if st.granted.Load() && !errors.Is(context.Cause(ctx), errSilent) {
		sleep(streaming, farewell)
	}
}

// handle does what a message of a server of this version says.
func (st *stream) handle(m *holdfastv1.ConnectResponse) error {
	s := st.session
	s.turn.Lock()
	defer s.turn.Unlock()
	if w := m.GetWelcome(); w != nil {
		if err := st.answer(m, Server{Addr: st.addr, ID: w.GetServerId()}); err != nil {
			return err
		}
		s.mu.Lock()
		s.servers.learn(w.GetServers())
		s.mu.Unlock()
	}
	if err := st.speaks(); err != nil {
		return err
	}
	st.gossip(m)
	if err := st.take(m); err != nil {
		return err
	}
	st.heads(m)
	return nil
}

// watch follows a server of the previous version.
func (st *stream) watch(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := holdfastv1.NewStateServiceClient(conn).Watch(ctx, st.session.watchRequest())
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := st.handlePrevious(m); err != nil {
			return err
		}
	}
}

// handlePrevious does what a message of a server of the previous version says.
func (st *stream) handlePrevious(m message) error {
	st.session.turn.Lock()
	defer st.session.turn.Unlock()
	if err := st.answer(m, Server{Addr: st.addr, Previous: true}); err != nil {
		return err
	}
	if err := st.speaks(); err != nil {
		return err
	}
	return st.take(m)
}

// answer notes that the server is there, once. One of another cluster is left at
// once: it tells nothing that counts here.
func (st *stream) answer(m message, server Server) error {
	s := st.session
	if st.server != (Server{}) {
		return nil
	}
	epoch, err := document.EpochFromProto(m.GetEpoch())
	if err != nil {
		return fmt.Errorf("%w: %w", mirror.ErrMalformed, err)
	}
	st.told = epoch
	if known := s.Mirror().Floor(); known.Set() && epoch.HasLineage() && epoch.Lineage != known.Epoch.Lineage {
		return mirror.ErrForeign
	}
	s.mu.Lock()
	st.server, st.answered = server, time.Now()
	s.mu.Unlock()
	return nil
}

// speaks makes a stream the one that is followed, if none is. The error is for what must
// not count: another stream is followed, or the server has not said who it is.
func (st *stream) speaks() error {
	s := st.session
	s.mu.Lock()
	followed, dropped := s.follows == st, st.dropped
	s.mu.Unlock()
	switch {
	case dropped:
		return errSilent
	case st.server == (Server{}):
		return errNoWelcome
	case !followed:
		s.follow(st)
	}
	return nil
}

// take takes in one message.
func (st *stream) take(m message) error {
	s := st.session
	s.mu.Lock()
	if now := time.Now(); st.settled {
		s.late.heard(now, now.Sub(st.heard), s.config.ProgressInterval)
	}
	s.mu.Unlock()
	clock, err := s.heard(m)
	if err != nil {
		return err
	}
	u, done, err := st.assembler.Take(m)
	if err != nil {
		return err //nolint:wrapcheck // says everything
	}
	if done {
		st.told = u.Epoch
		err = s.apply(u, st.native, clock)
		st.native = err == nil
	}
	s.mu.Lock()
	st.heard = time.Now() // the time that the handler took is not the server's
	st.settled = done || st.settled && m.GetSnapshot() == nil && m.GetDelta() == nil
	s.mu.Unlock()
	return err
}

// heard notes that a server spoke and returns the clock that its message leaves. If
// the message is of the epoch held, that one is in force already; what another epoch
// tells, or any while nothing is held, counts once the epoch is installed.
func (s *Session) heard(m message) (mirror.Clock, error) {
	epoch, err := document.EpochFromProto(m.GetEpoch())
	if err != nil {
		return mirror.Clock{}, fmt.Errorf("%w: %w", mirror.ErrMalformed, err)
	}
	mono, told := s.clock.Now(), m.GetStateTime()
	s.mu.Lock()
	s.status.Heard = time.Now()
	was, held := s.time, s.held
	at := held.Position()
	own := at.Set() && at.Epoch == epoch
	if !own {
		was = mirror.Clock{}
	}
	is, back := was, false
	if told.IsValid() {
		is, back = was.Observe(told.AsTime().UnixMilli(), mono)
	}
	if own {
		s.time = is
	}
	s.mu.Unlock()
	switch now := is.At(mono); {
	case !own:
	case back:
		s.config.Logger.Warn("the state time on disk was too late: ends of overrides are looked at again", "by_ms", was.At(mono)-now)
		s.install(held, Change{Update: held.Whole(), Source: s.Status().Source, StateTime: now}, is)
	case now != was.At(mono):
		s.config.Handler.StateTime(now)
	}
	return is, nil
}
