package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func epoch(counter uint64) document.Epoch {
	return document.Epoch{Lineage: [16]byte{1}, Counter: counter, Nonce: 1000 + counter}
}

func flag(name, spec string, revision uint64) *document.Resource {
	return &document.Resource{
		Key: document.Key{Kind: document.Flag, Name: name}, Spec: []byte(spec),
		CreateRevision: 1, ModRevision: revision, Version: revision, CreateTime: 1_700_000_000_000, Actor: "ann",
	}
}

// content is what a namespace holds; a naive twin of Mirror.
type content map[document.Key]*document.Resource

func (c content) root() document.Root {
	return document.Build(func(yield func(document.Key, [32]byte) bool) {
		for k, r := range c {
			if !yield(k, r.Hash()) {
				return
			}
		}
	}).Root()
}

// server is the history of a namespace: the whole content at every position.
type server struct {
	at      Position
	history map[Position]content
}

func newServer() *server {
	p := Position{Epoch: epoch(1)}
	return &server{at: p, history: map[Position]content{p: {}}}
}

func (s *server) draw(t *rapid.T, label string) Position {
	all := slices.SortedFunc(maps.Keys(s.history), func(a, b Position) int {
		return int(a.Epoch.Counter)*1000 + int(a.Revision) - int(b.Epoch.Counter)*1000 - int(b.Revision)
	})
	return rapid.SampledFrom(all).Draw(t, label)
}

// commit makes the next revision, which may leave the content as it is: revisions
// are those of all namespaces.
func (s *server) commit(t *rapid.T) {
	next := maps.Clone(s.history[s.at])
	s.at.Revision++
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		k := document.Key{
			Kind: rapid.SampledFrom(document.Kinds()).Draw(t, "kind"),
			Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
		}
		if rapid.Bool().Draw(t, "delete") {
			delete(next, k)
			continue
		}
		r := flag(k.Name, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "spec"), s.at.Revision)
		r.Kind = k.Kind
		next[k] = r
	}
	s.history[s.at] = next
}

// recover begins the next epoch, at any revision, as a restore does.
func (s *server) recover(t *rapid.T) {
	from := s.draw(t, "backup")
	s.at = Position{epoch(s.at.Epoch.Counter + 1), from.Revision}
	s.history[s.at] = s.history[from]
}

// tell returns the messages of a snapshot, a delta between two positions, or
// progress, in chunks of any size.
func (s *server) tell(t *rapid.T, kind string, from, to Position) []*holdfastv1.ConnectResponse {
	root := s.history[to].root()
	head := func() *holdfastv1.ConnectResponse { return &holdfastv1.ConnectResponse{Epoch: to.Epoch.Proto()} }
	if kind == "progress" {
		m := head()
		m.Event = &holdfastv1.ConnectResponse_Progress{Progress: &holdfastv1.Progress{Revision: to.Revision, Root: root[:]}}
		return []*holdfastv1.ConnectResponse{m}
	}
	var puts []*holdfastv1.Resource
	var deletes []*holdfastv1.Tombstone
	for k, r := range s.history[to] {
		if old := s.history[from][k]; kind == "snapshot" || old == nil || old.Hash() != r.Hash() {
			puts = append(puts, r.Proto(""))
		}
	}
	gone := content{} // since from, also what came and went
	for p := from; kind == "delta" && p.Revision <= to.Revision; p.Revision++ {
		maps.Copy(gone, s.history[p])
	}
	for k := range gone {
		if s.history[to][k] == nil {
			deletes = append(deletes, document.Tombstone{Key: k, Revision: to.Revision}.Proto("default"))
		}
	}
	var all []*holdfastv1.ConnectResponse
	for n := uint32(0); ; n++ {
		p := rapid.IntRange(0, len(puts)).Draw(t, "puts")
		d := rapid.IntRange(0, len(deletes)).Draw(t, "deletes")
		last := p == len(puts) && d == len(deletes)
		m := head()
		if kind == "snapshot" {
			m.Event = &holdfastv1.ConnectResponse_Snapshot{Snapshot: &holdfastv1.Snapshot{
				Revision: to.Revision, Root: root[:], Chunk: n, Last: last, Resources: puts[:p],
			}}
		} else {
			m.Event = &holdfastv1.ConnectResponse_Delta{Delta: &holdfastv1.Delta{
				From: from.Revision, To: to.Revision, Root: root[:], Chunk: n, Last: last, Puts: puts[:p], Deletes: deletes[:d],
			}}
		}
		all = append(all, m)
		if last {
			return all
		}
		puts, deletes = puts[p:], deletes[d:]
	}
}

// spoil damages messages in one of the ways of a bad link or a wrong server, and
// tells whether it did.
func spoil(t *rapid.T, all []*holdfastv1.ConnectResponse) ([]*holdfastv1.ConnectResponse, bool) {
	i := rapid.IntRange(0, len(all)-1).Draw(t, "where")
	switch rapid.IntRange(0, 12).Draw(t, "damage") {
	case 0: // a message is lost
		return slices.Delete(all, i, i+1), true
	case 1: // a message comes twice
		return slices.Insert(all, i, all[i]), true
	case 2: // a resource is lost
		if s := all[i].GetSnapshot(); s != nil && len(s.Resources) > 0 {
			s.Resources = s.Resources[1:]
			return all, true
		}
		if d := all[i].GetDelta(); d != nil && len(d.Puts) > 0 {
			d.Puts = d.Puts[1:]
			return all, true
		}
	case 3: // a definition is another one
		for _, r := range slices.Concat(all[i].GetSnapshot().GetResources(), all[i].GetDelta().GetPuts()) {
			r.Spec = []byte("3")
			return all, true
		}
	case 4: // a deletion is lost
		if d := all[i].GetDelta(); d != nil && len(d.Deletes) > 0 {
			d.Deletes = d.Deletes[1:]
			return all, true
		}
	}
	return all, false
}

// sameAs checks a mirror against the truth at its position.
func sameAs(t *rapid.T, m *Mirror, want content) {
	got := maps.Collect(m.All())
	if !maps.EqualFunc(got, want, func(a, b *document.Resource) bool { return a.Hash() == b.Hash() }) || m.Root() != want.root() || m.Len() != len(want) {
		t.Fatalf("at %s the mirror holds %v with root %x, want %v with %x", m.Position(), got, m.Root(), want, want.root())
	}
	n := 0
	for _, r := range want {
		n += r.Size()
	}
	if m.Bytes() != n {
		t.Fatalf("the mirror counts %d bytes, want %d", m.Bytes(), n)
	}
}

// expected is the rule about what is taken in, over again: nil for what is.
func expected(s *server, m *Mirror, kind string, from, to Position) error {
	floor, at := m.Floor(), m.Position()
	switch {
	case floor.Set() && to.Epoch.Counter < floor.Epoch.Counter:
		return ErrOlderEpoch
	case floor.Set() && to.Epoch == floor.Epoch && to.Revision < floor.Revision:
		return ErrBehind
	case kind == "snapshot":
		return nil
	case at.Epoch != to.Epoch, kind == "delta" && from.Revision > at.Revision:
		return ErrGap
	case kind == "progress" && s.history[at].root() != s.history[to].root():
		return ErrRoot
	default:
		return nil
	}
}

// TestMirrorAgainstTwin tells a mirror about a namespace in any way, right and
// wrong, over any number of streams and restarts. What it holds is always exactly
// what the namespace was at the position that it says, and it never goes back.
func TestMirrorAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := newServer(), New("default", Position{})
		a := NewAssembler("default")
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				s.commit(t)
				continue
			case 3:
				if rapid.IntRange(0, 3).Draw(t, "recover") == 0 {
					s.recover(t)
				}
				continue
			case 4:
				m = restart(t, m)
				continue
			}
			kind := rapid.SampledFrom([]string{"snapshot", "delta", "delta", "progress"}).Draw(t, "kind")
			to := s.draw(t, "to")
			from := to
			from.Revision = rapid.Uint64Range(0, to.Revision).Draw(t, "from")
			for s.history[from] == nil { // an epoch does not begin at 0
				from.Revision++
			}
			messages, spoiled := spoil(t, s.tell(t, kind, from, to))
			next, err := follow(a, m, messages)
			if err != nil {
				a = NewAssembler("default")
			}
			switch want := expected(s, m, kind, from, to); {
			case !spoiled && !errors.Is(err, want):
				t.Fatalf("%s from %s to %s for %s: got %v, want %v", kind, from, to, m.Position(), err, want)
			case spoiled && len(messages) > 0 && err == nil && next == m:
				a = NewAssembler("default") // the end was lost, and with it the stream
			}
			if err == nil && next != m {
				sameAs(t, next, s.history[next.Position()])
				if at := m.Floor(); at.Admits(next.Position()) != nil {
					t.Fatalf("went from %s back to %s", at, next.Position())
				}
				m = next
			}
			if at := m.Position(); at.Set() {
				sameAs(t, m, s.history[at])
			}
			if len(messages) == 0 {
				a = NewAssembler("default")
			}
		}
	})
}

// follow takes messages in.
func follow(a *Assembler, m *Mirror, messages []*holdfastv1.ConnectResponse) (*Mirror, error) {
	for _, message := range messages {
		u, done, err := a.Take(message)
		if err != nil {
			return nil, err
		}
		if done {
			if m, err = m.Apply(u); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// restart makes of a mirror what a process finds that starts anew.
func restart(t *rapid.T, m *Mirror) *Mirror {
	if !m.Position().Set() {
		return m
	}
	var file bytes.Buffer
	if err := EncodeCache(&file, m, Stamp{}); err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "lose the cache") {
		mark, err := DecodeMark(EncodeMark("default", Mark{Position: m.Position()}), "default")
		if err != nil {
			t.Fatal(err)
		}
		return New("default", mark.Position)
	}
	again, _, err := DecodeCache(file.Bytes(), "default")
	if err != nil || again.Position() != m.Position() || again.Floor() != m.Floor() {
		t.Fatalf("restarted at %v, %v; want %s", again, err, m.Position())
	}
	return again
}

func TestAdmits(t *testing.T) {
	at := Position{epoch(3), 7}
	fork := epoch(3)
	fork.Nonce++
	foreign := epoch(4)
	foreign.Lineage[0]++
	for name, c := range map[string]struct {
		next Position
		want error
	}{
		"the same":          {at, nil},
		"later":             {Position{epoch(3), 8}, nil},
		"earlier":           {Position{epoch(3), 6}, ErrBehind},
		"next epoch":        {Position{epoch(4), 1}, nil},
		"epoch before":      {Position{epoch(2), 99}, ErrOlderEpoch},
		"fork":              {Position{fork, 9}, ErrForked},
		"another cluster":   {Position{foreign, 9}, ErrForeign},
		"nothing to go to":  {Position{}, ErrNoEpoch},
		"no lineage at all": {Position{document.Epoch{Counter: 9}, 9}, ErrNoEpoch},
	} {
		t.Run(name, func(t *testing.T) {
			if err := at.Admits(c.next); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if err := (Position{}).Admits(at); err != nil {
		t.Errorf("from nothing: %v", err)
	}
	got, want := at.Admits(Position{epoch(3), 6}).Error(), "an older revision: revision 6 of 01000000/3 was told, but revision 7 of 01000000/3 is known"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func snapshot(at Position, namespace string, all ...*document.Resource) *holdfastv1.WatchResponse {
	c := content{}
	s := &holdfastv1.Snapshot{Revision: at.Revision, Last: true}
	for _, r := range all {
		c[r.Key] = r
		s.Resources = append(s.Resources, r.Proto(namespace))
	}
	root := c.root()
	s.Root = root[:]
	return &holdfastv1.WatchResponse{Epoch: at.Epoch.Proto(), Event: &holdfastv1.WatchResponse_Snapshot{Snapshot: s}}
}

func TestAssemblerRefuses(t *testing.T) {
	at := Position{epoch(1), 7}
	for name, change := range map[string]func(m *holdfastv1.WatchResponse, s *holdfastv1.Snapshot){
		"a lineage of 3 bytes":      func(m *holdfastv1.WatchResponse, _ *holdfastv1.Snapshot) { m.Epoch.Lineage = []byte("abc") },
		"no root":                   func(_ *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) { s.Root = nil },
		"a chunk from the middle":   func(_ *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) { s.Chunk = 1 },
		"another namespace":         func(_ *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) { s.Resources[0].Key.Namespace = "other" },
		"no key":                    func(_ *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) { s.Resources[0].Key = nil },
		"no resource":               func(_ *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) { s.Resources[0] = nil },
		"a kind of a later version": func(_ *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) { s.Resources[0].Key.Kind = 77 },
		"a change backwards": func(m *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) {
			m.Event = &holdfastv1.WatchResponse_Delta{Delta: &holdfastv1.Delta{From: 8, To: 7, Root: s.Root, Last: true}}
		},
		"a tombstone of nothing": func(m *holdfastv1.WatchResponse, s *holdfastv1.Snapshot) {
			m.Event = &holdfastv1.WatchResponse_Delta{Delta: &holdfastv1.Delta{To: 7, Root: s.Root, Last: true, Deletes: []*holdfastv1.Tombstone{{}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := snapshot(at, "", flag("a", "1", 7))
			change(m, m.GetSnapshot())
			if _, done, err := NewAssembler("default").Take(m); !errors.Is(err, ErrMalformed) || done {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("two changes in one", func(t *testing.T) {
		a, first, second := NewAssembler("default"), snapshot(at, "", flag("a", "1", 7)), snapshot(at, "", flag("b", "1", 7))
		first.GetSnapshot().Last, second.GetSnapshot().Chunk = false, 1
		if _, _, err := a.Take(first); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Take(second); !errors.Is(err, ErrMalformed) {
			t.Errorf("chunks of two snapshots with different roots: %v", err)
		}
	})
	t.Run("nothing told", func(t *testing.T) {
		if _, done, err := NewAssembler("default").Take(&holdfastv1.ConnectResponse{Event: &holdfastv1.ConnectResponse_Welcome{}}); done || err != nil {
			t.Errorf("got %v, %v", done, err)
		}
	})
}

// TestTooLarge lets neither one update nor many of them fill the memory.
func TestTooLarge(t *testing.T) {
	one := flag("a", "1", 1)
	a := NewAssembler("default")
	a.limit = 2 * one.Size()
	m := snapshot(Position{epoch(1), 1}, "", flag("a", "1", 1), flag("b", "1", 1), flag("c", "1", 1))
	if _, _, err := a.Take(m); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an update beyond the limit: %v", err)
	}
	a = NewAssembler("default")
	a.limit = 200
	d := &holdfastv1.Delta{To: 1, Root: make([]byte, 32)}
	for i := range 3 {
		d.Deletes = append(d.Deletes, document.Tombstone{Key: document.Key{Kind: document.Flag, Name: fmt.Sprint(i)}}.Proto(""))
	}
	if _, _, err := a.Take(&holdfastv1.WatchResponse{Epoch: epoch(1).Proto(), Event: &holdfastv1.WatchResponse_Delta{Delta: d}}); err != nil {
		t.Errorf("195 bytes of tombstones: %v", err)
	}
	d.Chunk = 1
	if _, _, err := a.Take(&holdfastv1.WatchResponse{Epoch: epoch(1).Proto(), Event: &holdfastv1.WatchResponse_Delta{Delta: d}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("390 bytes of tombstones: %v", err)
	}
	held := New("default", Position{})
	held.limit = 2 * one.Size()
	held = applied(t, held, snapshot(Position{epoch(1), 1}, "", flag("a", "1", 1), flag("b", "1", 1)))
	u := Update{Epoch: epoch(1), Delta: document.Delta{From: 1, To: 2, Puts: []*document.Resource{flag("c", "1", 2)}}}
	if _, err := held.Apply(u); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a mirror beyond the limit: %v", err)
	}
}

func applied(t *testing.T, m *Mirror, message Message) *Mirror {
	t.Helper()
	u, done, err := NewAssembler(m.Namespace()).Take(message)
	if err != nil || !done {
		t.Fatalf("assemble: %v, %v", done, err)
	}
	if m, err = m.Apply(u); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestOldVersionsStay changes a mirror while an old version is iterated over.
func TestOldVersionsStay(t *testing.T) {
	var all []*document.Resource
	for i := range 500 {
		all = append(all, flag(fmt.Sprint("f", i), "1", 1))
	}
	old := applied(t, New("default", Position{}), snapshot(Position{epoch(1), 1}, "", all...))
	next, n := old, 0
	for k, r := range old.All() {
		if n++; r.ModRevision != 1 {
			t.Fatalf("%s has revision %d", k, r.ModRevision)
		}
		changed := flag(k.Name, "2", 2)
		u := Update{Epoch: epoch(1), Delta: document.Delta{From: next.Position().Revision, To: next.Position().Revision + 1, Puts: []*document.Resource{changed}}}
		u.Delta.Root = next.tree.Put(changed.Key, changed.Hash()).Root()
		var err error
		if next, err = next.Apply(u); err != nil {
			t.Fatal(err)
		}
	}
	if n != 500 || old.Len() != 500 || next.Position().Revision != 501 {
		t.Errorf("saw %d of %d, at %s", n, old.Len(), next.Position())
	}
}

// BenchmarkApply changes one flag among 10,000.
func BenchmarkApply(b *testing.B) {
	m := filled(b, 10_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := m.Position()
		r := flag(fmt.Sprint("flag-", rand.IntN(10_000)), fmt.Sprint(i), at.Revision+1)
		u := Update{Epoch: at.Epoch, Delta: document.Delta{From: at.Revision, To: at.Revision + 1, Puts: []*document.Resource{r}}}
		u.Delta.Root = m.tree.Put(r.Key, r.Hash()).Root()
		var err error
		if m, err = m.Apply(u); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeCache starts with 10,000 flags.
func BenchmarkDecodeCache(b *testing.B) {
	var file bytes.Buffer
	if err := EncodeCache(&file, filled(b, 10_000), Stamp{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(file.Len()))
	for b.Loop() {
		if _, _, err := DecodeCache(file.Bytes(), "default"); err != nil {
			b.Fatal(err)
		}
	}
}

func filled(tb testing.TB, n int) *Mirror {
	tb.Helper()
	c, d := content{}, document.Delta{To: 1}
	for i := range n {
		r := flag(fmt.Sprint("flag-", i), `{"defaultVariant":"off","state":"ENABLED","variants":{"off":false,"on":true}}`, 1)
		c[r.Key] = r
		d.Puts = append(d.Puts, r)
	}
	d.Root = c.root()
	m, err := New("default", Position{}).Apply(Update{Epoch: epoch(1), Replace: true, Delta: d})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}
