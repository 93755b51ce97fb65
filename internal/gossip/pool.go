package gossip

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/holdfast-dev/holdfast/internal/pace"
)

const (
	// inboxSize bounds the received messages that wait to be merged. When it is
	// full the newest is dropped and counted; repairs make up for it.
	inboxSize = 256
	// mergeBatch is how many messages are merged before news is pushed: several
	// records then go in one packet.
	mergeBatch = 16
	// memberLimit bounds the members that are believed in. Further ones are not
	// taken in, and warned of.
	memberLimit = 2000
	// rejoinInterval is how often lost peers and seeds are tried again.
	rejoinInterval = 5 * time.Second
	// lonelyInterval takes its place while nobody is known, so that servers
	// started together find each other at once.
	lonelyInterval = time.Second
	// updateWait is how long an update of the meta data may wait for its
	// broadcast; it goes on being sent after that.
	updateWait = 500 * time.Millisecond
	// leaveWait bounds the farewell.
	leaveWait = 2 * time.Second
	// streamTimeout bounds one exchange over a stream.
	streamTimeout = 3 * time.Second
)

// Profile says what a pool is tuned for.
type Profile int

const (
	// Servers is for a few processes that are to know soon who is dead.
	Servers Profile = iota
	// Instances is for hundreds of processes, also on crowded machines: rounds
	// of gossip are shorter, and probes of members rarer and more patient.
	Instances
)

// State is a value that replicates by gossip. Merge must be commutative,
// associative and idempotent. Both methods are called concurrently and must not
// block or call the pool.
type State interface {
	// Encode returns everything known. The pool does not change the bytes.
	Encode() []byte
	// Merge takes in what another process encoded and tells whether it learned
	// anything. It may keep no reference to b.
	Merge(b []byte) (changed bool)
}

// Member is a process in the pool.
type Member struct {
	// Name is unique to one run of the process.
	Name string
	// Addr is the address (host:port) that it gossips on.
	Addr string
	// Meta is what the process tells about itself.
	Meta []byte
	// Since is when this process first saw it alive, by the local clock.
	Since time.Time
}

// Config configures a Pool.
type Config struct {
	// Name begins the process's name in the pool; the pool makes it unique.
	Name string
	// BindAddr is host:port for UDP and TCP; port 0 picks a free one.
	BindAddr string
	// AdvertiseAddr is what others are told to use, host or host:port; empty
	// means the bound address.
	AdvertiseAddr string
	// SourceIP is where outgoing streams are dialled from; empty lets the system
	// choose. Packets always leave from BindAddr.
	SourceIP string
	// Profile says what the pool is tuned for.
	Profile Profile
	// Label keeps pools apart that share addresses. At most 255 bytes.
	Label string
	// Keys are AES keys of 16, 24 or 32 bytes. The first encrypts, all decrypt;
	// none means plaintext.
	Keys [][]byte
	// Meta returns what this process tells about itself, at most 512 bytes; a
	// longer one is replaced by nothing and counted. It must not block.
	Meta func() []byte
	// Join are addresses (host:port) of processes to find the pool by.
	Join []string
	// Logger is where the pool and the library log.
	Logger *slog.Logger
	// OnChange is called after members have come, gone or changed. Calls are
	// coalesced and never concurrent.
	OnChange func()
	// Transport replaces sockets of the pool's own: one of a Listener, or a network
	// in memory. The addresses above are then unused. The pool shuts it down.
	Transport memberlist.Transport
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// Pool is one process's membership. It is safe for concurrent use.
type Pool struct {
	config Config
	name   string
	log    *slog.Logger
	budget int // bytes of one message in a packet

	channels map[string]*Channel // fixed once started, like handlers
	handlers map[string]*handler
	queue    queue
	pushes   pace.Bucket
	interval time.Duration // of rounds of gossip, each to fanout members
	fanout   int

	list      *memberlist.Memberlist // set by Start, like transport
	transport memberlist.Transport
	ring      *memberlist.Keyring
	keys      sync.Mutex // held while the ring changes

	mu        sync.Mutex           // guards the rest of this block; never held while calling out
	members   map[string]*member   // alive, by name
	others    []address            // members but this process, in no order
	lost      map[string]departure // members that went, by address
	leavers   map[string]bool      // names that have said farewell and are still there
	seeds     []string
	self      string // own address
	bulky     map[entry]item
	bulkyBusy bool
	probes    map[[8]byte]chan byte
	asked     map[string]*pace.Bucket // questions of members to probe others
	ended     bool                    // no worker may start

	inbox      chan []byte
	wake       chan struct{} // holds at most one token, like the next three
	changed    chan struct{}
	meta       chan struct{}
	rejoinNow  chan struct{}
	sends      chan struct{} // messages being written
	probeSends chan struct{}

	counters

	ctx     context.Context //nolint:containedctx // the life of the pool, for workers that callbacks of the library start
	cancel  context.CancelFunc
	silent  chan struct{} // closed when there is nothing more to say
	workers sync.WaitGroup
	closing sync.Once
}

type member struct {
	Member
	at int // in others; -1 is this process
}

// New returns a pool that is not started. States, records and handlers are added
// before Start.
func New(config Config) (*Pool, error) {
	if config.Name == "" || strings.ContainsAny(config.Name, "/ ") {
		return nil, fmt.Errorf("gossip name %q: must be a word without slash", config.Name)
	}
	var run [8]byte
	_, _ = crand.Read(run[:]) // crypto/rand never returns an error
	name := config.Name + "/" + hex.EncodeToString(run[:])
	if len(name) > nameLimit {
		return nil, fmt.Errorf("gossip name of %d bytes: at most %d", len(config.Name), nameLimit-len(name)+len(config.Name))
	}
	if len(config.Label) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("gossip label of %d bytes: at most %d", len(config.Label), memberlist.LabelMaxSize)
	}
	p := &Pool{
		config: config, name: name, log: config.logger(), budget: packetBudget(config),
		channels: make(map[string]*Channel), handlers: make(map[string]*handler),
		members: make(map[string]*member), lost: make(map[string]departure), leavers: make(map[string]bool),
		probes: make(map[[8]byte]chan byte), asked: make(map[string]*pace.Bucket),
		inbox: make(chan []byte, inboxSize), wake: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		meta: make(chan struct{}, 1), rejoinNow: make(chan struct{}, 1),
		sends: make(chan struct{}, sendLimit), probeSends: make(chan struct{}, probeSends),
		silent: make(chan struct{}), interval: 200 * time.Millisecond, fanout: 3,
	}
	if config.Profile == Instances {
		p.interval, p.fanout = 100*time.Millisecond, 4
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	// The queue asks under its own lock: the answer may not take the library's.
	p.queue.nodes = func() int { return int(p.alive.Load()) }
	p.ring, _ = memberlist.NewKeyring(nil, nil) // an empty one is always good
	p.seeds = slices.Clone(config.Join)
	p.addChannel(farewellName, farewell{p})
	p.handleProbes()
	return p, nil
}

// AddState registers a state under a name of at most 255 bytes. It must be
// called before Start. The returned function spreads the state as it is then; it
// does not block and may be called at any time.
func (p *Pool) AddState(name string, s State) (broadcast func()) {
	c := p.addChannel(name, single{s})
	c.plain = true // so the servers of version 0.3 read it
	return func() { c.Spread("") }
}

// Start binds the addresses and begins to gossip. Seeds that do not answer are
// no error: they are tried again until they do.
func (p *Pool) Start() error {
	config, err := p.listConfig()
	if err != nil {
		return err
	}
	list, err := memberlist.Create(config)
	if err != nil {
		if config.Transport != nil {
			_ = config.Transport.Shutdown()
		}
		return fmt.Errorf("start gossip: %w", err)
	}
	p.hear()
	p.mu.Lock()
	p.list = list
	p.mu.Unlock()
	for _, loop := range []func(context.Context){p.mergeLoop, p.noticeLoop, p.rejoinLoop} {
		p.goWorker(func() { loop(p.ctx) })
	}
	return nil
}

// goWorker starts a goroutine that Close waits for; false once the pool ends.
func (p *Pool) goWorker(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.goLocked(f)
}

func (p *Pool) goLocked(f func()) bool {
	if p.ended || p.list == nil {
		return false
	}
	p.workers.Go(func() { p.contained(f) })
	return true
}

// contained runs f and logs a panic, as of records or of a handler that cannot stand
// what somebody has sent: the process is not the pool's to end.
func (p *Pool) contained(f func()) {
	defer func() {
		if v := recover(); v != nil {
			defer func() { _ = recover() }() // of the logger itself
			p.log.Error("gossip failed; what it was about is dropped", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// Name returns this process's unique name.
func (p *Pool) Name() string { return p.name }

// Addr returns the address that this process advertises.
func (p *Pool) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.self
}

// Members returns copies of the members alive, this one included, by name.
func (p *Pool) Members() []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	members := make([]Member, 0, len(p.members))
	for _, m := range p.members {
		members = append(members, m.Member)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return members
}

func (p *Pool) member(name string) (Member, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.members[name]; m != nil {
		return m.Member, true
	}
	return Member{}, false
}

// lookup is where a member is.
func (p *Pool) lookup(name string) (address, bool) {
	m, ok := p.member(name)
	return address{m.Name, m.Addr}, ok
}

// UpdateMeta asks for the meta data and spreads it. It does not block.
func (p *Pool) UpdateMeta() { poke(p.meta) }

// Close tells the others the last news and says farewell, so that they need not
// find out, and stops. A probe that the library has under way ends within its own
// timeout. Close is idempotent; a pool that never started has nothing to close.
func (p *Pool) Close(ctx context.Context) error {
	if p.list == nil {
		return nil
	}
	var err error
	p.closing.Do(func() {
		wait := leaveWait
		if deadline, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(deadline))
		}
		p.cancel()
		if wait > 0 && p.alive.Load() > 1 {
			p.channels[farewellName].Spread(p.name)
			if late := p.list.Leave(wait); late != nil {
				p.log.Debug("not everybody has heard the farewell", "error", late)
			}
		}
		close(p.silent)
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		err = p.list.Shutdown()
		p.workers.Wait()
	})
	if err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

// mergeLoop merges what came in, answers repairs, and sends news: at once to a few
// members, and in rounds while there is something to send. It goes on until the
// farewell is out.
func (p *Pool) mergeLoop(context.Context) {
	round := time.NewTimer(p.interval)
	round.Stop()
	defer round.Stop()
	resting := true
	for {
		select {
		case <-p.silent:
			return
		case <-p.wake:
		case message := <-p.inbox:
			p.receive(message)
		case <-round.C:
			p.contained(p.gossip)
			resting = true
		}
		p.receiveMore()
		p.contained(p.pushEager)
		if resting && p.queue.len() > 0 {
			// Members must not beat time together: rounds then come in waves.
			round.Reset(p.interval/2 + rand.N(p.interval))
			resting = false
		}
	}
}

func (p *Pool) receiveMore() {
	for range mergeBatch {
		select {
		case message := <-p.inbox:
			p.receive(message)
		default:
			return
		}
	}
}

// receive takes in a message, or a batch of them.
func (p *Pool) receive(message []byte) {
	if len(message) > 0 && message[0] == 0 {
		if err := eachBlock(message[1:], p.receiveOne); err != nil {
			p.malformed.Add(1)
		}
		return
	}
	p.receiveOne(message)
}

func (p *Pool) receiveOne(message []byte) {
	name, body, ok := cutName(message)
	if c := p.channels[name]; ok && c != nil {
		p.contained(func() { c.receive(body) })
	} else {
		p.malformed.Add(1)
	}
}

// noticeLoop does what the library's callbacks may not do themselves.
func (p *Pool) noticeLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
			if p.config.OnChange != nil {
				p.contained(p.config.OnChange)
			}
		case <-p.meta:
			// A timeout only tells that the broadcast is still under way.
			if err := p.list.UpdateNode(updateWait); err != nil {
				p.log.Debug("meta data still spreading", "error", err)
			}
		}
	}
}

// poke leaves a token where there is none.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
