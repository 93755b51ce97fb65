package replies

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// Key names a question: the SHA-256 of everything that its answer may depend on.
type Key [sha256.Size]byte

// Pair is a name and a value of metadata that an answer varies by. What has
// several values has several pairs; what has none has no pair.
type Pair struct{ Name, Value string }

// NewKey returns the key of a request to a method of a dependency. Keys are equal
// if all of it is, pairs in the same order, and otherwise differ.
func NewKey(dependency, method string, request []byte, vary []Pair) Key {
	body := sha256.Sum256(request) // so that a large one is not copied
	const usual = 512
	text := append(make([]byte, 0, usual), body[:]...)
	text = appendText(appendText(text, dependency), method)
	for _, pair := range vary {
		text = appendText(appendText(text, pair.Name), pair.Value)
	}
	return sha256.Sum256(text)
}

// appendText writes a text so that where it ends does not depend on what follows.
func appendText(to []byte, s string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(s))), s...)
}

const (
	// A cache has a shard for each shardBytes, up to shardsMax.
	shardBytes = 1 << 20
	shardsMax  = 16
	// An entry takes its bytes and about entryOverhead, and at most 1/entryShare of
	// its shard.
	entryOverhead = 256
	entryShare    = 4
)

// Cache keeps replies of type V; they are shared with whoever gets them and must not
// be changed. When the bytes run out the least recently used goes. Its methods may
// be called at the same time; now is in ns of any clock that does not go back.
//
// Bytes are divided among shards of 1 MiB and more, and one reply takes at most a
// quarter of a shard.
type Cache[V any] struct {
	shards []shard[V]
}

// Use is what a cache has seen: what it holds now, and since it was made, the
// replies found, not found, found but too old, put in, and put out for others, and
// those that it refused as too large.
type Use struct {
	Entries                                       int
	Bytes, Limit                                  int64
	Hits, Misses, Stale, Stored, Evicted, Refused uint64
}

type shard[V any] struct {
	mu      sync.Mutex
	entries map[Key]*list.Element
	recent  list.List // of *entry[V], the most recently used first
	use     Use
	_       [64]byte
}

type entry[V any] struct {
	key   Key
	reply V
	at    int64
	bytes int64
}

// New returns an empty cache of so many bytes.
func New[V any](limit int64) *Cache[V] {
	n := min(max(limit/shardBytes, 1), shardsMax)
	c := &Cache[V]{shards: make([]shard[V], n)}
	for i := range c.shards {
		c.shards[i].entries = map[Key]*list.Element{}
		c.shards[i].use.Limit = max(limit, 0) / n
	}
	return c
}

func (c *Cache[V]) shard(k Key) *shard[V] {
	return &c.shards[binary.LittleEndian.Uint64(k[:])%uint64(len(c.shards))]
}

// Put keeps a reply of so many bytes that was received at now, unless it has a newer
// one.
func (c *Cache[V]) Put(now int64, k Key, reply V, size int) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := &entry[V]{key: k, reply: reply, at: now, bytes: int64(max(size, 0)) + entryOverhead}
	old, has := s.entries[k]
	if has && old.Value.(*entry[V]).at > now {
		return
	}
	if has {
		s.remove(old) // also where the new one is too large: it is not the last any more
	}
	if fresh.bytes > s.use.Limit/entryShare {
		s.use.Refused++
		return
	}
	s.entries[k] = s.recent.PushFront(fresh)
	s.use.Bytes += fresh.bytes
	s.use.Stored++
	for s.use.Bytes > s.use.Limit {
		s.remove(s.recent.Back())
		s.use.Evicted++
	}
}

func (s *shard[V]) remove(e *list.Element) {
	gone := s.recent.Remove(e).(*entry[V])
	delete(s.entries, gone.key)
	s.use.Bytes -= gone.bytes
}

// Get returns the reply to k and its age, if that is at most maxAge.
func (c *Cache[V]) Get(now int64, k Key, maxAge time.Duration) (reply V, age time.Duration, ok bool) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	element, has := s.entries[k]
	if !has {
		s.use.Misses++
		return reply, 0, false
	}
	found := element.Value.(*entry[V])
	if age = time.Duration(max(now-found.at, 0)); age > maxAge {
		s.use.Stale++
		return reply, 0, false
	}
	s.use.Hits++
	s.recent.MoveToFront(element)
	return found.reply, age, true
}

// Clear forgets all replies.
func (c *Cache[V]) Clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		clear(s.entries)
		s.recent.Init()
		s.use.Bytes = 0
		s.mu.Unlock()
	}
}

// Use returns what the cache has seen.
func (c *Cache[V]) Use() Use {
	var all Use
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		all.Entries += len(s.entries)
		all.Bytes += s.use.Bytes
		all.Limit += s.use.Limit
		all.Hits += s.use.Hits
		all.Misses += s.use.Misses
		all.Stale += s.use.Stale
		all.Stored += s.use.Stored
		all.Evicted += s.use.Evicted
		all.Refused += s.use.Refused
		s.mu.Unlock()
	}
	return all
}
