package fleet

import (
	"bytes"
	"testing"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

// FuzzTake: whatever comes in, nothing but what an instance has signed is news, and what
// is news is passed on as it came, but for its age.
func FuzzTake(f *testing.F) {
	certificate := certify(f, "server", trust.Certificate{ID: "a", Service: "checkout", Host: "h1", NotAfter: 1 << 60})
	record, err := Seal(keyOf(f, "a"), certificate, &health.Record{Incarnation: 1, Sequence: 1, Reports: []health.Report{
		{Dependency: "payments", Opinion: health.Open, Calls: 10, Failures: 9},
	}}, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	signers := signersOf(f, "server")
	f.Add(record)
	f.Add(record[:40])
	f.Add(append([]byte{envelopeVersion, 0xff, 0x7f}, record[2:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewStore(StoreConfig{Namespace: testNamespace, Clock: clock.New()})
		s.SetSigners(signers)
		id, news := s.Merge(b)
		if !news {
			if len(s.Keys()) != 0 {
				t.Fatalf("%x is no news and is held", b)
			}
			return
		}
		e, err := decode(b)
		again, err2 := decode(s.Encode(id))
		if err != nil || err2 != nil || !bytes.Equal(e.sealed, again.sealed) || again.age < e.age {
			t.Fatalf("%x became %x: %v %v", b, s.Encode(id), err, err2)
		}
		if id != "a" || !bytes.Equal(e.sealed, record[2:]) {
			t.Fatalf("news that nobody signed: %x", b)
		}
	})
}

// TestOneEncoding: the same record in other bytes would be news each time.
func TestOneEncoding(t *testing.T) {
	certificate := certify(t, "server", trust.Certificate{ID: "a", Service: "checkout", Host: "h1"})
	record := says(t, certificate, "a", 1)
	if record[3] != byte(len(certificate)>>7) {
		t.Fatalf("the length of the certificate is not where it was: %x", record[:5])
	}
	longer := append([]byte{record[0], record[1], record[2], record[3] | 0x80, 0}, record[4:]...)
	s := newTestStore(t)
	if _, news := s.Merge(longer); news || s.Metrics().Malformed != 1 {
		t.Errorf("news %v, %+v", news, s.Metrics())
	}
	if _, news := s.Merge(record); !news {
		t.Error("the record itself is no news")
	}
}
