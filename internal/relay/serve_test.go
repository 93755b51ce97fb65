package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// shop is a relay that has documents, and members that ask for them.
type shop struct {
	t    *testing.T
	c    *cluster
	r    *Relay
	told []answer
}

func newShop(t *testing.T, c *cluster) *shop {
	t.Helper()
	s := &shop{t: t, c: c, r: New(Config{Namespace: namespace})}
	if err := s.r.TrustServer(c.set.Bytes()); err != nil {
		t.Fatal(err)
	}
	s.r.holder = &static{held: c.mirror(c.newest())}
	s.r.keep(c.mirror(1))
	s.r.pool = &link{name: "shop", spread: func(string) {}, members: func() []gossip.Member { return nil }, send: func(_ context.Context, _, _ string, b []byte) error {
		a, err := decodeAnswer(b)
		s.told = append(s.told, a)
		return err
	}}
	return s
}

// ask has a member ask and returns the answer; nil for none.
func (s *shop) ask(name string, q question) *answer {
	s.t.Helper()
	head := s.c.head(s.c.newest())
	q.epoch, q.root = head.Epoch, head.Root
	if q.chunk == 0 && q.offset == 0 {
		key := newKey(s.t)
		q.certificate = s.c.certify(name, key, time.Now().Add(time.Hour))
		certificate, err := trust.ReadCertificate(q.certificate)
		if err != nil {
			s.t.Fatal(err)
		}
		q.signature = certificate.Sign(key, signingContext, q.statement(name, "shop"))
	}
	s.told = nil
	s.r.serve(s.t.Context(), gossip.Member{Name: name}, q.encode())
	if len(s.told) == 0 {
		return nil
	}
	return &s.told[0]
}

// TestUploadsAreBounded: two at a time; the others are told who has got it.
func TestUploadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.put(map[string]string{"a": strings.Repeat("x", 100)})
		c.put(map[string]string{"a": strings.Repeat("x", sliceBytes+1000), "b": strings.Repeat("y", sheafBytes)})
		s := newShop(t, c)
		for n, name := range []string{"m1", "m2"} {
			if a := s.ask(name, question{id: uint64(n + 1)}); a.kind != partType || len(a.part) != sliceBytes {
				t.Fatalf("%s gets %d bytes of %q", name, len(a.part), a.kind)
			}
		}
		if a := s.ask("m3", question{id: 3}); a.kind != busyType || len(a.members) != 0 {
			t.Errorf("the third gets %q, %v", a.kind, a.members)
		}
		if a := s.ask("m3", question{id: 1, offset: sliceBytes}); a.kind == partType {
			t.Error("somebody gets what another one has asked for")
		}
		if a := s.ask("m1", question{id: 1, offset: sliceBytes}); a.kind != partType || len(a.part) == 0 {
			t.Errorf("the rest of a chunk: %q", a.kind)
		}
		if a := s.ask("m1", question{id: 1, chunk: 1}); a.kind != partType || int(a.size) != len(a.part) {
			t.Errorf("the last chunk: %q of %d bytes", a.kind, a.size)
		}
		if m := s.r.Metrics(); m.Served != 1 || m.Busy != 1 {
			t.Errorf("metrics %+v", m)
		}
		if a := s.ask("m3", question{id: 3}); a.kind != partType {
			t.Errorf("a place is free, and the third gets %q", a.kind)
		}
		if a := s.ask("m4", question{id: 4}); a.kind != busyType || !slices.Equal(a.members, []string{"m1"}) {
			t.Errorf("the fourth gets %q, %v", a.kind, a.members)
		}
		if a := s.ask("m3", question{id: 5}); a.kind != partType { // gave up and begins anew
			t.Errorf("who begins anew gets %q", a.kind)
		}
		if a := s.ask("m3", question{id: 5, chunk: 9}); a != nil {
			t.Errorf("a chunk that does not exist: %q", a.kind)
		}
		wait(idleUpload + time.Millisecond)
		if a := s.ask("m2", question{id: 2, chunk: 1}); a.kind != noneType {
			t.Errorf("who was away too long gets %q", a.kind)
		}
		for n := range 3 * keptServed {
			s.r.served = append(s.r.served, customer{fmt.Sprint("n", n), s.r.document(c.epoch, c.head(2).Root).Root()})
		}
		s.ask("m5", question{id: 6})
		s.ask("m6", question{id: 7})
		if a := s.ask("m7", question{id: 8}); a.kind != busyType || len(a.members) != maxNames {
			t.Errorf("%q with %d names", a.kind, len(a.members))
		}
	})
}

// TestOnlyWhatChanged: who has what was there before gets the difference.
func TestOnlyWhatChanged(t *testing.T) {
	c := newCluster(t)
	c.put(map[string]string{"a": `"1"`, "b": strings.Repeat("y", 10<<10)})
	c.put(map[string]string{"a": `"2"`})
	s := newShop(t, c)
	for base, want := range map[uint64]bool{0: false, 1: true} {
		a := s.ask("m1", question{id: base, base: c.head(base).Root})
		m := new(holdfastv1.ConnectResponse)
		if err := proto.Unmarshal(a.part, m); err != nil {
			t.Fatal(err)
		}
		if got := m.GetDelta() != nil; got != want || len(s.r.leases) != 0 {
			t.Errorf("from revision %d: a difference: %v, %d places taken", base, got, len(s.r.leases))
		}
	}
}

// TestStolenQuestion: what one member has signed is worth nothing from another, nor to
// another.
func TestStolenQuestion(t *testing.T) {
	c := newCluster(t)
	c.put(map[string]string{"a": `"1"`})
	s := newShop(t, c)
	head, key := c.head(1), newKey(t)
	q := question{id: 1, epoch: head.Epoch, root: head.Root, certificate: c.certify("m1", key, time.Now().Add(time.Hour))}
	certificate, err := trust.ReadCertificate(q.certificate)
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]int{"shop": 1, "elsewhere": 0} {
		q.signature = certificate.Sign(key, signingContext, q.statement("m1", to))
		for from, want := range map[string]int{"m1": want, "m2": 0} {
			s.told = nil
			s.r.serve(t.Context(), gossip.Member{Name: from}, q.encode())
			if len(s.told) != want {
				t.Errorf("asked of %s, from %s: %d answers", to, from, len(s.told))
			}
		}
	}
	q.base[0]++ // after it was signed
	s.told = nil
	s.r.serve(t.Context(), gossip.Member{Name: "m1"}, q.encode())
	if len(s.told) != 0 {
		t.Error("a question that was changed is answered")
	}
}
