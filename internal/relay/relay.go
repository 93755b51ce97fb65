package relay

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/pace"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// firstPatience and lastPatience bound the time from the loss of the last server to
	// the first question to a peer, drawn at random: most sessions are back before.
	firstPatience = 2 * time.Second
	lastPatience  = 5 * time.Second
	// spacing is the least time between two heads with the same root, and between two
	// timestamps, that are passed on. Every member gets others from its server.
	spacing = 30 * time.Second
	// keptMirrors is how many documents of before are kept, to tell members that have
	// one of them what changed since. They share what they have in common.
	keptMirrors = 8
)

// Holder is what has the document: a session.
type Holder interface {
	// Mirror returns what is held.
	Mirror() *mirror.Mirror
	// Offer installs an update that is of the signed root; see session.Session.Offer.
	Offer(u mirror.Update, stateTime int64) error
	// NotBefore tells of a signed state time.
	NotBefore(epoch document.Epoch, stateTime int64)
	// StateTime returns the state time now in milliseconds since 1970; 0 if it is not
	// known.
	StateTime() int64
}

// Config says what a Relay is made of. Namespace is required.
type Config struct {
	Namespace string
	// Key signs questions; nil asks nobody.
	Key *trust.Key
	// OnSigners is told of each set of signers that takes the place of another one, by a
	// server's word or by a peer's. It is called under no lock, one at a time, and must
	// not block. It may be nil.
	OnSigners func(*trust.Signers)
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
}

// Relay is one instance's part in the relay of one namespace. Its methods may be
// called concurrently, also before Start. Close has to be called.
type Relay struct {
	config Config
	log    *slog.Logger
	stop   context.CancelFunc
	ended  sync.WaitGroup
	wake   chan struct{} // holds at most one token

	answers             chan answer // holds at most the one to the question under way
	gossiped, questions pace.Bucket // of signatures to verify

	mu          sync.Mutex
	holder      Holder // nil before Start, and on a server
	pool        *link  // nil while there is none
	signers     *trust.Signers
	known       map[[sha256.Size]byte]any // what these have signed
	told        *trust.Signers            // of which OnSigners was told
	certificate []byte
	newest      *signedHead
	adopted     time.Time              // when newest took the place of another one
	spoiled     mirror.Position        // of the head that came with a wrong change
	stamp       *holdfastv1.SignedHead // the timestamp that is passed on
	stampTime   trust.Timestamp
	newestTime  trust.Timestamp // of whatever way it came
	freshAt     int64
	freshEpoch  document.Epoch
	unknown     []byte           // the last head of an unknown signer, to be looked at again
	kept        []*mirror.Mirror // with different roots, the newest last
	connected   bool
	patience    time.Time          // when peers may be asked
	giveUp      context.CancelFunc // ends the transfer under way
	asked       question           // the one under way
	askedOf     string             // the member; empty for none
	leases      map[uint64]*lease
	served      []customer // the newest last
	source      string     // the member that what is held came from; empty if from none

	counts counts
}

// link is a pool as the relay uses it.
type link struct {
	name    string
	members func() []gossip.Member
	send    func(ctx context.Context, member, kind string, b []byte) error
	spread  func(key string)
	budget  int // bytes of a record
}

// counts are those of Metrics.
type counts struct {
	heads, deltas, documents, served, busy, refused, forged, poisoned, silent, malformed, overloaded atomic.Uint64
}

// Metrics are totals.
type Metrics struct {
	// Heads counts the heads that were newer than those before, Deltas and Documents
	// what was installed from peers: with the head, or after a question.
	Heads, Deltas, Documents uint64
	// Served counts the documents that peers got whole, Busy the questions for which
	// there was no time, Refused those that were not properly signed.
	Served, Busy, Refused uint64
	// Forged counts records with a signature that is wrong or of an unknown signer,
	// Poisoned documents that were not what the head says, Silent members that did not
	// answer, Malformed what could not be read, Overloaded what was dropped because
	// there was too much to verify.
	Forged, Poisoned, Silent, Malformed, Overloaded uint64
}

// Status is how the relay is doing.
type Status struct {
	// Head is the newest place in the history that a signed head tells of; not set while
	// none does. What is held may be behind it.
	Head mirror.Position
	// FreshAt is the last state time, in milliseconds since 1970, at which what is held
	// is known to have been the newest; 0 if that is not known.
	FreshAt int64
	// Peer is the member that what is held came from; empty if from none.
	Peer string
}

// New returns a relay that does nothing yet but to take in what it is told.
func New(config Config) *Relay {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Relay{
		config: config, log: config.Logger, stop: func() {}, wake: make(chan struct{}, 1),
		answers:  make(chan answer, 1),
		patience: time.Now().Add(patience()), leases: map[uint64]*lease{},
	}
}

// Start has the relay work for who holds the document: nil on a server, which spreads
// heads, and answers questions only over its API. It is called once.
func (r *Relay) Start(h Holder) {
	ctx, stop := context.WithCancel(context.Background())
	r.mu.Lock()
	r.holder, r.stop = h, stop
	r.mu.Unlock()
	r.ended.Go(func() { r.live(ctx) })
}

// Attach lets the relay travel in a pool that is not started, in the place of any
// before; nil for none.
func (r *Relay) Attach(p *gossip.Pool) {
	var to *link
	if p != nil {
		c := p.AddRecords(channel, r)
		p.Handle(askKind, r.serve)
		p.Handle(tellKind, r.take)
		to = &link{name: p.Name(), members: p.Members, send: p.Send, spread: c.Spread, budget: c.Budget()}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pool = to
	r.look()
}

// Close ends the relay and waits for its goroutines.
func (r *Relay) Close() {
	r.mu.Lock()
	r.stop()
	r.pool = nil
	r.mu.Unlock()
	r.ended.Wait()
}

func patience() time.Duration { return firstPatience + rand.N(lastPatience-firstPatience) }

// Connected tells whether a server is connected. Without a call none is.
func (r *Relay) Connected(now bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.connected && !now {
		r.patience = time.Now().Add(patience())
	}
	if r.connected = now; now && r.giveUp != nil {
		r.giveUp()
	}
	r.look()
}

// TrustServer takes the set of signers that a server gave, which is believed: it is
// who decides. The error is ErrMalformed, ErrSignature or ErrStale of package trust.
func (r *Relay) TrustServer(signers []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, err := r.signers.Replace(signers)
	if err != nil {
		return err //nolint:wrapcheck // says everything
	}
	r.replaceSigners(next)
	return nil
}

// SetCertificate sets the certificate of the own key.
func (r *Relay) SetCertificate(certificate []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certificate = certificate
	r.look()
}

// Status returns how the relay is doing.
func (r *Relay) Status() Status {
	var at mirror.Position
	if held := r.held(); held != nil {
		at = held.Position()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freshen(at)
	s := Status{Peer: r.source}
	if r.freshEpoch == at.Epoch {
		s.FreshAt = r.freshAt
	}
	if r.newest != nil {
		s.Head = positionOf(&r.newest.head)
	}
	return s
}

// Metrics returns the totals.
func (r *Relay) Metrics() Metrics {
	c := &r.counts
	return Metrics{
		Heads: c.heads.Load(), Deltas: c.deltas.Load(), Documents: c.documents.Load(),
		Served: c.served.Load(), Busy: c.busy.Load(), Refused: c.refused.Load(),
		Forged: c.forged.Load(), Poisoned: c.poisoned.Load(), Silent: c.silent.Load(), Malformed: c.malformed.Load(),
		Overloaded: c.overloaded.Load(),
	}
}

// look lets the loop look again.
func (r *Relay) look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// spread passes a record on, if there is a pool. The caller holds mu.
func (r *Relay) spread(key string) {
	if r.pool != nil {
		r.pool.spread(key)
	}
}

// held returns what is held; nil where nobody holds anything. The caller does not hold
// mu.
func (r *Relay) held() *mirror.Mirror {
	if h := r.holding(); h != nil {
		return h.Mirror()
	}
	return nil
}

func (r *Relay) holding() Holder {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holder
}

func positionOf(h *trust.Head) mirror.Position {
	return mirror.Position{Epoch: h.Epoch, Revision: h.Revision}
}

// live does what there is to do until ctx ends.
func (r *Relay) live(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var s seeker
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		next := panicPause
		r.contained(func() {
			r.tellSigners()
			r.tellTime()
			r.Status() // notes how fresh what is held is
			next = s.follow(ctx, r)
		})
		timer.Reset(next)
	}
}

// contained runs f and logs a panic: the host's process is not ours to end.
func (r *Relay) contained(f func()) {
	defer func() {
		if v := recover(); v != nil {
			defer func() { _ = recover() }() // of the logger itself
			r.log.Error("the relay failed; what is held stays in force", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f()
}

const (
	// never is a wait that something else ends.
	never = time.Hour
	// panicPause is how long the relay rests after a bug in it.
	panicPause = 10 * time.Second
)

// tellSigners tells of another set of signers.
func (r *Relay) tellSigners() {
	r.mu.Lock()
	now := r.signers
	changed := now != r.told
	r.told = now
	r.mu.Unlock()
	if !changed {
		return
	}
	if r.config.OnSigners != nil {
		r.config.OnSigners(now)
	}
	r.reconsider()
}

// tellTime tells the holder what time it is at least.
func (r *Relay) tellTime() {
	r.mu.Lock()
	h, t, connected := r.holder, r.newestTime, r.connected
	r.mu.Unlock()
	if h != nil && !connected && t.StateTime > 0 {
		h.NotBefore(t.Epoch, t.StateTime)
	}
}
