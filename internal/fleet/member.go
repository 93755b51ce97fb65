package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

const (
	// shortestStep is the least time between two looks: news that come together are
	// looked at once. A quorum takes longer to settle than that.
	shortestStep = 20 * time.Millisecond
	// watchStep is how often the own breakers are looked at while one of them, or a
	// verdict, is not plainly well: what they forget they forget without a word.
	watchStep = time.Second
	// panicPause is how long a member rests after a bug in it.
	panicPause = 10 * time.Second
)

// MemberConfig says what a Member is made of. Guard, Store, Clock and Key are
// required.
type MemberConfig struct {
	Guard *guard.Guard
	Store *Store
	Clock *clock.Clock
	// Key signs the instance's records.
	Key *trust.Key
	// Incarnation grows with each start of an instance with this id.
	Incarnation uint64
	// Seed decides polite pauses; instances need different ones.
	Seed uint64
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
	// OnEvent, if not nil, is told when a verdict changes, by the member's goroutine.
	// It must not block.
	OnEvent func(Event)
	// Spread, if not nil, is called when the instance's own record, whose key is its
	// id, is to travel: because there is news, or because it must not become too old.
	// It must not block.
	Spread Spread
	// Vitals, if not nil, tells how the pool is. It must not block.
	Vitals func() Vitals
}

// Spread lets the record of an instance travel.
type Spread func(id string, news bool)

// Vitals is how the pool seems to be, by which an instance comes to doubt itself.
type Vitals struct {
	// Health is the library's doubt about this process; 0 is well.
	Health int
	// Members are alive, Left said farewell, since the pool began.
	Members int
	Left    uint64
	// Heard is how long ago something came in.
	Heard time.Duration
}

// Member is an instance's part in the fleet's health. It tells the others what the
// breakers of a guard see, lets them heed what the others see, and agrees with them on
// who probes. One goroutine of its own does all of it; it sleeps while all is well.
// Its methods may be called at the same time.
type Member struct {
	config MemberConfig
	wake   chan struct{} // holds one token
	stop   context.CancelFunc
	done   sync.WaitGroup
	spread atomic.Pointer[Spread]
	counts memberCounts

	credential atomic.Pointer[credential] // nil before the first
	shown      atomic.Pointer[[]Verdict]  // what Verdicts returns

	// Of the goroutine.
	random    *rand.Rand
	standings map[string]*standing
	doubter   health.Doubter
	doubt     health.Doubt
	voice     voice
}

// credential is a certificate in both its shapes.
type credential struct {
	bytes []byte
	is    trust.Certificate
}

// NewMember returns a member that does nothing before Start.
func NewMember(config MemberConfig) *Member {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Member{
		config: config, wake: make(chan struct{}, 1), standings: map[string]*standing{},
		random: rand.New(rand.NewPCG(config.Seed, config.Incarnation)), //nolint:gosec // it only spreads pauses
	}
	m.voice.incarnation = config.Incarnation
	m.shown.Store(&[]Verdict{})
	m.SetSpread(config.Spread)
	return m
}

// SetSpread tells how the instance's own record travels from now on; nil for not at
// all.
func (m *Member) SetSpread(spread Spread) { m.spread.Store(&spread) }

// SetCertificate tells under which certificate the instance speaks from now on. Before
// the first one it listens only.
func (m *Member) SetCertificate(b []byte) error {
	c, err := trust.ReadCertificate(b)
	if err != nil {
		return fmt.Errorf("take the certificate of the instance: %w", err)
	}
	if !c.PublicKey.Equal(m.config.Key.Public()) {
		return fmt.Errorf("take the certificate of the instance: %w: it is for another key", trust.ErrMalformed)
	}
	m.credential.Store(&credential{b, c})
	m.Wake()
	return nil
}

// Start begins. Close has to be called.
func (m *Member) Start() {
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.done.Go(func() { m.run(ctx) })
}

// Close tells the others that the instance leaves, lets go of what was done to
// breakers because of them, and waits for the goroutine. One that has not been started
// has nothing to close.
func (m *Member) Close() {
	if m.stop == nil {
		return
	}
	m.stop()
	m.done.Wait()
}

// Wake has the member look at everything soon. It does not block.
func (m *Member) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Suspect tells that something happened to a dependency: it is what OnSuspicion of a
// guard calls.
func (m *Member) Suspect(*guard.Dependency) { m.Wake() }

// run looks whenever it is woken, and by a timer while there is reason to.
func (m *Member) run(ctx context.Context) {
	defer m.contained(m.leave)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.wake:
		}
		pause, next := panicPause, panicPause
		m.contained(func() { next, pause = m.step(), shortestStep })
		if next > 0 {
			timer.Reset(max(next, shortestStep))
		} else {
			timer.Stop()
		}
		rest(ctx, pause)
	}
}

// rest waits until the time is over or ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// contained runs f and logs a panic: the host's process is not ours to end.
func (m *Member) contained(f func()) {
	defer func() {
		if p := recover(); p != nil {
			defer func() { _ = recover() }() // of the logger itself
			m.counts.panics.Add(1)
			m.config.Logger.Error("fleet health failed; breakers go on by themselves", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
}
