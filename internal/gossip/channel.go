package gossip

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// What a message of a channel is.
const (
	kindNews byte = 1 + iota // records
	kindSums                 // a digest for each bucket of keys: compare
	kindHave                 // the digests of single keys: answer to kindSums
	kindWant                 // keys that the asker lacks: answer to kindHave
)

const (
	// recordLimit is the longest record. One that does not fit a packet goes by
	// streams.
	recordLimit = 64 << 10
	// exchangeLimit bounds what one channel gives to a periodic exchange, and
	// stateLimit what is taken in of all of them.
	exchangeLimit = 512 << 10
	stateLimit    = 2 << 20
	// sightBuckets is the length of the histogram of first sights.
	sightBuckets = 16
)

// Records are values under keys that replicate by gossip, each on its own. The
// value of a key must merge commutatively, associatively and idempotently. All
// methods are called concurrently, never under a lock of the pool, and must
// neither block nor call the pool.
type Records interface {
	// Keys returns everything that is held, in a slice that the pool may change.
	Keys() []string
	// Encode returns a record as it is now, ages included; nil if it is gone. The
	// pool does not change the bytes.
	Encode(key string) []byte
	// Merge takes in what another process encoded, and tells whether it was news,
	// which is then passed on. It may keep no reference to b.
	Merge(b []byte) (key string, news bool)
	// Digest tells contents apart: 0 if the record is gone, and the same value in
	// every process that holds the same content, whatever its age. Records whose
	// digest is always 0 are not repaired between periodic exchanges.
	Digest(key string) uint64
}

// single is a State as records with one key.
type single struct{ state State }

func (s single) Keys() []string                { return []string{""} }
func (s single) Encode(string) []byte          { return s.state.Encode() }
func (s single) Merge(b []byte) (string, bool) { return "", s.state.Merge(b) }
func (s single) Digest(string) uint64          { return 0 }

// Channel carries records. It is safe for concurrent use.
type Channel struct {
	pool    *Pool
	name    string
	id      uint32 // of the name, in digests; 0 keeps out of them
	plain   bool   // one record, and nothing round it
	records Records
}

// AddRecords registers records under a name of at most 255 bytes, which every
// member must use for the same kind. It must be called before Start.
func (p *Pool) AddRecords(name string, r Records) *Channel {
	c := p.addChannel(name, r)
	c.id = uint32(hashKey(name)) | 1
	return c
}

func (p *Pool) addChannel(name string, r Records) *Channel {
	c := &Channel{pool: p, name: name, records: r}
	p.channels[name] = c
	return c
}

// Spread tells everybody of news: a few members at once, and all by and by. It
// calls nothing and does not block, so that it may be called under any lock.
func (c *Channel) Spread(key string) { c.spread(key, false) }

// Refresh is Spread for a record that is only younger than before: it goes round
// less often and is pushed to nobody.
func (c *Channel) Refresh(key string) { c.spread(key, true) }

func (c *Channel) spread(key string, quiet bool) {
	it := item{entry: entry{c, key}, born: time.Now(), quiet: quiet, local: true}
	if c.pool.queue.put(it, !quiet) {
		poke(c.pool.wake)
	}
}

// Budget is the longest record that fits a packet. Longer ones, up to 64 KiB,
// travel by streams and arrive later.
func (c *Channel) Budget() int {
	return c.pool.budget - batchOverhead - 1 - len(c.name) - entryOverhead
}

// newMessage begins a message.
func (c *Channel) newMessage(kind byte) []byte {
	return append(appendName(make([]byte, 0, 256), c.name), kind)
}

// appendRecord puts a record behind how old it is: 0 if that is unknown, else the
// milliseconds plus one, doubled, plus one if it is quiet.
func appendRecord(b, record []byte, it item) []byte {
	age := uint64(0)
	if !it.born.IsZero() {
		age = uint64(max(time.Since(it.born), 0).Milliseconds()+1) << 1
		if it.quiet {
			age |= 1
		}
	}
	b = binary.AppendUvarint(b, uint64(uvarintLen(age)+len(record)))
	b = binary.AppendUvarint(b, age)
	return append(b, record...)
}

func uvarintLen(v uint64) int { return max(1, (bits.Len64(v)+6)/7) }

// receive takes in the body of a message.
func (c *Channel) receive(body []byte) {
	if c.plain {
		c.take(body, item{})
		return
	}
	if len(body) == 0 {
		c.pool.malformed.Add(1)
		return
	}
	var err error
	switch kind, body := body[0], body[1:]; kind {
	case kindNews:
		err = eachBlock(body, c.merge)
	case kindSums, kindHave, kindWant:
		err = c.repair(kind, body)
	default: // of a newer version
		err = errTruncated
	}
	if err != nil {
		c.pool.malformed.Add(1)
	}
}

// merge takes in a record. What comes from an exchange or a repair, and has no age,
// goes on quietly: most others have it.
func (c *Channel) merge(block []byte) {
	header, n := binary.Uvarint(block)
	if n <= 0 || len(block) > recordLimit+binary.MaxVarintLen64 {
		c.pool.malformed.Add(1)
		return
	}
	it := item{quiet: header&1 == 1 || header == 0}
	if header > 0 {
		age := time.Duration(max(1, min(header>>1, 1<<32))-1) * time.Millisecond
		it.born = time.Now().Add(-age)
	}
	c.take(block[n:], it)
}

// take merges a record and passes news on.
func (c *Channel) take(record []byte, it item) {
	p := c.pool
	p.merged.Add(1)
	key, news := c.records.Merge(record)
	if !news && !seam.Bug(seam.EverythingIsNews) {
		return
	}
	p.news.Add(1)
	if !it.born.IsZero() {
		age := time.Since(it.born).Milliseconds()
		p.firstSight[min(bits.Len64(uint64(max(0, age))), sightBuckets-1)].Add(1)
	}
	it.entry = entry{c, key}
	if p.queue.put(it, !it.quiet) {
		poke(p.wake)
	}
}

// news is a message with one record, nil if it is gone.
func (c *Channel) news(it item) []byte {
	record := c.records.Encode(it.key)
	if record == nil {
		return nil
	}
	if c.plain {
		return append(appendName(nil, c.name), record...)
	}
	return appendRecord(c.newMessage(kindNews), record, it)
}

// exchange is everything that the channel holds, for the periodic exchange.
func (c *Channel) exchange() []byte {
	if c.plain {
		return c.news(item{})
	}
	message := c.newMessage(kindNews)
	for _, key := range shuffled(c.records.Keys()) {
		record := c.records.Encode(key)
		if record == nil || len(record) > recordLimit {
			continue
		}
		if len(message)+len(record) > exchangeLimit {
			break
		}
		message = appendRecord(message, record, item{})
	}
	return message
}
