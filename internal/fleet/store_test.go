package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// says returns what the instance of an id sends that finds a dependency broken.
func says(tb testing.TB, certificate []byte, id string, sequence uint64) []byte {
	tb.Helper()
	r := health.Record{Incarnation: 1, Sequence: sequence, Reports: []health.Report{{
		Dependency: "payments", Opinion: health.Open, Cause: health.TooManyFailures, Calls: 10, Failures: 9,
	}}}
	b, err := Seal(keyOf(tb, id), certificate, &r, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func newTestStore(tb testing.TB) *Store {
	tb.Helper()
	s := NewStore(StoreConfig{Namespace: testNamespace, Clock: clock.New()})
	s.SetSigners(signersOf(tb, "server"))
	return s
}

// TestStoreRefuses: what nobody vouches for, what is of others, what is old and what is
// too large does not get in, is counted, and passes for no news.
func TestStoreRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := trust.Certificate{ID: "a", Service: "checkout", Host: "h1"}
		good := certify(t, "server", of)
		record := says(t, good, "a", 5)
		forged := bytes.Clone(record)
		forged[len(forged)-1] ^= 1
		changed := bytes.Clone(record)
		changed[bytes.Index(changed, []byte("payments"))] ^= 0x20
		stolen := says(t, good, "b", 5) // signed with another key than the certificate's
		expiredCert := of
		expiredCert.NotAfter = time.Now().UnixMilli()
		abroad := of
		abroad.Namespace = "other"
		old := encode(health.TTL, record[2:])
		kept, err := Seal(keyOf(t, "a"), good, &health.Record{Incarnation: 1, Sequence: 5}, time.Now().Add(-timeTolerance-time.Second))
		if err != nil {
			t.Fatal(err)
		}
		early, err := Seal(keyOf(t, "a"), good, &health.Record{Incarnation: 1, Sequence: 5}, time.Now().Add(timeTolerance+time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name   string
			record []byte
			want   StoreMetrics
			err    error
		}{
			{"forged signature", forged, StoreMetrics{Forged: 1}, trust.ErrSignature},
			{"changed record", changed, StoreMetrics{Forged: 1}, trust.ErrSignature},
			{"certificate of another one", stolen, StoreMetrics{Forged: 1}, trust.ErrSignature},
			{"unknown server", says(t, certify(t, "stranger", of), "a", 5), StoreMetrics{Unknown: 1}, trust.ErrUnknownSigner},
			{"expired certificate", says(t, certify(t, "server", expiredCert), "a", 5), StoreMetrics{Expired: 1}, trust.ErrExpired},
			{"other namespace", says(t, certify(t, "server", abroad), "a", 5), StoreMetrics{Foreign: 1}, trust.ErrNamespace},
			{"too old", old, StoreMetrics{Late: 1}, nil},
			{"kept", kept, StoreMetrics{Late: 1}, nil},
			{"of the future", early, StoreMetrics{Late: 1}, nil},
			{"oversize", append(bytes.Clone(record), make([]byte, maxEnvelope)...), StoreMetrics{Oversize: 1}, errEnvelope},
			{"cut short", record[:len(record)-70], StoreMetrics{Malformed: 1}, nil},
			{"empty", nil, StoreMetrics{Malformed: 1}, errEnvelope},
			{"other version", append([]byte{2}, record[1:]...), StoreMetrics{Malformed: 1}, errEnvelope},
		} {
			s := newTestStore(t)
			_, news, err := s.Take(test.record, "a")
			if news || test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("%s: news %v, error %v; want %v", test.name, news, err, test.err)
			}
			if got := s.Metrics(); got != test.want {
				t.Errorf("%s: counted %+v, want %+v", test.name, got, test.want)
			}
		}

		s := newTestStore(t)
		if _, _, err := s.Take(record, "b"); !errors.Is(err, ErrNotOwn) || s.Metrics().Foreign != 1 {
			t.Errorf("the record of another instance: %v, %+v", err, s.Metrics())
		}
		s.SetSigners(nil)
		if _, _, err := s.Take(record, "a"); !errors.Is(err, trust.ErrUnknownSigner) {
			t.Errorf("without signers: %v", err)
		}
		s.SetSigners(signersOf(t, "server"))
		if id, news, err := s.Take(record, "a"); id != "a" || !news || err != nil {
			t.Errorf("a good one: %q %v %v", id, news, err)
		}
	})
}

// TestStoreReplay: a record that is known, older than what is known, or was gone
// before, is no news, and makes nothing younger.
func TestStoreReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, certificate := newTestStore(t), certify(t, "server", trust.Certificate{ID: "a", Service: "checkout", Host: "h1"})
		first := says(t, certificate, "a", 1)
		second := says(t, certificate, "a", 2)
		if _, news := s.Merge(first); !news {
			t.Fatal("the first one is no news")
		}
		<-time.After(time.Second)
		if _, news := s.Merge(second); !news {
			t.Fatal("the second one is no news")
		}
		for _, b := range [][]byte{first, second} {
			if _, news := s.Merge(b); news {
				t.Error("a replay is news")
			}
		}
		<-time.After(10 * time.Second)
		s.Merge(second)
		e, err := decode(s.Encode("a"))
		if err != nil || e.age != 10*time.Second {
			t.Errorf("after a replay the record is %v old, %v", e.age, err)
		}
		if s.Digest("a") == 0 {
			t.Error("no digest of what is held")
		}
		<-time.After(6 * time.Second)
		if keys := s.Keys(); len(keys) != 0 || s.Encode("a") != nil || s.Digest("a") != 0 {
			t.Errorf("still there after its time: %v", keys)
		}
		if _, news := s.Merge(second); news {
			t.Error("what was gone came back")
		}
	})
}

// TestStorePace: an instance that tells more than it may is dropped until it is slower,
// and a flood of records that nobody signed takes no more than its share of time.
func TestStorePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, certificate := newTestStore(t), certify(t, "server", trust.Certificate{ID: "a", Service: "checkout", Host: "h1"})
		news := 0
		for n := range uint64(20) {
			if _, is := s.Merge(says(t, certificate, "a", n+1)); is {
				news++
			}
		}
		if news != recordBurst || s.Metrics().Fast != 20-recordBurst {
			t.Errorf("%d records at once were news, %+v", news, s.Metrics())
		}
		<-time.After(time.Second)
		if _, is := s.Merge(says(t, certificate, "a", 30)); !is {
			t.Error("a second later it may not speak again")
		}

		other := certify(t, "server", trust.Certificate{ID: "b", Service: "checkout", Host: "h2"})
		forged := says(t, other, "a", 1) // by a, as b
		for range 2 * verifyBurst {
			s.Merge(forged)
		}
		m := s.Metrics()
		if m.Forged > verifyBurst || m.Busy < verifyBurst-100 {
			t.Errorf("of %d forged records: %+v", 2*verifyBurst, m)
		}
		<-time.After(time.Second)
		if _, is := s.Merge(says(t, other, "b", 1)); !is {
			t.Error("the one in whose name the flood came may not speak")
		}
	})
}

// TestOldAgesBuyNothing: whoever says that its records are old, so that they expire at
// once, may send no more of them; and of those who have long been silent nothing is kept.
func TestOldAgesBuyNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, certificate := newTestStore(t), certify(t, "server", trust.Certificate{ID: "a", Service: "checkout", Host: "h1"})
		const records = 2000
		news := 0
		for n := range uint64(records) {
			if _, is := s.Merge(encode(health.TTL-time.Millisecond, says(t, certificate, "a", n+1)[2:])); is {
				news++
			}
			<-time.After(2 * time.Millisecond)
		}
		if most := recordBurst + recordRate*2*records/1000; news > most || news < most/2 {
			t.Errorf("%d of %d records were news, at most %d may be", news, records, most)
		}
		<-time.After(2 * paceSpan)
		if s.Keys(); len(s.paces) != 0 {
			t.Errorf("%d paces are kept for ever", len(s.paces))
		}
	})
}

// TestFullStoreForgets: of an instance that made room for another one nothing is left.
func TestFullStoreForgets(t *testing.T) {
	s := newTestStore(t)
	s.table = health.NewTable(3)
	for k := range 20 {
		id := fmt.Sprintf("i%d", k)
		s.own(&trust.Certificate{ID: id, Host: id}, health.Record{Incarnation: 1, Sequence: 1}, []byte(id))
	}
	if keys := s.Keys(); len(keys) != 3 || s.changes.Len() != 3 || len(s.places) != 3 {
		t.Errorf("of %d there are %d changes in %d places", len(keys), s.changes.Len(), len(s.places))
	}
}

// TestStoreSigners: records of a server that is no longer one are refused as soon as
// that is known, also from instances that were believed before.
func TestStoreSigners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(StoreConfig{Namespace: testNamespace, Clock: clock.New()})
		s.SetSigners(signersOf(t, "server", "removed"))
		certificate := certify(t, "removed", trust.Certificate{ID: "a", Service: "checkout", Host: "h1"})
		if _, news := s.Merge(says(t, certificate, "a", 1)); !news {
			t.Fatal("no news")
		}
		s.SetSigners(signersOf(t, "server"))
		if _, _, err := s.Take(says(t, certificate, "a", 2), "a"); !errors.Is(err, trust.ErrUnknownSigner) {
			t.Errorf("a certificate of a server that was removed: %v", err)
		}
	})
}

// TestStoreLooksOnce: a certificate is verified once and looked at each time, and what is
// known is not verified again.
func TestStoreLooksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		verified, known := 0, 0
		s := NewStore(StoreConfig{Namespace: testNamespace, Clock: clock.New(), Verify: func(c *Claim) (trust.Certificate, error) {
			verified++
			if c.Known != nil {
				known++
			}
			return c.Verify()
		}})
		s.SetSigners(signersOf(t, "server"))
		certificate := certify(t, "server", trust.Certificate{ID: "a", Host: "h1", NotAfter: time.Now().Add(time.Minute).UnixMilli()})
		first := says(t, certificate, "a", 1)
		for range 10 {
			s.Merge(first)
		}
		s.Merge(says(t, certificate, "a", 2))
		if verified != 2 || known != 1 {
			t.Errorf("of two records, one ten times, %d were verified, %d with a known certificate", verified, known)
		}
		<-time.After(time.Minute)
		if _, _, err := s.Take(says(t, certificate, "a", 3), "a"); !errors.Is(err, trust.ErrExpired) {
			t.Errorf("a certificate that was good: %v", err)
		}
	})
}

// TestStoreChanges: a cursor sees each instance once with its newest record, in pieces,
// and nothing twice.
func TestStoreChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestStore(t)
		tell := func(k int, sequence uint64) {
			id := fmt.Sprintf("i%02d", k)
			if _, news := s.Merge(says(t, certify(t, "server", trust.Certificate{ID: id, Host: id}), id, sequence)); !news {
				t.Fatalf("%s: no news", id)
			}
		}
		changed := s.Changed()
		for k := range 10 {
			tell(k, 1)
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		ids := func(records [][]byte) (all []string) {
			for _, b := range records {
				e, err := decode(b)
				if err != nil {
					t.Fatal(err)
				}
				c, err := trust.ReadCertificate(e.certificate)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, c.ID)
			}
			return all
		}
		records, next := s.Changes(0, 4)
		if got := fmt.Sprint(ids(records)); got != "[i00 i01 i02 i03]" {
			t.Errorf("the first four: %s", got)
		}
		tell(2, 2)
		tell(7, 2)
		records, next = s.Changes(next, 100)
		if got := fmt.Sprint(ids(records)); got != "[i04 i05 i06 i08 i09 i02 i07]" {
			t.Errorf("the rest: %s", got)
		}
		if records, again := s.Changes(next, 100); len(records) != 0 || again != next {
			t.Errorf("nothing new: %v, cursor %d instead of %d", ids(records), again, next)
		}
		<-time.After(health.TTL + time.Second)
		tell(1, 3)
		if records, _ = s.Changes(0, 100); fmt.Sprint(ids(records)) != "[i01]" {
			t.Errorf("after all others expired: %s", ids(records))
		}
	})
}

// TestPicture: servers show who says what and what follows.
func TestPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestStore(t)
		for k := range 3 {
			id := fmt.Sprintf("i%d", k)
			s.Merge(says(t, certify(t, "server", trust.Certificate{ID: id, Service: "checkout", Host: "h" + id, Zone: fmt.Sprintf("z%d", k%2)}), id, 1))
		}
		s.SetPopulation(map[string]health.Population{"checkout": {Hosts: 10, Zones: 2}})
		<-time.After(time.Second)
		picture := s.Picture("", func(string) policy.Policy { return policy.Default() }, func(string) string { return "direct" })
		if len(picture.GetDependencies()) != 1 || picture.GetHosts() != 3 || picture.GetInstances() != 3 {
			t.Fatalf("picture: %v", picture)
		}
		d := picture.GetDependencies()[0]
		if v := d.GetVerdict(); !v.GetOpen() || v.GetMode() != "enforce" || v.GetReason() != "quorum" || v.GetHostsOpen() != 3 || v.GetHostsNeeded() != 3 {
			t.Errorf("verdict: %v", v)
		}
		if v := d.GetVerdictWithoutTraffic(); v.GetMode() != "advise" {
			t.Errorf("verdict without traffic: %v", v)
		}
		if r := d.GetReports()[0]; r.GetInstanceId() != "i0" || r.GetOpinion() != "open" || r.GetMode() != "direct" || r.GetAge().AsDuration() != time.Second || r.GetIgnored() != "" {
			t.Errorf("report: %v", r)
		}
		s.SetPopulation(map[string]health.Population{"checkout": {Hosts: 10, Zones: 2}, "search": {Hosts: 1, Zones: 1}})
		alone := health.Record{Incarnation: 1, Sequence: 1, Reports: []health.Report{{Dependency: "index", Opinion: health.Open, Calls: 9, Failures: 9}}}
		b, err := Seal(keyOf(t, "x"), certify(t, "server", trust.Certificate{ID: "x", Service: "search", Host: "hx"}), &alone, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s.Merge(b)
		few := s.Picture("index", func(string) policy.Policy { return policy.Default() }, func(string) string { return "" })
		if v := few.GetDependencies()[0].GetVerdict(); !v.GetOpen() || v.GetMode() != "advise" || v.GetReason() != "two hosts or fewer, advice only" {
			t.Errorf("one host of one: %v", v)
		}
		if one := s.Picture("other", func(string) policy.Policy { return policy.Default() }, func(string) string { return "" }); one.GetDependencies()[0].GetVerdict().GetOpen() {
			t.Errorf("a dependency that nobody speaks of: %v", one)
		}
	})
}

// TestPictureIsBounded: of very many reports the first ones are shown, and the number of
// all.
func TestPictureIsBounded(t *testing.T) {
	s := newTestStore(t)
	for k := range maxPictured + 5 {
		id := fmt.Sprintf("i%04d", k)
		s.own(&trust.Certificate{ID: id, Host: id}, health.Record{Incarnation: 1, Sequence: 1, Reports: []health.Report{{
			Dependency: "payments", Opinion: health.Open, Calls: 10, Failures: 9,
		}}}, []byte(id))
	}
	d := s.Picture("payments", func(string) policy.Policy { return policy.Default() }, func(string) string { return "" }).GetDependencies()[0]
	if len(d.GetReports()) != maxPictured || d.GetReportCount() != maxPictured+5 {
		t.Errorf("%d reports, of %d", len(d.GetReports()), d.GetReportCount())
	}

	// Of very many dependencies those are shown that most speak of, whatever their names.
	picture := func() []*holdfastv1.FleetDependency {
		return s.Picture("", func(string) policy.Policy { return policy.Default() }, func(string) string { return "" }).GetDependencies()
	}
	for k := range maxPicturedDependencies + 1 {
		if k == maxPicturedDependencies-1 && len(picture()) != maxPicturedDependencies {
			t.Errorf("%d of %d dependencies are shown", len(picture()), maxPicturedDependencies)
		}
		id := fmt.Sprintf("liar%04d", k)
		s.own(&trust.Certificate{ID: id, Host: id}, health.Record{Incarnation: 1, Sequence: 1, Reports: []health.Report{{
			Dependency: fmt.Sprintf("a%04d", k), Opinion: health.Open, Calls: 10, Failures: 9,
		}}}, []byte(id))
	}
	all := picture()
	last, others := all[len(all)-2], all[len(all)-1]
	if len(all) != maxPicturedDependencies+1 || last.GetName() != "payments" || last.GetReportCount() != maxPictured+5 {
		t.Errorf("%d are shown, and of payments %d reports", len(all)-1, last.GetReportCount())
	}
	if others.GetName() != "(2 more; ask for one by name)" || others.GetReportCount() != 2 || others.GetVerdict() != nil {
		t.Errorf("for the others stands %v", others)
	}
}
