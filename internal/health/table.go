package health

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	spread "github.com/holdfast-dev/holdfast/internal/hash"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

const (
	// TTL is how long a record lives after it was made, wherever it is. What a crashed
	// instance said is gone then, with no help from membership, which forgets late and
	// can be forged.
	TTL = 15 * time.Second
	// Refresh is how often an instance that has something to say says it again: so a
	// record may miss its way twice.
	Refresh = 5 * time.Second
	// memory is how long the numbers of a record that is gone are remembered, so that
	// no late copy brings it back. 2×TTL would do for copies under way; what is longer
	// holds off somebody who replays on purpose.
	memory = 10 * time.Minute
)

// Limits of a table.
const (
	// MaxOrigins bounds the instances whose records are held, and as many again whose
	// numbers are remembered: at most about 8 MiB.
	MaxOrigins = 4096
	// MaxPerHost bounds those of one host, so that one host cannot fill the table. It
	// is as many as may sit behind one address translator.
	MaxPerHost = 256
)

// Origin is who made a record, as its certificate says. Only Zone is the instance's
// own claim.
type Origin struct {
	ID, Service, Host, Zone string
}

// Held is a record in a table. Nobody changes what it refers to.
type Held struct {
	Origin
	Record Record
	// Raw is the record as it travels, signature included, without its age.
	Raw []byte
	// Born is when it was made, by the clock of who holds it.
	Born int64

	digest uint64
	life   *end // in Table.living
	idle   *end // in Table.idle; nil if it has an opinion
}

// mute tells whether a record has no opinion of anything.
func (r *Record) mute() bool { return len(r.Reports) == 0 || r.Leaving }

// Outcome is what became of a record.
type Outcome uint8

// Outcomes of Put. Only New changes the table.
const (
	New     Outcome = iota // it replaced what was there
	Same                   // it is there already
	Stale                  // a newer one is there, or was
	Expired                // older than TTL
	Refused                // the table is full
)

func (o Outcome) String() string {
	return [...]string{"new", "same", "stale", "expired", "refused"}[o]
}

// Table holds the newest record of each instance. Merging is a join: by (incarnation,
// sequence), then by the bytes of Raw. Whatever the order and number of the Puts, two
// tables that have heard the same records hold the same ones.
//
// How old a record is counts from when it was heard first: hearing it again makes it
// neither younger, or an old vote could be kept alive, nor older, or somebody could
// have the votes of others expire.
//
// When it is full the records of instances without an opinion go, the oldest first;
// if there are none, further instances are refused, and those that are there stay.
//
// Nothing locks; what reads counts as much as what writes.
type Table struct {
	limit    int
	held     map[string]*Held
	gone     map[string]*mark
	perHost  map[string]int
	subjects map[string]*subject
	living   ends     // of held
	idle     ends     // of those of held that have no opinion
	past     ends     // of gone
	dropped  []string // whose records went since the last Expire
}

// mark remembers the numbers of a record that is gone.
type mark struct {
	incarnation, sequence uint64
	until                 end
}

// NewTable returns an empty table for that many instances; 0 means MaxOrigins.
func NewTable(limit int) *Table {
	if limit <= 0 {
		limit = MaxOrigins
	}
	return &Table{
		limit: limit, held: make(map[string]*Held), gone: make(map[string]*mark),
		perHost: make(map[string]int), subjects: make(map[string]*subject),
	}
}

// Put takes in a record that is so old. The table keeps r.Reports and raw.
func (t *Table) Put(now int64, from Origin, r Record, raw []byte, age time.Duration) Outcome {
	t.expire(now)
	if age >= TTL {
		return Expired
	}
	if o := t.compare(from.ID, r.Incarnation, r.Sequence, raw); o != New {
		return o
	}
	old := t.held[from.ID]
	if !t.room(from, old) {
		return Refused
	}
	if old != nil {
		t.remove(old)
	}
	if m := t.gone[from.ID]; m != nil {
		t.unmark(m)
	}
	h := &Held{Origin: from, Record: r, Raw: raw, Born: now - int64(max(age, 0)), digest: max(hash(string(raw)), 1)}
	t.held[from.ID] = h
	h.life = &end{id: from.ID, at: h.Born + int64(TTL)}
	t.living.add(h.life)
	if r.mute() {
		h.idle = &end{id: from.ID, at: h.Born + int64(TTL)}
		t.idle.add(h.idle)
	}
	t.perHost[from.Host]++
	if !r.Leaving {
		for i := range r.Reports {
			t.index(h, &r.Reports[i])
		}
	}
	return New
}

// Known reports whether Put would say Same or Stale whatever else is in the record, so
// that its signature need not be looked at.
func (t *Table) Known(id string, incarnation, sequence uint64, raw []byte) bool {
	return t.compare(id, incarnation, sequence, raw) != New
}

// compare says New, Same or Stale.
func (t *Table) compare(id string, incarnation, sequence uint64, raw []byte) Outcome {
	h := t.held[id]
	if h == nil {
		m := t.gone[id]
		if m != nil && cmp.Or(cmp.Compare(incarnation, m.incarnation), cmp.Compare(sequence, m.sequence)) <= 0 {
			return Stale
		}
		return New
	}
	switch c := cmp.Or(
		cmp.Compare(incarnation, h.Record.Incarnation), cmp.Compare(sequence, h.Record.Sequence), bytes.Compare(raw, h.Raw),
	); {
	case c > 0:
		return New
	case c == 0:
		return Same
	case seam.Bug(seam.OlderEvidenceWins):
		return New
	default:
		return Stale
	}
}

// room makes room for a record of from, which replaces old if that is not nil.
func (t *Table) room(from Origin, old *Held) bool {
	if t.perHost[from.Host] >= MaxPerHost && (old == nil || old.Host != from.Host) {
		return false
	}
	if old != nil || len(t.held) < t.limit {
		return true
	}
	oldest := t.idle.first()
	if oldest == nil {
		return false
	}
	t.forget(t.held[oldest.id])
	return true
}

// Expire drops what is too old. It returns, in order, whose records have gone since it
// was called last, also to make room, and nothing is held of now.
func (t *Table) Expire(now int64) []string {
	t.expire(now)
	gone := slices.DeleteFunc(t.dropped, func(id string) bool { return t.held[id] != nil })
	t.dropped = nil
	slices.Sort(gone)
	return slices.Compact(gone)
}

func (t *Table) expire(now int64) {
	for e := t.living.due(now); e != nil && !seam.Bug(seam.EvidenceStays); e = t.living.due(now) {
		t.forget(t.held[e.id])
	}
	for e := t.past.due(now); e != nil; e = t.past.due(now) {
		t.unmark(t.gone[e.id])
	}
}

// NextExpiry returns when Expire has to drop something again; not ok while the table is
// empty.
func (t *Table) NextExpiry() (at int64, ok bool) {
	held, gone := t.living.first(), t.past.first()
	switch {
	case gone == nil && held == nil:
		return 0, false
	case gone == nil:
		return held.at, true
	case held == nil:
		return gone.at, true
	default:
		return min(held.at, gone.at), true
	}
}

// forget drops a record and remembers its numbers.
func (t *Table) forget(h *Held) {
	t.remove(h)
	delete(t.held, h.ID)
	t.dropped = append(t.dropped, h.ID)
	if len(t.gone) >= t.limit {
		t.unmark(t.gone[t.past.first().id])
	}
	m := &mark{
		incarnation: h.Record.Incarnation, sequence: h.Record.Sequence,
		until: end{id: h.ID, at: h.Born + int64(TTL+memory)},
	}
	t.gone[h.ID] = m
	t.past.add(&m.until)
}

// unmark forgets the numbers of a record that is gone.
func (t *Table) unmark(m *mark) {
	t.past.drop(&m.until)
	delete(t.gone, m.until.id)
}

// remove takes a record out of the indexes.
func (t *Table) remove(h *Held) {
	t.living.drop(h.life)
	if h.idle != nil {
		t.idle.drop(h.idle)
	}
	if t.perHost[h.Host]--; t.perHost[h.Host] == 0 {
		delete(t.perHost, h.Host)
	}
	if h.Record.Leaving {
		return
	}
	for i := range h.Record.Reports {
		name := h.Record.Reports[i].Dependency
		s := t.subjects[name]
		s.remove(h)
		if len(s.order) == 0 {
			delete(t.subjects, name)
		}
	}
}

func (t *Table) index(h *Held, r *Report) {
	s := t.subjects[r.Dependency]
	if s == nil {
		s = newSubject(r.Dependency)
		t.subjects[r.Dependency] = s
	}
	s.add(vote{h, r})
}

// Len returns how many records are held.
func (t *Table) Len() int { return len(t.held) }

// Get returns the record of an instance.
func (t *Table) Get(id string) (Held, bool) {
	if h := t.held[id]; h != nil {
		return *h, true
	}
	return Held{}, false
}

// All returns all records, in the order of their instances' ids.
func (t *Table) All() iter.Seq[Held] {
	return func(yield func(Held) bool) {
		for _, id := range slices.Sorted(maps.Keys(t.held)) {
			if !yield(*t.held[id]) {
				return
			}
		}
	}
}

// Dependencies returns those of which anything is said, by name.
func (t *Table) Dependencies() []string { return slices.Sorted(maps.Keys(t.subjects)) }

// Said tells whether anything is said of a dependency.
func (t *Table) Said(dependency string) bool { return t.subjects[dependency] != nil }

// Reports returns how many instances say something of a dependency.
func (t *Table) Reports(dependency string) int {
	if s := t.subjects[dependency]; s != nil {
		return s.votes
	}
	return 0
}

// Digest tells what is held of an instance from everything else; 0 if nothing. The
// age is no part of it.
func (t *Table) Digest(id string) uint64 {
	if h := t.held[id]; h != nil {
		return h.digest
	}
	return 0
}

// Age returns how old the record is.
func (h *Held) Age(now int64) time.Duration { return time.Duration(max(now-h.Born, 0)) }

// hash is FNV-1a over the strings with their lengths, spread.
func hash(parts ...string) uint64 {
	x := spread.Start
	for _, s := range parts {
		x = spread.Add(spread.Add(x, s)^uint64(len(s)), "\x00")
	}
	return spread.Mix(x)
}
