package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// held returns a mirror of what the twin's server has at a position.
func held(t *rapid.T, s *server, at Position) *Mirror {
	d := document.Delta{To: at.Revision, Root: s.history[at].root(), Namespace: "default"}
	for _, r := range s.history[at] {
		d.Puts = append(d.Puts, r)
	}
	m, err := New("default", Position{}).Apply(Update{Epoch: at.Epoch, Replace: true, Delta: d})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSince: what one mirror tells of another, cut into chunks of any size and put
// together again, makes the other one it.
func TestSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newServer()
		for range rapid.IntRange(1, 8).Draw(t, "revisions") {
			if s.commit(t); rapid.IntRange(0, 5).Draw(t, "recover") == 0 {
				s.recover(t)
			}
		}
		old, now := held(t, s, s.draw(t, "old")), held(t, s, s.draw(t, "now"))
		if rapid.Bool().Draw(t, "derived") { // as in an instance, where versions share what they have in common
			if next, err := old.Apply(now.Whole()); err == nil {
				now = next
			}
		}
		u := now.Since(old)
		if want := old.at.Epoch != now.at.Epoch || old.at.Revision > now.at.Revision; want && !u.Replace {
			t.Fatalf("from %s to %s a difference is told", old.at, now.at)
		}
		sheaf, assembler := NewSheaf(u, rapid.IntRange(0, 2000).Draw(t, "bytes")), NewAssembler("default")
		for i := range sheaf.Len() {
			told, done, err := assembler.Take(sheaf.Message(i))
			switch {
			case err != nil:
				t.Fatal(err)
			case done != (i == sheaf.Len()-1):
				t.Fatalf("done %v after chunk %d of %d", done, i, sheaf.Len())
			case !done:
				continue
			}
			if old.at.Admits(now.at) != nil { // it may be told, and is not taken in
				old = New("default", Position{})
			}
			next, err := old.Apply(told)
			if err != nil || next.Root() != now.Root() || next.at != now.at || next.bytes != now.bytes {
				t.Fatalf("%s instead of %s: %v", next.at, now.at, err)
			}
		}
	})
}

// TestSheafBoundsItsChunks: a chunk ends with the resource that fills it.
func TestSheafBoundsItsChunks(t *testing.T) {
	d := document.Delta{Namespace: "default", To: 3}
	for i := range 10 {
		d.Puts = append(d.Puts, flag(fmt.Sprint(i), "1", 1))
		d.Deletes = append(d.Deletes, document.Tombstone{Key: document.Key{Kind: document.Flag, Name: fmt.Sprint("gone", i)}, Revision: 3})
	}
	s := NewSheaf(Update{Epoch: epoch(1), Delta: d}, 2*d.Puts[0].Size())
	if puts := s.Message(0).GetDelta().GetPuts(); len(puts) != 2 {
		t.Errorf("%d resources in a chunk", len(puts))
	}
	if n := NewSheaf(Update{Epoch: epoch(1)}, 100).Len(); n != 1 {
		t.Errorf("nothing is told in %d chunks", n)
	}
}

// TestAtLeast: what is learned by way of peers sets a clock forward only, and makes
// no guess of what a server told.
func TestAtLeast(t *testing.T) {
	const mono = int64(1e9)
	c := Clock{}.AtLeast(10_000, mono)
	if got := c.At(mono); got != 10_000 || !c.guess {
		t.Errorf("at %d, a guess: %v", got, c.guess)
	}
	if got := c.AtLeast(5_000, mono).At(mono); got != 10_000 {
		t.Errorf("set back to %d", got)
	}
	if got := c.AtLeast(12_000, mono).At(mono + 1e9); got != 13_000 {
		t.Errorf("at %d", got)
	}
	known, _ := Clock{}.Observe(10_000, mono)
	if next, back := known.AtLeast(100_000, mono).Observe(10_000, mono); back || next.At(mono) < 99_000 {
		t.Errorf("a signed time is forgotten: %d, back %v", next.At(mono), back)
	}
}

func trusted() Trust {
	return Trust{Key: bytes.Repeat([]byte{7}, 32), Settings: &holdfastv1.GossipSettings{
		Seeds: []string{"10.0.0.1:7000"}, Label: "hf-1", Keys: [][]byte{bytes.Repeat([]byte{9}, 32)}, Certificate: []byte("c"), Signers: []byte("s"),
	}}
}

func TestTrustComesBack(t *testing.T) {
	data, err := EncodeTrust("default", trusted())
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeTrust(data, "default")
	if err != nil {
		t.Fatal(err)
	}
	again, err := EncodeTrust("default", got)
	if err != nil || !bytes.Equal(again, data) || !bytes.Equal(got.Key, trusted().Key) || got.Settings.GetLabel() != "hf-1" {
		t.Errorf("%v: %x instead of %x", err, again, data)
	}
	for _, text := range []string{fmt.Sprint(got), fmt.Sprintf("%#v", got), fmt.Sprintf("%+v", got)} {
		if text != "trust" && text != "mirror.Trust{}" {
			t.Errorf("printed as %q", text)
		}
	}
	if _, err := DecodeTrust(data, "other"); !errors.Is(err, ErrNamespace) {
		t.Errorf("another namespace: %v", err)
	}
	for i := range data {
		if _, err := DecodeTrust(data[:i], "default"); err == nil {
			t.Fatalf("the first %d of %d bytes are taken", i, len(data))
		}
		spoiled := bytes.Clone(data)
		spoiled[i]++
		if _, err := DecodeTrust(spoiled, "default"); err == nil {
			t.Fatalf("a change of byte %d is not seen", i)
		}
	}
}

func FuzzDecodeTrust(f *testing.F) {
	data, err := EncodeTrust("default", trusted())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 32 {
			return
		}
		for _, data := range [][]byte{data, resealed(data)} {
			if _, err := DecodeTrust(data, "default"); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrNamespace) {
				t.Errorf("another error: %v", err)
			}
		}
	})
}
