package replies

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// question is everything that a key is made of.
type question struct {
	dependency, method string
	request            []byte
	vary               []Pair
}

func (q question) key() Key { return NewKey(q.dependency, q.method, q.request, q.vary) }

func (q question) equal(o question) bool {
	return q.dependency == o.dependency && q.method == o.method && bytes.Equal(q.request, o.request) && slices.Equal(q.vary, o.vary)
}

// TestKeysTellQuestionsApart: also where one's parts are the other's, cut elsewhere.
func TestKeysTellQuestionsApart(t *testing.T) {
	pairs := func(texts ...string) (p []Pair) {
		for i := 0; i < len(texts); i += 2 {
			p = append(p, Pair{texts[i], texts[i+1]})
		}
		return p
	}
	questions := []question{
		{},
		{dependency: "a"},
		{method: "a"},
		{request: []byte("a")},
		{vary: pairs("a", "")},
		{vary: pairs("", "a")},
		{vary: pairs("", "")},
		{vary: pairs("", "", "", "")},
		{dependency: "ab", method: "c"},
		{dependency: "a", method: "bc"},
		{dependency: "a", method: "b", request: []byte("c")},
		{dependency: "a", method: "b", vary: pairs("c", "d")},
		{dependency: "a", method: "b", vary: pairs("cd", "")},
		{dependency: "a", method: "b", vary: pairs("c", "d", "e", "f")},
		{dependency: "a", method: "b", vary: pairs("e", "f", "c", "d")},
		{dependency: "a", method: "b", vary: pairs("c", "d\x01e\x01f")},
		{dependency: "payments", method: "/shop.Payments/List", request: []byte{1}, vary: pairs("authorization", "alice")},
		{dependency: "payments", method: "/shop.Payments/List", request: []byte{1}, vary: pairs("authorization", "bob")},
		{dependency: "payments", method: "/shop.Payments/List", request: []byte{1}},
		{dependency: "payments", method: "/shop.Payments/List", request: []byte{1}, vary: pairs("authorization", "alice", "authorization", "bob")},
	}
	seen := map[Key]int{}
	for i, q := range questions {
		if j, has := seen[q.key()]; has {
			t.Errorf("%+v and %+v have one key", questions[j], q)
		}
		seen[q.key()] = i
		again := question{q.dependency, q.method, slices.Clone(q.request), slices.Clone(q.vary)}
		if again.key() != q.key() {
			t.Errorf("%+v has two keys", q)
		}
	}
}

func TestKeysAreExact(t *testing.T) {
	text := rapid.StringOfN(rapid.SampledFrom([]rune("ab\x00\x01")), 0, 4, -1)
	draw := rapid.Custom(func(t *rapid.T) question {
		q := question{text.Draw(t, "dependency"), text.Draw(t, "method"), []byte(text.Draw(t, "request")), nil}
		for range rapid.IntRange(0, 2).Draw(t, "pairs") {
			q.vary = append(q.vary, Pair{text.Draw(t, "name"), text.Draw(t, "value")})
		}
		return q
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		if (a.key() == b.key()) != a.equal(b) {
			t.Fatalf("%+v and %+v: equal keys %v", a, b, a.key() == b.key())
		}
	})
}

// TestTwoUsers: the same question from another user is another question.
func TestTwoUsers(t *testing.T) {
	c := New[string](shardBytes)
	ask := func(user string) Key {
		return NewKey("payments", "/shop.Payments/List", []byte("all"), []Pair{{"authorization", user}})
	}
	c.Put(0, ask("alice"), "alice's payments", 16)
	if reply, _, ok := c.Get(1, ask("bob"), time.Hour); ok {
		t.Errorf("bob sees %s", reply)
	}
	if reply, _, ok := c.Get(1, ask("alice"), time.Hour); !ok || reply != "alice's payments" {
		t.Errorf("alice sees %q, %v", reply, ok)
	}
}

func key(n int) (k Key) {
	// All in the first shard of one or of many.
	binary.BigEndian.PutUint64(k[8:], uint64(n)) //nolint:gosec // tests count from 0
	return k
}

func TestAges(t *testing.T) {
	c := New[int](shardBytes)
	get := func(now int64, maxAge time.Duration, want int, wantAge time.Duration) {
		t.Helper()
		if got, age, ok := c.Get(now, key(1), maxAge); got != want || ok != (want != 0) || age != wantAge {
			t.Errorf("at %d: %v, %v, %v, want %v, %v", now, got, age, ok, want, wantAge)
		}
	}
	get(0, time.Hour, 0, 0)
	c.Put(100, key(1), 7, 1)
	get(100, 0, 7, 0)
	get(105, 5, 7, 5)
	get(106, 5, 0, 0)
	get(106, 6, 7, 6) // another effect may take older ones
	get(90, 0, 7, 0)  // another clock is a little behind
	c.Put(99, key(1), 6, 1)
	get(106, 6, 7, 6) // a reply that was overtaken
	c.Put(100, key(1), 8, 1)
	c.Put(103, key(1), 9, 1)
	get(106, 6, 9, 3)
	if use := c.Use(); use.Hits != 6 || use.Misses != 1 || use.Stale != 1 || use.Stored != 3 || use.Entries != 1 || use.Bytes != entryOverhead+1 {
		t.Errorf("%+v", use)
	}
	c.Clear()
	get(106, time.Hour, 0, 0)
	if use := c.Use(); use.Entries != 0 || use.Bytes != 0 || use.Evicted != 0 {
		t.Errorf("%+v", use)
	}
}

// TestBytesAreBounded: the least recently used goes, and what is too large does not
// come in.
func TestBytesAreBounded(t *testing.T) {
	const size = 1000
	c := New[int](10 * (size + entryOverhead))
	for i := range 10 {
		c.Put(0, key(i), i, size)
	}
	c.Get(0, key(0), 0)
	c.Get(0, key(1), -1) // too old: not a use
	c.Put(0, key(2), 2, size)
	for i := range 3 {
		c.Put(0, key(10+i), 10+i, size)
	}
	for i, want := range []bool{true, false, true, false, false, true, true, true, true, true, true, true, true} {
		if _, _, ok := c.Get(0, key(i), 0); ok != want {
			t.Errorf("entry %d: %v", i, ok)
		}
	}
	if use := c.Use(); use.Entries != 10 || use.Bytes != use.Limit || use.Evicted != 3 {
		t.Errorf("%+v", use)
	}
	quarter := 10 * (size + entryOverhead) / entryShare
	c.Put(0, key(20), 20, quarter-entryOverhead)
	c.Put(1, key(21), 21, quarter-entryOverhead+1)
	c.Put(1, key(20), 20, 1<<40) // what it replaces is not the last good reply any more
	for i := 20; i < 22; i++ {
		if _, _, ok := c.Get(0, key(i), time.Hour); ok {
			t.Errorf("entry %d", i)
		}
	}
	if use := c.Use(); use.Refused != 2 || use.Bytes > use.Limit {
		t.Errorf("%+v", use)
	}
	for _, limit := range []int64{0, -1, 1} {
		none := New[int](limit)
		none.Put(0, key(1), 1, 0)
		if use := none.Use(); use.Entries != 0 || use.Refused != 1 || use.Limit < 0 {
			t.Errorf("with %d bytes %+v", limit, use)
		}
	}
}

// naiveCache is a list, the most recently used last.
type naiveCache struct {
	limit   int64
	entries []entry[int]
}

func (n *naiveCache) index(k Key) int {
	return slices.IndexFunc(n.entries, func(e entry[int]) bool { return e.key == k })
}

func (n *naiveCache) put(now int64, k Key, reply, size int) {
	bytes := int64(size) + entryOverhead
	if i := n.index(k); i >= 0 {
		if n.entries[i].at > now {
			return
		}
		n.entries = slices.Delete(n.entries, i, i+1)
	}
	if bytes*entryShare > n.limit {
		return
	}
	n.entries = append(n.entries, entry[int]{k, reply, now, bytes})
	for n.bytes() > n.limit {
		n.entries = n.entries[1:]
	}
}

func (n *naiveCache) get(now int64, k Key, maxAge time.Duration) (int, bool) {
	i := n.index(k)
	if i < 0 || max(now-n.entries[i].at, 0) > int64(maxAge) {
		return 0, false
	}
	e := n.entries[i]
	n.entries = append(slices.Delete(n.entries, i, i+1), e)
	return e.reply, true
}

func (n *naiveCache) bytes() (sum int64) {
	for _, e := range n.entries {
		sum += e.bytes
	}
	return sum
}

func TestCacheIsTheNaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(0, 8000).Draw(t, "limit")
		c, naive := New[int](limit), &naiveCache{limit: limit}
		now := int64(0)
		for i := range rapid.IntRange(1, 100).Draw(t, "steps") {
			now += rapid.Int64Range(-2, 5).Draw(t, "later")
			k := key(rapid.IntRange(0, 8).Draw(t, "key"))
			if rapid.Bool().Draw(t, "put") {
				size := rapid.IntRange(0, 2000).Draw(t, "size")
				c.Put(now, k, i+1, size)
				naive.put(now, k, i+1, size)
			} else {
				maxAge := time.Duration(rapid.Int64Range(0, 30).Draw(t, "age"))
				got, _, ok := c.Get(now, k, maxAge)
				if want, wantOK := naive.get(now, k, maxAge); got != want || ok != wantOK {
					t.Fatalf("%v, %v, want %v, %v", got, ok, want, wantOK)
				}
			}
			use := c.Use()
			if use.Entries != len(naive.entries) || use.Bytes != naive.bytes() || use.Bytes > max(limit, 0) {
				t.Fatalf("%+v, want %d entries of %d bytes", use, len(naive.entries), naive.bytes())
			}
			if kept := use.Stored - use.Evicted; kept < uint64(use.Entries) { //nolint:gosec // not negative
				t.Fatalf("%+v", use)
			}
		}
	})
}

func TestCacheUnderStress(t *testing.T) {
	c := New[string](20 * shardBytes)
	if len(c.shards) != shardsMax {
		t.Fatalf("%d shards", len(c.shards))
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 2000 {
				name := fmt.Sprint((worker*31 + i*7) % 300)
				k := NewKey("d", name, nil, nil)
				if reply, _, ok := c.Get(int64(i), k, time.Hour); ok && reply != name {
					t.Errorf("%s is answered as %s", name, reply)
				}
				c.Put(int64(i), k, name, 100_000+i)
				if i%1000 == 999 {
					c.Clear()
				}
			}
		})
	}
	group.Wait()
	if use := c.Use(); use.Bytes > use.Limit || use.Hits+use.Misses != 16_000 || use.Evicted == 0 {
		t.Errorf("%+v", use)
	}
	var left int64
	for i := range c.shards {
		for e := c.shards[i].recent.Front(); e != nil; e = e.Next() {
			left += e.Value.(*entry[string]).bytes
		}
	}
	if use := c.Use(); left != use.Bytes {
		t.Errorf("%+v, but entries have %d bytes", use, left)
	}
}

func TestKeysAndHitsCostNothing(t *testing.T) {
	c := New[string](shardBytes)
	request, vary := make([]byte, 10_000), []Pair{{"authorization", "Bearer 0123456789"}}
	k := NewKey("payments", "/shop.Payments/List", request, vary)
	c.Put(0, k, "reply", 5)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, ok := c.Get(1, NewKey("payments", "/shop.Payments/List", request, vary), time.Hour); !ok {
			t.Error("no hit")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkKey(b *testing.B) {
	request, vary := make([]byte, 100), []Pair{{"authorization", "Bearer 0123456789"}}
	for b.Loop() {
		NewKey("payments", "/shop.Payments/List", request, vary)
	}
}

func BenchmarkCache(b *testing.B) {
	c := New[string](16 * shardBytes)
	k := NewKey("payments", "/shop.Payments/List", nil, nil)
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			c.Put(0, k, "reply", 5)
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			c.Get(0, k, time.Hour)
		}
	})
}
