package fleet

import (
	"bytes"
	"container/list"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/pace"
	"github.com/holdfast-dev/holdfast/internal/seam"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

const (
	// recordRate and recordBurst bound the records of one instance; what comes faster
	// is dropped, and the next refresh makes up for it.
	recordRate  = 2
	recordBurst = 5
	// paceSpan is how long it takes until a pace is full again, whatever was taken.
	paceSpan = recordBurst * time.Second / recordRate
	// verifyRate and verifyBurst bound the signatures that are looked at in a second,
	// whoever sends them: with 60 µs for each, 6 % of a core at most.
	verifyRate  = 1000
	verifyBurst = 2000
	// recentRecords is how many records are known by a hash of their bytes. Of two with
	// the same place the older one is read again each time that it comes.
	recentRecords = 1024
	// timeTolerance is how far the state time in a record may be off: more than two
	// estimates of it differ, and less than numbers of records are remembered for.
	timeTolerance = 2 * time.Minute
)

// StoreConfig says what a Store is made of.
type StoreConfig struct {
	// Namespace is the only one of which records are taken.
	Namespace string
	// Clock is required.
	Clock *clock.Clock
	// Time tells state time, by which certificates end, and the zero time while it is not
	// known: the wall clock takes its place then. Nil means the wall clock.
	Time func() time.Time
	// Verify is Claim.Verify where it is nil. Many stores in one process can share the
	// work.
	Verify func(*Claim) (trust.Certificate, error)
	// Logger may be nil, which logs nothing.
	Logger *slog.Logger
	// OnChange, if not nil, is called after news, by whoever brought them and not under
	// a lock. It must not block.
	OnChange func()
}

// Store holds what every instance of a namespace says, each record verified, bounded
// and for as long as it lives. It is a gossip.Records, whose keys are the ids of the
// instances. Its methods may be called at the same time.
type Store struct {
	config StoreConfig
	counts tally

	mu      sync.Mutex // of everything below; never held while verifying or calling out
	signers *trust.Signers
	table   *health.Table
	recent  [recentRecords]string        // whose record has bytes with that hash, perhaps
	known   map[string]trust.Certificate // verified, by their bytes
	paces   map[string]*pace.Bucket      // by id; none is a full one
	sweep   int64                        // when to look for full ones again
	checks  pace.Bucket
	changes list.List                // of change, the newest last
	places  map[string]*list.Element // in changes, by id
	version uint64                   // of the newest change
	changed chan struct{}            // closed at the next change; nil while nobody waits

	population map[string]health.Population // by service

	seed maphash.Seed // fixed
}

// change is that something new was heard of an instance.
type change struct {
	id      string
	version uint64
}

// NewStore returns an empty store, which refuses everything until SetSigners.
func NewStore(config StoreConfig) *Store {
	if config.Time == nil {
		config.Time = config.Clock.Wall
	}
	if config.Verify == nil {
		config.Verify = (*Claim).Verify
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{
		config: config, table: health.NewTable(0), seed: maphash.MakeSeed(),
		known: map[string]trust.Certificate{}, paces: map[string]*pace.Bucket{}, places: map[string]*list.Element{},
	}
}

// SetSigners tells whose certificates count from now on; nil for nobody's. Records
// that are held stay until they expire.
func (s *Store) SetSigners(signers *trust.Signers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signers = signers
	clear(s.known)
}

// SetPopulation tells on how many hosts and zones the instances of each service are.
func (s *Store) SetPopulation(of map[string]health.Population) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.population = of
}

// Keys implements gossip.Records: the ids of the instances that something is held of.
func (s *Store) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	keys := make([]string, 0, s.table.Len())
	for held := range s.table.All() {
		keys = append(keys, held.ID)
	}
	return keys
}

// Encode implements gossip.Records: the record of an instance with its age as it is
// now; nil if nothing is held.
func (s *Store) Encode(id string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return s.encode(id)
}

func (s *Store) encode(id string) []byte {
	held, ok := s.table.Get(id)
	if !ok {
		return nil
	}
	return encode(time.Duration(s.now()-held.Born), held.Raw)
}

// Digest implements gossip.Records: a hash of the record of an instance, whatever its
// age; 0 if nothing is held.
func (s *Store) Digest(id string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return s.table.Digest(id)
}

// Merge implements gossip.Records. It takes a record that somebody passed on, and
// returns whose it is and whether it is news.
func (s *Store) Merge(b []byte) (id string, news bool) {
	id, news, _ = s.take(b, "")
	return id, news
}

// Take takes the record that the instance of an id hands in for itself. It returns
// whether it is news; one that is not, or that comes too fast, is dropped without an
// error. The errors are ErrNotOwn and those of trust.
func (s *Store) Take(b []byte, id string) (key string, news bool, err error) {
	return s.take(b, id)
}

// parcel is a record on its way into the table.
type parcel struct {
	envelope
	is health.Record
}

// take takes a record, of only one instance if that is named.
func (s *Store) take(b []byte, only string) (id string, news bool, err error) {
	if len(b) > maxEnvelope {
		return "", false, s.refuse(oversize, fmt.Errorf("take record: %w: %d bytes; at most %d", errEnvelope, len(b), maxEnvelope))
	}
	var r parcel
	if r.envelope, err = decode(b); err != nil {
		return "", false, s.refuse(malformed, fmt.Errorf("take record: %w", err))
	}
	if id := s.twin(r.sealed); id != "" && (only == "" || id == only) {
		return id, false, s.refuse(stale, nil)
	}
	if r.is, err = health.DecodeRecord(r.record); err != nil {
		return "", false, s.refuse(malformed, fmt.Errorf("take record: %w", err))
	}
	claim, c, err := s.claim(&r.envelope)
	switch {
	case err != nil:
		return "", false, s.refuse(malformed, fmt.Errorf("take record: %w", err))
	case c.Namespace != s.config.Namespace:
		return "", false, s.refuse(foreign, fmt.Errorf("take record of %q: %w %q", c.ID, trust.ErrNamespace, c.Namespace))
	case only != "" && c.ID != only:
		return "", false, s.refuse(foreign, fmt.Errorf("take record: %w: of %q, handed in by %q", ErrNotOwn, c.ID, only))
	}
	if why := s.wanted(c.ID, &r); why != merged {
		return c.ID, false, s.refuse(why, nil)
	}
	if c, err = s.config.Verify(&claim); err != nil {
		return "", false, s.refuse(refusal(err), fmt.Errorf("take record: %w", err))
	}
	return s.put(&c, &r, claim.Signers)
}

// twin returns the instance whose record with the very same bytes is held. Most of what
// comes in by gossip has come before: it need not be read to know that.
func (s *Store) twin(sealed []byte) string {
	at := s.slot(sealed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if held, ok := s.table.Get(s.recent[at]); ok && bytes.Equal(held.Raw, sealed) {
		return held.ID
	}
	return ""
}

func (s *Store) slot(sealed []byte) uint64 { return maphash.Bytes(s.seed, sealed) % recentRecords }

// claim returns what is to be verified, and the certificate as it reads.
func (s *Store) claim(e *envelope) (Claim, trust.Certificate, error) {
	claim := Claim{
		Namespace: s.config.Namespace, Now: s.config.Time(),
		Certificate: e.certificate, Signed: e.signed, Signature: e.signature,
	}
	if claim.Now.IsZero() {
		claim.Now = s.config.Clock.Wall()
	}
	s.mu.Lock()
	c, verified := s.known[string(e.certificate)]
	claim.Signers = s.signers
	s.mu.Unlock()
	if verified {
		claim.Known = &c
		return claim, c, nil
	}
	c, err := trust.ReadCertificate(e.certificate)
	return claim, c, err //nolint:wrapcheck // the caller says of what
}

// wanted tells whether a record is worth verifying.
func (s *Store) wanted(id string, r *parcel) outcome {
	old := s.kept(r.at)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	now := s.now()
	switch p := s.paces[id]; {
	case s.table.Known(id, r.is.Incarnation, r.is.Sequence, r.sealed):
		return stale
	case r.age >= health.TTL || old:
		return late
	case p != nil && p.Wait(now, 1, recordLimit()) > 0:
		return fast
	case !s.checks.Take(now, 1, pace.Limit{Rate: verifyRate, Burst: verifyBurst}):
		return busy
	}
	return merged
}

// kept tells whether a record was made at another time than about now: somebody has
// kept it.
func (s *Store) kept(at int64) bool {
	now := s.config.Time()
	return at != 0 && !now.IsZero() && now.Sub(time.UnixMilli(at)).Abs() > timeTolerance
}

// put takes a record into the table, verified by signers.
func (s *Store) put(c *trust.Certificate, r *parcel, by *trust.Signers) (id string, news bool, err error) {
	s.mu.Lock()
	now := s.now()
	if len(s.known) >= health.MaxOrigins {
		clear(s.known)
	}
	if s.signers == by {
		s.known[string(r.certificate)] = *c
	}
	what := s.table.Put(now, originOf(c), r.is, bytes.Clone(r.sealed), r.age)
	if what == health.New {
		s.recent[s.slot(r.sealed)] = c.ID
		p := s.paces[c.ID]
		if p == nil {
			p = new(pace.Bucket)
			s.paces[c.ID] = p
		}
		p.Take(now, 1, recordLimit())
		s.note(c.ID)
		if seam.Enabled {
			trace(c.ID, &r.is)
		}
	}
	s.mu.Unlock()
	switch what {
	case health.New:
		s.counts[merged].Add(1)
		s.tell()
		return c.ID, true, nil
	case health.Expired:
		return c.ID, false, s.refuse(late, nil)
	case health.Refused:
		return c.ID, false, s.refuse(full, nil)
	default:
		return c.ID, false, s.refuse(stale, nil)
	}
}

func recordLimit() pace.Limit { return pace.Limit{Rate: recordRate, Burst: recordBurst} }

func originOf(c *trust.Certificate) health.Origin {
	return health.Origin{ID: c.ID, Service: c.Service, Host: c.Host, Zone: c.Zone}
}

// own takes the instance's own record, which needs no proof.
func (s *Store) own(c *trust.Certificate, is health.Record, sealed []byte) {
	s.mu.Lock()
	s.expire()
	what := s.table.Put(s.now(), originOf(c), is, sealed, 0)
	if what == health.New {
		s.note(c.ID)
		if seam.Enabled {
			trace(c.ID, &is)
		}
	}
	s.mu.Unlock()
	if what == health.New {
		s.tell()
	}
}

// latest returns the numbers of the record that is held of an instance.
func (s *Store) latest(id string) (incarnation, sequence uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.table.Get(id)
	return held.Record.Incarnation, held.Record.Sequence, ok
}

// look lets f read the table and the populations. It must not keep them.
func (s *Store) look(f func(*health.Table, map[string]health.Population)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	f(s.table, s.population)
}

// note remembers that there is news of an instance. The caller holds mu.
func (s *Store) note(id string) {
	s.version++
	if at, ok := s.places[id]; ok {
		s.changes.Remove(at)
	}
	s.places[id] = s.changes.PushBack(change{id, s.version})
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *Store) tell() {
	if s.config.OnChange != nil {
		s.config.OnChange()
	}
}

// refuse counts what became of a record.
func (s *Store) refuse(why outcome, err error) error {
	s.counts[why].Add(1)
	if err != nil {
		s.config.Logger.Debug("a record of evidence is not taken", "error", err)
	}
	return err
}

// expire forgets what is too old. The caller holds mu.
func (s *Store) expire() {
	now := s.now()
	for _, id := range s.table.Expire(now) {
		seam.Event("forgotten", "origin", id)
		if at, ok := s.places[id]; ok {
			s.changes.Remove(at)
			delete(s.places, id)
		}
	}
	// A pace outlives the record: else whoever claims that a record is old, so that it
	// expires at once, may send the next one at once. There are never more of them than
	// signatures that are looked at within their span.
	if now >= s.sweep {
		s.sweep = now + int64(paceSpan)
		maps.DeleteFunc(s.paces, func(_ string, p *pace.Bucket) bool { return p.Wait(now, recordBurst, recordLimit()) == 0 })
	}
}

func (s *Store) now() int64 { return s.config.Clock.Now() }

// Changed returns a channel that is closed at the next change. It has to be asked for
// before one looks at Changes, or a change may be missed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Changes returns the records of at most so many instances of which there is news
// since a cursor, the oldest news first, with their ages as they are now, and the next
// cursor. The first cursor is 0. It takes time in what it returns.
func (s *Store) Changes(since uint64, most int) (records [][]byte, next uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	at := s.changes.Back()
	for at != nil && at.Value.(change).version > since { //nolint:forcetypeassert // nothing else is in it
		at = at.Prev()
	}
	if at == nil {
		at = s.changes.Front()
	} else {
		at = at.Next()
	}
	next = since
	for ; at != nil && len(records) < most; at = at.Next() {
		c := at.Value.(change) //nolint:forcetypeassert // nothing else is in it
		if b := s.encode(c.id); b != nil {
			records = append(records, b)
		}
		next = c.version
	}
	return slices.Clip(records), next
}

// Metrics returns the counters.
func (s *Store) Metrics() StoreMetrics {
	s.mu.Lock()
	s.expire()
	held := s.table.Len()
	s.mu.Unlock()
	return s.counts.metrics(held)
}
