package fleet

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/pace"
	"github.com/holdfast-dev/holdfast/internal/trust"
)

// TestNews: what others conclude something else from is said at once.
func TestNews(t *testing.T) {
	for name, c := range map[string]struct {
		said, is health.Report
		want     wish
		rode     bool
	}{
		"it goes on finding it broken": {
			said: health.Report{Opinion: health.Open, Round: 1}, is: health.Report{Opinion: health.Probing, Round: 1}, want: repeat,
		},
		"it rode along and was well": {
			said: health.Report{Opinion: health.Well}, rode: true, is: health.Report{Opinion: health.Suspects}, want: news,
		},
		"it rode along, was well and knows no more": {
			said: health.Report{Opinion: health.Well}, rode: true, want: news,
		},
		"it rode along and is as it was": {
			said: health.Report{Opinion: health.Well}, rode: true, is: health.Report{Opinion: health.Well}, want: ride,
		},
		"it rode along, suspected and suspects no more": {
			said: health.Report{Opinion: health.Suspects}, rode: true, want: silent,
		},
		"it was said, it suspected and suspects no more": {
			said: health.Report{Opinion: health.Suspects}, want: news,
		},
		"it was well and is suspected": {
			said: health.Report{Opinion: health.Well}, is: health.Report{Opinion: health.Suspects}, want: news,
		},
		"it was well and is broken": {
			said: health.Report{Opinion: health.Well}, is: health.Report{Opinion: health.Open}, want: news,
		},
		"those who probe have another round": {
			said: health.Report{Opinion: health.Open, Round: 1}, is: health.Report{Opinion: health.Open, Round: 2}, want: news,
		},
		"others have another round": {
			said: health.Report{Opinion: health.Hearsay, Round: 1}, is: health.Report{Opinion: health.Hearsay, Round: 2}, want: repeat,
		},
		"a probe went well": {
			said: health.Report{Opinion: health.Open, Round: 1}, is: health.Report{Opinion: health.Recovering, Round: 1, Probe: health.Good}, want: news,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := spoken{said: c.said, rode: c.rode}
			if got, _ := s.wish(1, &c.is, health.Later, func() time.Duration { return time.Second }); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// mute returns a member of the instance that has no goroutine.
func (i *instance) mute(tb testing.TB) *Member {
	tb.Helper()
	m := NewMember(MemberConfig{Guard: i.guard, Store: i.store, Clock: i.clock, Key: keyOf(tb, i.id), Incarnation: 1})
	if err := m.SetCertificate(certify(tb, "server", trust.Certificate{ID: i.id, Service: "checkout", Host: i.host})); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(i.close)
	return m
}

// TestRidersAreWithdrawn: praise that was said only because there was something else to
// say is withdrawn at once where it holds no longer, and not repeated for its own sake.
func TestRidersAreWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newEther().instance(t, option{id: "a", alone: true}).mute(t)
		broken := &standing{report: health.Report{Dependency: "payments", Opinion: health.Open, Calls: 9, Failures: 9}}
		well := &standing{report: health.Report{Dependency: "stock", Opinion: health.Well, Calls: 9, Successes: 9}}
		speak := func() []health.Report {
			m.speak(&look{member: m, now: m.config.Clock.Now(), again: math.MaxInt64, speech: []speech{{broken, health.Now}, {well, health.Later}}})
			held, _ := m.config.Store.table.Get("a")
			return held.Record.Reports
		}
		if got := speak(); len(got) != 2 || got[1].Opinion != health.Well || m.counts.published.Load() != 1 {
			t.Fatalf("said %v", got)
		}
		<-time.After(2 * time.Second)
		if speak(); m.counts.published.Load() != 1 {
			t.Error("nothing is new, and it was said again")
		}
		broken.report.Opinion = health.None
		if got := speak(); len(got) != 0 || m.counts.published.Load() != 2 {
			t.Errorf("with nothing else to say it says %v", got)
		}
		<-time.After(2 * time.Second)
		broken.report.Opinion = health.Open
		if got := speak(); len(got) != 2 {
			t.Errorf("said %v", got)
		}
		<-time.After(2 * time.Second)
		well.report.Opinion = health.Suspects
		if got := speak(); m.counts.published.Load() != 4 || len(got) != 2 || got[1].Opinion != health.Suspects {
			t.Errorf("praise that does not hold stands: %v", got)
		}
	})
}

// TestDisowned: what others hold of an instance that it has not said is set right, also
// where it has just said as much as it may.
func TestDisowned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newEther().instance(t, option{id: "a", alone: true}).mute(t)
		s := m.config.Store
		if _, news := s.Merge(says(t, m.credential.Load().bytes, "a", 50)); !news {
			t.Fatal("no news")
		}
		for m.voice.pace.Take(m.config.Clock.Now(), 1, pace.Limit{Rate: voiceRate, Burst: voiceBurst}) {
			continue
		}
		speak := func() time.Duration {
			now := m.config.Clock.Now()
			return time.Duration(m.speak(&look{member: m, now: now, again: math.MaxInt64}) - now)
		}
		again := speak()
		if _, sequence, _ := s.latest("a"); sequence != 50 || again <= 0 || again > time.Second {
			t.Fatalf("number %d stands, again after %s", sequence, again)
		}
		<-time.After(again)
		speak()
		if _, sequence, _ := s.latest("a"); sequence != 51 {
			t.Errorf("number %d stands", sequence)
		}
		if published := m.counts.published.Load(); published != 1 {
			t.Errorf("it spoke %d times", published)
		}
		<-time.After(2 * time.Second)
		if speak(); m.counts.published.Load() != 1 {
			t.Error("it was set right twice")
		}
	})
}

// TestPolitenessIsKept: a wish whose time has come is still one when it was not heeded
// at once.
func TestPolitenessIsKept(t *testing.T) {
	var s spoken
	pause := func() time.Duration { return time.Second }
	r := health.Report{Opinion: health.Open}
	if got, again := s.wish(1, &r, health.Politely, pause); got != ride || again != 1+int64(time.Second) {
		t.Fatalf("got %v, again at %d", got, again)
	}
	for range 2 {
		if got, _ := s.wish(1+int64(time.Second), &r, health.Politely, pause); got != news {
			t.Errorf("got %v", got)
		}
	}
}
