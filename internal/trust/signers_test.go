package trust_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

func TestSignersComeBack(t *testing.T) {
	t.Parallel()
	a, b, c := newKey(t, 1), newKey(t, 2), newKey(t, 3)
	s := newSigners(t, epoch(4), 9, a, b, c).Countersign(b)
	back, err := trust.DecodeSigners(s.Bytes())
	if err != nil || !bytes.Equal(back.Bytes(), s.Bytes()) || back.Epoch() != epoch(4) || back.Version() != 9 ||
		len(back.Servers()) != 3 || !back.Has(c.ID()) || back.Has(newKey(t, 4).ID()) {
		t.Fatalf("got %v, %v", back, err)
	}
	for i := range s.Bytes() {
		changed := bytes.Clone(s.Bytes())
		changed[i] ^= 1
		if _, err := trust.DecodeSigners(changed); err == nil {
			t.Fatalf("byte %d can be changed", i)
		}
	}
	for i := range s.Bytes() {
		if _, err := trust.DecodeSigners(s.Bytes()[:i]); err == nil {
			t.Fatalf("the first %d bytes are read", i)
		}
	}
}

func TestSignersLimits(t *testing.T) {
	t.Parallel()
	var keys []*trust.Key
	for i := range trust.MaxSigners + 1 {
		keys = append(keys, newKey(t, byte(i+1)))
	}
	all := newSigners(t, epoch(1), 1, keys[:trust.MaxSigners]...)
	for _, k := range keys {
		all = all.Countersign(k)
	}
	back, err := trust.DecodeSigners(all.Bytes())
	if err != nil || len(all.Bytes()) > 1250 {
		t.Errorf("the largest set has %d bytes: %v", len(all.Bytes()), err)
	}
	if back.Countersign(keys[trust.MaxSigners]) != back {
		t.Error("signed with a key that is not in the set")
	}
	long := strings.Repeat("x", trust.MaxServerID+1)
	for name, servers := range map[string][]trust.Server{
		"too many":  named(keys...),
		"none":      {},
		"without":   named(keys[1]),
		"one twice": append(named(keys[0]), named(keys[0])...),
		"one key":   {{ID: "a", Key: keys[0].Public()}, {ID: "b", Key: keys[0].Public()}},
		"one id":    {{ID: "a", Key: keys[0].Public()}, {ID: "a", Key: keys[1].Public()}},
		"long id":   {{ID: long, Key: keys[0].Public()}},
		"no id":     {{Key: keys[0].Public()}},
		"no key":    {{ID: "a"}, {ID: "b", Key: keys[0].Public()}},
	} {
		if _, err := trust.NewSigners(keys[0], epoch(1), 1, servers); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

// Sets are signed by all servers in any order, and all come to the same bytes.
func TestJoinIsASemilattice(t *testing.T) {
	t.Parallel()
	keys := make([]*trust.Key, trust.MaxSignatures+3)
	for i := range keys {
		keys[i] = newKey(t, byte(i+1))
	}
	var parts []*trust.Signers
	for i := range keys {
		turned := append(append([]*trust.Key{}, keys[i:]...), keys[:i]...)
		parts = append(parts, newSigners(t, epoch(1), 1, turned...))
	}
	up, down := parts[0], parts[len(parts)-1]
	for i := range parts {
		up, _ = up.Join(parts[i])
		down, _ = down.Join(parts[len(parts)-1-i])
	}
	grouped, _ := parts[3].Join(parts[1])
	rest := parts[0]
	for _, p := range parts[1:] {
		rest, _ = p.Join(rest)
	}
	grouped, _ = grouped.Join(rest)
	if !bytes.Equal(up.Bytes(), down.Bytes()) || !bytes.Equal(up.Bytes(), grouped.Bytes()) {
		t.Fatal("the order matters")
	}
	if same, changed := up.Join(parts[2]); changed || same != up {
		t.Fatal("not idempotent")
	}
	if same, changed := up.Join(newSigners(t, epoch(1), 2, keys...)); changed || same != up {
		t.Fatal("joined with another set")
	}
	if _, err := trust.DecodeSigners(up.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// A fleet is cut off while its servers are replaced one by one.
func TestAccept(t *testing.T) {
	t.Parallel()
	a, b, c, d, e, f := newKey(t, 1), newKey(t, 2), newKey(t, 3), newKey(t, 4), newKey(t, 5), newKey(t, 6)
	held := newSigners(t, epoch(1), 1, a, b, c)
	head := trust.Head{Namespace: "shop", Epoch: epoch(1), Revision: 5}

	next := newSigners(t, epoch(1), 2, d, b, c) // made by the new server
	if got, err := held.Accept(next.Bytes()); !errors.Is(err, trust.ErrUnknownSigner) || got != held {
		t.Fatalf("accepted on the word of a server that nobody knew: %v", err)
	}
	got, err := held.Accept(next.Countersign(c).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.Head("shop", trust.SignHead(d, head)); err != nil {
		t.Errorf("the head of the new server: %v", err)
	}
	if _, err := got.Head("shop", trust.SignHead(a, head)); !errors.Is(err, trust.ErrUnknownSigner) {
		t.Errorf("the head of the removed server: %v", err)
	}
	foreign := document.Epoch{Lineage: [16]byte{9}, Counter: 8}
	for name, tc := range map[string]struct {
		held, offered *trust.Signers
		want          error
	}{
		"all servers replaced":     {got, newSigners(t, epoch(1), 3, e, f), trust.ErrUnknownSigner},
		"an outcast's set":         {got, newSigners(t, epoch(1), 3, a, b, c), trust.ErrUnknownSigner},
		"older":                    {got, held, trust.ErrStale},
		"the same":                 {got, next.Countersign(b), trust.ErrStale},
		"of an older epoch":        {newSigners(t, epoch(2), 1, a), newSigners(t, epoch(1), 7, a), trust.ErrStale},
		"of another cluster":       {got, newSigners(t, foreign, 9, b), trust.ErrStale},
		"offered to who has none":  {nil, next, trust.ErrUnknownSigner},
		"of a newer epoch":         {got, newSigners(t, epoch(2), 1, b), nil},
		"of a later version":       {got, newSigners(t, epoch(1), 3, d, e), nil},
		"signed by a bystander":    {got, newSigners(t, epoch(1), 3, e, b), trust.ErrUnknownSigner},
		"signed by one still here": {got, newSigners(t, epoch(1), 3, e, b).Countersign(b), nil},
	} {
		after, err := tc.held.Accept(tc.offered.Bytes())
		if !errors.Is(err, tc.want) || err == nil && !bytes.Equal(after.Bytes(), tc.offered.Bytes()) || err != nil && after != tc.held {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, err := got.Accept([]byte("garbage")); !errors.Is(err, trust.ErrMalformed) || after != got {
		t.Errorf("garbage: %v", err)
	}
}

// A server over a connection of its own is believed, unless it lags behind.
func TestReplace(t *testing.T) {
	t.Parallel()
	a, b := newKey(t, 1), newKey(t, 2)
	held := newSigners(t, epoch(2), 5, a)
	for name, tc := range map[string]struct {
		held, given *trust.Signers
		want        error
	}{
		"the first":          {nil, held, nil},
		"the same":           {held, held, nil},
		"all new servers":    {held, newSigners(t, epoch(2), 6, b), nil},
		"older":              {held, newSigners(t, epoch(2), 4, b), trust.ErrStale},
		"an older epoch":     {held, newSigners(t, epoch(1), 9, b), trust.ErrStale},
		"a restored cluster": {held, newSigners(t, epoch(3), 1, b), nil},
		"another cluster":    {held, newSigners(t, document.Epoch{Lineage: [16]byte{9}}, 1, b), nil},
	} {
		after, err := tc.held.Replace(tc.given.Bytes())
		want := tc.given
		if tc.want != nil {
			want = tc.held
		}
		if !errors.Is(err, tc.want) || !bytes.Equal(after.Bytes(), want.Bytes()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeSigners(f *testing.F) {
	a, b := newKey(f, 1), newKey(f, 2)
	f.Add(newSigners(f, epoch(1), 1, a).Bytes())
	f.Add(newSigners(f, epoch(1), 1, a, b).Countersign(b).Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := trust.DecodeSigners(data)
		if err != nil {
			if s != nil || !errors.Is(err, trust.ErrMalformed) && !errors.Is(err, trust.ErrSignature) {
				t.Fatalf("%v, %v", s, err)
			}
			return
		}
		if !bytes.Equal(s.Bytes(), data) || len(s.Servers()) > trust.MaxSigners {
			t.Fatal("two encodings of one set")
		}
	})
}

func FuzzReadCertificate(f *testing.F) {
	server := newKey(f, 1)
	f.Add(certify(f, server, sample(newKey(f, 2))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := trust.ReadCertificate(data)
		if err != nil {
			return
		}
		again, err := trust.Certify(server, c)
		const tail = 8 + 64 // who signs, and the signature
		if err != nil || !bytes.Equal(again[:len(again)-tail], data[:len(data)-tail]) {
			t.Fatalf("two encodings of one certificate: %v", err)
		}
	})
}

func ExampleKey() {
	k, err := trust.ParseKey(make([]byte, 32))
	fmt.Println(k, err)
	// Output: key 234793e14bc3f801 <nil>
}
