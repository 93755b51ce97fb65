package session

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

// Session keeps an instance up to date. Its methods may be called concurrently, also
// by the handler, but for Close.
type Session struct {
	config  Config
	clock   *clock.Clock
	options []grpc.DialOption
	disk    *disk // nil without a directory
	stop    context.CancelFunc
	done    chan struct{} // closed when every goroutine has ended
	woken   chan struct{} // tells that another stream is followed
	acks    chan struct{} // tells that there is something to acknowledge
	gossips chan struct{} // tells that the instance takes part in gossip in another way
	records chan struct{} // tells that it has another record

	// turn is held by whoever changes what is held or who is followed, or calls the
	// handler but for Report: a stream, the keeper, or who offers what a peer has. It
	// comes before mu.
	turn  sync.Mutex
	trust mirror.Trust // as the disk had it when the session was opened

	mu      sync.Mutex
	held    *mirror.Mirror
	time    mirror.Clock // estimates state time
	status  Status
	servers rotation
	resync  bool      // what is held does not fit: a snapshot is needed
	streams []*stream // those that run, the oldest first
	follows *stream   // the one whose word counts; nil while there is none
	late    lateness
}

// Open makes a session. What the disk holds has been installed when it returns; a
// server is waited for in the background. It fails only for a configuration that
// cannot work. Close has to be called.
func Open(config Config) (*Session, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	s := &Session{
		config: config, clock: clock.New(), options: dialOptions(&config),
		done: make(chan struct{}), woken: make(chan struct{}, 1), acks: make(chan struct{}, 1), gossips: make(chan struct{}, 1), records: make(chan struct{}, 1),
		servers: rotation{configured: config.Servers},
		held:    mirror.New(config.Namespace, mirror.Position{}),
		status:  Status{Source: Defaults, Since: time.Now()},
	}
	if config.Dir != "" {
		s.disk = openDisk(config.Dir, config.Namespace, config.Logger)
		s.restore()
		s.trust = s.disk.loadTrust()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go s.live(ctx)
	return s, nil
}

// Close ends the session: the stream, the last write to the disk, every goroutine.
// It returns an error when ctx ends before they have; they end by themselves then.
// It may be called again.
func (s *Session) Close(ctx context.Context) error {
	s.stop()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close session: not everything has ended yet: %w", context.Cause(ctx))
	}
}

// Mirror returns what is held.
func (s *Session) Mirror() *mirror.Mirror {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// StateTime returns the state time now, in milliseconds since 1970; 0 if it is not
// known.
func (s *Session) StateTime() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time.At(s.clock.Now())
}

// Acknowledge tells the server what Handler.Report says. It is for a report that has
// changed without an Install.
func (s *Session) Acknowledge() {
	poke(s.acks)
}

// Status returns how the session is doing.
func (s *Session) Status() Status {
	s.mu.Lock()
	status, held := s.status, s.held
	s.mu.Unlock()
	status.Position, status.Root, status.Disk = held.Position(), held.Root(), s.disk.failure()
	return status
}

// restore installs what the disk holds.
func (s *Session) restore() {
	m, now, silence := s.disk.load(s.clock.Wall().UnixMilli())
	if !m.Position().Set() || seam.Bug(seam.DiskIgnored) {
		s.held = m
		return
	}
	s.status.Heard = time.Now().Add(-silence)
	var clock mirror.Clock
	if now > 0 {
		clock = mirror.Guess(now, s.clock.Now())
	}
	err := contain(func() error {
		s.install(m, Change{Update: m.Whole(), Source: Disk, StateTime: now}, clock)
		return nil
	})
	if err != nil {
		s.config.Logger.Error("the view on disk cannot be installed", "error", err)
		s.held = mirror.New(s.config.Namespace, m.Floor())
	}
}

// live runs the session until ctx ends.
func (s *Session) live(ctx context.Context) {
	defer close(s.done)
	if s.disk != nil {
		writing, stop := context.WithCancel(context.Background())
		var writer sync.WaitGroup
		writer.Go(func() { s.disk.run(writing, s.saved) })
		defer writer.Wait()
		defer stop()
	}
	k := keeper{session: s, ended: make(chan *stream)}
	k.run(ctx)
}

// saved returns what goes to the disk.
func (s *Session) saved() (*mirror.Mirror, mirror.Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wall := s.clock.Wall()
	mark := mirror.Mark{
		Position: s.held.Position(), Root: s.held.Root(),
		Stamp: mirror.Stamp{Wall: wall.UnixMilli(), State: s.time.At(s.clock.Now())},
	}
	if !s.status.Heard.IsZero() {
		mark.Heard = max(0, wall.Add(-time.Since(s.status.Heard)).UnixMilli())
	}
	return s.held, mark
}

// apply takes an update in. Native tells that it comes from a server that has told
// of the lineage held: one with another lineage follows a restore there.
func (s *Session) apply(u mirror.Update, native bool, clock mirror.Clock) error {
	held := s.Mirror()
	next, err := held.Apply(u)
	if errors.Is(err, mirror.ErrForeign) && native && u.Replace {
		s.config.Logger.Warn("the cluster goes on with a backup of another one", "was", held.Position(), "is", u.Position())
		next, err = mirror.New(s.config.Namespace, mirror.Position{}).Apply(u)
	}
	if err != nil {
		return err //nolint:wrapcheck // says everything
	}
	if u.Replace {
		s.mu.Lock()
		s.resync = false
		s.mu.Unlock()
	} else if next.Position() == held.Position() && s.Status().Source == FromServer {
		return nil
	}
	s.install(next, Change{Update: u, Source: FromServer, StateTime: clock.At(s.clock.Now())}, clock)
	return nil
}

// install hands a change to the handler, and tells the server and the disk.
func (s *Session) install(next *mirror.Mirror, c Change, clock mirror.Clock) {
	s.config.Handler.Install(c)
	s.mu.Lock()
	s.held, s.time, s.status.Source = next, clock, c.Source
	s.mu.Unlock()
	s.Acknowledge()
	if s.disk != nil && c.Source != Disk {
		s.disk.changed()
	}
}

// errPanic tells of a bug in what was called.
var errPanic = errors.New("panic")

// contain runs f and makes an error of a panic.
func contain(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
		}
	}()
	return f()
}

// contained runs f and logs a panic.
func (s *Session) contained(f func()) {
	if err := contain(func() error { f(); return nil }); err != nil {
		s.config.Logger.Error("the handler failed", "error", err)
	}
}

// sleep waits until the time is over or ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
