package gossip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// inboxSize bounds the received messages that wait to be merged. When it is
	// full the newest is dropped and counted; the periodic exchange repairs it.
	inboxSize = 256
	// rejoinInterval is how often lost peers and seeds are tried again.
	rejoinInterval = 10 * time.Second
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
	// retransmitMult is raised above the library's 4: servers are few, and a
	// lost message costs a whole exchange interval.
	retransmitMult = 6
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
	// Transport replaces the network in tests. BindAddr is then unused.
	Transport memberlist.Transport
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// Metrics is a snapshot of the pool's counters.
type Metrics struct {
	// Members is the number of processes alive, this one included.
	Members int
	// Received and Dropped count user messages taken in, and refused because
	// the inbox was full.
	Received, Dropped uint64
	// Malformed counts messages and states that could not be read.
	Malformed uint64
	// Oversize counts broadcasts and meta data too large for a packet.
	Oversize uint64
	// Rejoins counts attempts to reach a lost peer or a seed.
	Rejoins uint64
	// Health is the library's doubt about this process; 0 is well.
	Health int
}

// Pool is one process's membership. It is safe for concurrent use.
type Pool struct {
	config Config
	name   string
	log    *slog.Logger
	list   *memberlist.Memberlist
	queue  memberlist.TransmitLimitedQueue
	budget int // bytes of one broadcast

	states map[string]State // fixed once started

	mu      sync.Mutex           // guards members, lost and self; never held while calling out
	members map[string]Member    // alive, by name
	lost    map[string]time.Time // addresses of members that went, and when
	self    string               // own address

	inbox   chan []byte
	changed chan struct{} // holds at most one token
	meta    chan struct{} // holds at most one token

	alive                                  atomic.Int64
	received, dropped, malformed, oversize atomic.Uint64
	rejoins                                atomic.Uint64

	cancel  context.CancelFunc
	workers sync.WaitGroup
	closing sync.Once
}

// New returns a pool that is not started. States are added before Start.
func New(config Config) (*Pool, error) {
	if config.Name == "" || strings.ContainsAny(config.Name, "/ ") {
		return nil, fmt.Errorf("gossip name %q: must be a word without slash", config.Name)
	}
	if len(config.Label) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("gossip label of %d bytes: at most %d", len(config.Label), memberlist.LabelMaxSize)
	}
	var run [8]byte
	_, _ = rand.Read(run[:]) // crypto/rand never returns an error
	p := &Pool{
		config:  config,
		name:    config.Name + "/" + hex.EncodeToString(run[:]),
		log:     config.logger(),
		states:  make(map[string]State),
		members: make(map[string]Member),
		lost:    make(map[string]time.Time),
		inbox:   make(chan []byte, inboxSize),
		changed: make(chan struct{}, 1),
		meta:    make(chan struct{}, 1),
		budget:  packetBudget(config),
	}
	// The queue asks under its own lock: the answer may not take the library's.
	p.queue.NumNodes = func() int { return int(p.alive.Load()) }
	p.queue.RetransmitMult = retransmitMult
	return p, nil
}

// AddState registers a state under a name of at most 255 bytes. It must be
// called before Start. The returned function spreads the state as it is then; it
// does not block and may be called at any time.
func (p *Pool) AddState(name string, s State) (broadcast func()) {
	p.states[name] = s
	return func() { p.spread(name, s) }
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
	p.list = list
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.workers.Go(func() { p.mergeLoop(ctx) })
	p.workers.Go(func() { p.noticeLoop(ctx) })
	p.workers.Go(func() { p.rejoinLoop(ctx) })
	return nil
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
	return slices.SortedFunc(maps.Values(p.members), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
}

// UpdateMeta asks for the meta data and spreads it. It does not block.
func (p *Pool) UpdateMeta() { poke(p.meta) }

// Metrics returns the counters.
func (p *Pool) Metrics() Metrics {
	m := Metrics{
		Members:   int(p.alive.Load()),
		Received:  p.received.Load(),
		Dropped:   p.dropped.Load(),
		Malformed: p.malformed.Load(),
		Oversize:  p.oversize.Load(),
		Rejoins:   p.rejoins.Load(),
	}
	if p.list != nil {
		m.Health = p.list.GetHealthScore()
	}
	return m
}

// Close says farewell, so that the others need not find out, and stops. A probe
// that the library has under way ends within its own timeout. Close is
// idempotent; a pool that never started has nothing to close.
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
		if wait > 0 && len(p.Members()) > 1 {
			if late := p.list.Leave(wait); late != nil {
				p.log.Debug("not everybody has heard the farewell", "error", late)
			}
		}
		err = p.list.Shutdown()
		p.workers.Wait()
	})
	if err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

// spread queues the state for broadcast, in the place of its older value.
func (p *Pool) spread(name string, s State) {
	message := encodeMessage(name, s.Encode())
	if len(message) > p.budget {
		p.oversize.Add(1)
		return
	}
	p.queue.QueueBroadcast(&broadcast{name: name, message: message})
}

// mergeLoop merges what NotifyMsg took in, and passes news on.
func (p *Pool) mergeLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case message := <-p.inbox:
			name, body, ok := decodeMessage(message)
			state := p.states[name]
			if !ok || state == nil {
				p.malformed.Add(1)
				continue
			}
			if state.Merge(body) {
				p.spread(name, state)
			}
		}
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
				p.config.OnChange()
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
