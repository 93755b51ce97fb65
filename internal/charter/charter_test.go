package charter_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/charter"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

// server is one of a cluster whose charter is passed on by hand.
type server struct {
	*charter.Charter
	id    string
	key   *trust.Key
	epoch document.Epoch
	term  uint64
}

func newServer(tb testing.TB, seed byte, poolKeys ...[]byte) *server {
	tb.Helper()
	key, err := trust.NewKey(rand.NewChaCha8([32]byte{seed}))
	if err != nil {
		tb.Fatal(err)
	}
	s := &server{id: fmt.Sprintf("s%d", seed), key: key, epoch: document.Epoch{Lineage: [16]byte{1}, Counter: 1}, term: 1}
	s.Charter = charter.New(charter.Config{
		Key: key, PoolKeys: poolKeys,
		Epoch: func() document.Epoch { return s.epoch }, Term: func() uint64 { return s.term },
	})
	return s
}

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func (s *server) trusted() trust.Server { return trust.Server{ID: s.id, Key: s.key.Public()} }

// lead makes the server the leader of a term.
func (s *server) lead(tb testing.TB, term uint64, servers ...*server) {
	tb.Helper()
	s.term = term
	var set []trust.Server
	for _, other := range servers {
		set = append(set, other.trusted())
	}
	if _, err := s.Lead(term, set); err != nil {
		tb.Fatal(err)
	}
}

// tell gives one server what another has; it returns what was news.
func (s *server) tell(to *server) (news []string) {
	for _, key := range s.Keys() {
		if got, ok := to.Merge(s.Encode(key)); ok {
			news = append(news, got)
		}
	}
	return news
}

// spread passes everything on until nobody learns anything.
func spread(servers ...*server) {
	for more := true; more; {
		more = false
		for _, a := range servers {
			for _, b := range servers {
				more = len(a.tell(b)) > 0 || more
			}
		}
	}
}

func same(a, b *server) bool { return bytes.Equal(a.Save(), b.Save()) }

func ids(keys []charter.Key) (ids []string) {
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return ids
}

func random() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{7}) }

func TestFirstKeysAreDerived(t *testing.T) {
	t.Parallel()
	a, b := newServer(t, 1, secret(1), secret(2)), newServer(t, 2, secret(2))
	shop, bank := a.PoolKeys("shop"), a.PoolKeys("bank")
	if len(shop) != 2 || len(shop[0].Value()) != 32 || shop[0].ID == bank[0].ID || bytes.Equal(shop[0].Value(), bank[0].Value()) ||
		bytes.Equal(shop[0].Value(), secret(1)) {
		t.Fatalf("got %v and %v", shop, bank)
	}
	// A server whose file has the new key already is understood by one in between.
	if got := b.PoolKeys("shop"); got[0].ID != shop[1].ID || !bytes.Equal(got[0].Value(), shop[1].Value()) {
		t.Fatalf("two servers derive %v and %v", got, shop)
	}
	if plain := newServer(t, 3); len(plain.PoolKeys("shop")) != 0 || !errors.Is(plain.Add(1, "shop", random(), 0), charter.ErrPlaintext) {
		t.Error("keys without a key")
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	s := newServer(t, 1, secret(1))
	first := s.PoolKeys("shop")[0].ID
	if err := s.Add(1, "shop", random(), 42); err != nil {
		t.Fatal(err)
	}
	keys := s.PoolKeys("shop")
	second := keys[1].ID
	if keys[0].ID != first || keys[1].Created != 42 || len(s.PoolKeys("bank")) != 1 {
		t.Fatalf("after add: %v", keys)
	}
	if err := s.Remove(1, "shop", first); !errors.Is(err, charter.ErrPrimary) {
		t.Errorf("the key that encrypts is removed: %v", err)
	}
	if err := s.Use(1, "shop", second); err != nil || !slices.Equal(ids(s.PoolKeys("shop")), []string{second, first}) {
		t.Fatalf("after use: %v, %v", s.PoolKeys("shop"), err)
	}
	if err := s.Remove(1, "shop", first); err != nil || !slices.Equal(ids(s.PoolKeys("shop")), []string{second}) {
		t.Fatalf("after remove: %v, %v", s.PoolKeys("shop"), err)
	}
	for name, err := range map[string]error{"used": s.Use(1, "shop", first), "removed": s.Remove(1, "shop", first)} {
		if !errors.Is(err, charter.ErrNoKey) {
			t.Errorf("a key that is gone is %s: %v", name, err)
		}
	}
	if err := s.Add(1, "", random(), 0); err == nil {
		t.Error("a key for no namespace")
	}
}

func TestKeysAreBounded(t *testing.T) {
	t.Parallel()
	s, draw := newServer(t, 1, secret(1)), random()
	for range charter.MaxKeys - 1 {
		if err := s.Add(1, "shop", draw, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(1, "shop", draw, 0); !errors.Is(err, charter.ErrFull) || len(s.PoolKeys("shop")) != charter.MaxKeys {
		t.Errorf("one more: %v", err)
	}
	if b := s.Encode("pool/shop"); len(b) > 1200 {
		t.Errorf("a record of %d bytes does not fit into a packet", len(b))
	}
}

func TestPoolsAreBounded(t *testing.T) {
	t.Parallel()
	s, draw := newServer(t, 1, secret(1)), random()
	for i := range charter.MaxPools {
		if err := s.Add(1, fmt.Sprintf("ns-%d", i), draw, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(1, "one-more", draw, 0); !errors.Is(err, charter.ErrFull) {
		t.Errorf("one more: %v", err)
	}
	other := newServer(t, 2, secret(1))
	if err := other.Add(1, "one-more", draw, 0); err != nil {
		t.Fatal(err)
	}
	if _, news := s.Merge(other.Encode("pool/one-more")); news || len(s.Keys()) != charter.MaxPools {
		t.Error("one more is merged")
	}
}

// Three servers agree on who signs, whatever the order, and each signs the set.
func TestAgreement(t *testing.T) {
	t.Parallel()
	a, b, c := newServer(t, 1, secret(1)), newServer(t, 2, secret(1)), newServer(t, 3, secret(1))
	a.lead(t, 1, a, b, c)
	if err := a.Add(1, "shop", random(), 0); err != nil {
		t.Fatal(err)
	}
	woken := b.Changed()
	spread(a, b, c)
	select {
	case <-woken:
	default:
		t.Error("a change wakes nobody")
	}
	if !same(a, b) || !same(b, c) {
		t.Fatal("they differ")
	}
	for _, key := range a.Keys() {
		if a.Digest(key) != b.Digest(key) || a.Digest(key) == 0 {
			t.Errorf("digests of %s differ", key)
		}
	}
	if a.Digest("pool/nothing") != 0 || a.Encode("pool/nothing") != nil || a.Encode("nothing") != nil {
		t.Error("there is something where there is nothing")
	}
	// An instance that knows only the third server believes the set.
	known, err := trust.NewSigners(c.key, c.epoch, 0, []trust.Server{c.trusted()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := known.Accept(a.Signers().Bytes()); err != nil {
		t.Errorf("the set is not signed by all: %v", err)
	}
	version := a.Signers().Version()
	for _, s := range []*server{a, b} {
		if changed, err := s.Lead(1, []trust.Server{c.trusted(), b.trusted(), a.trusted()}); changed || err != nil || s.Signers().Version() != version {
			t.Errorf("changed without need: %v", err)
		}
	}
}

// A leader that is cut off goes on for a while; what the next one says wins, also
// where the old one has changed more often.
func TestNextLeaderWins(t *testing.T) {
	t.Parallel()
	a, b, c := newServer(t, 1, secret(1)), newServer(t, 2, secret(1)), newServer(t, 3, secret(1))
	a.lead(t, 1, a, b, c)
	spread(a, b, c)
	draw := random()
	for range 3 {
		if err := a.Add(1, "shop", draw, 0); err != nil { // nobody hears of it
			t.Fatal(err)
		}
	}
	b.lead(t, 2, b, c)
	if err := b.Add(2, "shop", draw, 0); err != nil {
		t.Fatal(err)
	}
	c.term = 2
	spread(b, c)
	want := ids(b.PoolKeys("shop"))
	a.term = 2
	spread(a, b, c)
	if !same(a, b) || !same(b, c) || !slices.Equal(ids(a.PoolKeys("shop")), want) || a.Signers().Has(a.key.ID()) {
		t.Fatalf("the old leader's word stands: %v, wanted %v", ids(a.PoolKeys("shop")), want)
	}
	if err := a.Add(1, "shop", draw, 0); !errors.Is(err, charter.ErrOvertaken) {
		t.Errorf("the old leader changes it: %v", err)
	}
	if _, err := a.Lead(1, []trust.Server{a.trusted()}); !errors.Is(err, charter.ErrOvertaken) {
		t.Errorf("the old leader changes it: %v", err)
	}
}

// Records may come in any order and more than once.
func TestMergeIsASemilattice(t *testing.T) {
	t.Parallel()
	draw := random()
	var records [][]byte
	for seed := byte(1); seed <= 3; seed++ {
		s := newServer(t, seed, secret(1))
		s.lead(t, uint64(seed), s)
		for range seed {
			if err := s.Add(uint64(1+seed%2), "shop", draw, 0); err != nil {
				t.Fatal(err)
			}
			records = append(records, s.Encode("pool/shop"))
		}
		records = append(records, s.Encode("signers"))
	}
	order := rand.New(draw)
	var want []byte
	for range 50 {
		s := newServer(t, 9, secret(1))
		s.term = 9
		order.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		for _, b := range append(records, records[0], records[len(records)/2]) {
			s.Merge(b)
		}
		if want == nil {
			want = s.Save()
		}
		if !bytes.Equal(s.Save(), want) {
			t.Fatal("the order matters")
		}
		for _, b := range records {
			if _, news := s.Merge(b); news {
				t.Fatal("not idempotent")
			}
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	from := newServer(t, 1, secret(1))
	from.lead(t, 5, from)
	if err := from.Add(5, "shop", random(), 0); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*server){
		"of a later term than is known": func(s *server) { s.term = 4 },
		"of another cluster":            func(s *server) { s.epoch.Lineage = [16]byte{2} },
		"before the cluster is known":   func(s *server) { s.epoch = document.Epoch{} },
	} {
		s := newServer(t, 2, secret(1))
		s.term = 5
		change(s)
		if news := from.tell(s); len(news) > 0 {
			t.Errorf("%s: takes %v", name, news)
		}
	}
	plain := newServer(t, 2)
	plain.term = 5
	if news := from.tell(plain); !slices.Equal(news, []string{"signers"}) {
		t.Errorf("takes keys in plaintext: %v", news)
	}
	s := newServer(t, 2, secret(1))
	s.term = 5
	for _, key := range from.Keys() {
		b := from.Encode(key)
		for _, bad := range [][]byte{nil, {}, {1}, {2}, {3, 1}, b[:len(b)-1], append(bytes.Clone(b), 0)} {
			if _, news := s.Merge(bad); news {
				t.Errorf("%s: takes %x", key, bad)
			}
		}
	}
	// A forged version that leaves no room for another one.
	exhausted := bytes.Clone(from.Encode("pool/shop"))
	copy(exhausted[1+16:], []byte{0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff})
	if _, news := s.Merge(exhausted); news {
		t.Error("takes a version after which there is none")
	}
}

// A cluster that goes on with the backup of another one keeps its keys, and its
// servers go on agreeing.
func TestAnotherLineage(t *testing.T) {
	t.Parallel()
	a, b := newServer(t, 1, secret(1)), newServer(t, 2, secret(1))
	a.lead(t, 1, a, b)
	if err := a.Add(1, "shop", random(), 0); err != nil {
		t.Fatal(err)
	}
	spread(a, b)
	a.epoch = document.Epoch{Lineage: [16]byte{2}, Counter: 2}
	b.epoch = a.epoch
	a.lead(t, 1, a, b)
	spread(a, b)
	fresh := newServer(t, 3, secret(1))
	fresh.epoch = a.epoch
	spread(a, fresh)
	if !same(a, b) || !slices.Equal(ids(fresh.PoolKeys("shop")), ids(a.PoolKeys("shop"))) || a.Signers().Epoch() != a.epoch {
		t.Fatal("they differ")
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	a := newServer(t, 1, secret(1))
	a.lead(t, 1, a)
	for _, ns := range []string{"shop", "bank"} {
		if err := a.Add(1, ns, random(), 3); err != nil {
			t.Fatal(err)
		}
	}
	back := newServer(t, 1, secret(1))
	if err := back.Load(a.Save()); err != nil || !same(a, back) {
		t.Fatalf("it does not come back: %v", err)
	}
	saved := a.Save()
	for i := 1; i < len(saved); i++ {
		_ = newServer(t, 1, secret(1)).Load(saved[:i]) // no panic
	}
	for _, bad := range [][]byte{{1}, {0}, {2, 1, 1}, {1, 9}, saved[:len(saved)-1]} {
		if err := newServer(t, 1).Load(bad); err == nil {
			t.Errorf("loads %x", bad)
		}
	}
}

func TestPoolKeysAreShownNowhere(t *testing.T) {
	t.Parallel()
	k := newServer(t, 1, secret(1)).PoolKeys("shop")[0]
	marshalled, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	shown := string(marshalled)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown += fmt.Sprintf(verb, k) + fmt.Sprintf(verb, []charter.Key{k})
	}
	v := k.Value()
	for _, form := range []string{string(v[:4]), fmt.Sprintf("%x", v[:4]), fmt.Sprintf("%d %d %d", v[0], v[1], v[2]), fmt.Sprintf("%d,%d,%d", v[0], v[1], v[2])} {
		if strings.Contains(shown, form) {
			t.Fatalf("the key shows: %s", shown)
		}
	}
}

func FuzzMerge(f *testing.F) {
	a := newServer(f, 1, secret(1))
	a.lead(f, 1, a)
	if err := a.Add(1, "shop", random(), 3); err != nil {
		f.Fatal(err)
	}
	f.Add(a.Encode("signers"))
	f.Add(a.Encode("pool/shop"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newServer(t, 2, secret(1))
		key, news := s.Merge(data)
		if !news {
			return
		}
		if key != "signers" && !bytes.Equal(s.Encode(key), data) {
			t.Fatal("two encodings of one record")
		}
		if _, again := s.Merge(data); again {
			t.Fatal("not idempotent")
		}
	})
}
