package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

// FuzzMessages gives a relay anything for a record and for a message. It must neither
// fail nor believe it: what is right is signed by a key that the fuzzer does not have.
func FuzzMessages(f *testing.F) {
	f.Add((&question{id: 1, certificate: []byte("c"), signature: []byte("s")}).encode())
	f.Add((&answer{kind: busyType, id: 7, members: []string{"a", "b"}}).encode())
	f.Add((&answer{kind: partType, id: 7, size: 3, part: []byte("xyz")}).encode())
	f.Add([]byte{headType})
	f.Add([]byte{timeType, 1, 'x', 1, 'y', 1, 'z'})
	f.Add([]byte{signersType, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newCluster(t)
		c.put(map[string]string{"a": `"1"`})
		s := newShop(t, c)
		s.r.asked, s.r.askedOf = question{id: 7}, "m1"
		if _, news := s.r.Merge(b); news {
			t.Errorf("%x is believed", b)
		}
		s.r.serve(t.Context(), gossip.Member{Name: "m1"}, b)
		for _, a := range s.told {
			if a.kind == partType {
				t.Errorf("%x gets a document", b)
			}
		}
		s.r.take(t.Context(), gossip.Member{Name: "m1"}, b)
	})
}

// TestRecordsComeBack: what is encoded is decoded to the same, and has the same bytes
// again.
func TestRecordsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		for range 2 {
			c.put(map[string]string{"a": time.Now().String()})
		}
		h, err := decodeHead(c.record(trust.SignHead(c.key, c.head(2)), 1, 2, "holder"))
		if err != nil || h.holder != "holder" || h.from != 1 || h.base != c.head(1).Root || len(h.delta) == 0 {
			t.Errorf("%+v: %v", h, err)
		}
		q := question{id: 1, chunk: 2, offset: 3, epoch: c.epoch, root: c.head(2).Root, base: c.head(1).Root, certificate: []byte("c"), signature: []byte("s")}
		if got, err := decodeQuestion(q.encode()); err != nil || string(got.encode()) != string(q.encode()) || got.offset != 3 || got.base != q.base {
			t.Errorf("%+v: %v", got, err)
		}
		a := answer{kind: noneType, id: 1, chunk: 2, offset: 3, size: 4, part: []byte("p"), members: []string{"a", "b"}}
		if got, err := decodeAnswer(a.encode()); err != nil || string(got.encode()) != string(a.encode()) || len(got.members) != 2 || got.size != 4 {
			t.Errorf("%+v: %v", got, err)
		}
	})
}
