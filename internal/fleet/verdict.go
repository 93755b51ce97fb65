package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Verdict is what an instance makes of a dependency that is not plainly well, here or
// elsewhere.
type Verdict struct {
	Dependency string
	// Open tells that it is taken to be broken, Others that enough of the others find it
	// so. Hearsay tells that calls are held back only because of them, Advised that they
	// would be, were it enforced. Mode is what the policy says about that.
	Open, Others, Hearsay, Advised bool
	Mode                           policy.FleetMode
	// Reason is why, in words.
	Reason string
	// Opinion is the instance's own, as it would tell others; None if it is plainly
	// well or not called.
	Opinion health.Opinion
	// Finding is what the others say.
	Finding health.Finding
	// ProbeRank is the instance's place among ProbeCandidates who hold it open, the
	// first being 0; both are 0 while it is not held open. ProbeIn is how soon it is
	// the instance's turn.
	ProbeRank, ProbeCandidates int
	ProbeIn                    time.Duration
}

// Event tells that Others, Hearsay or Advised of a verdict changed.
type Event struct {
	Verdict
}

// Explanation is why a verdict is what it is.
type Explanation struct {
	Verdict
	// Doubt is why the instance does not trust itself; 0 if it does.
	Doubt health.Doubt
	// Votes are what others say, and whether they count.
	Votes []health.Vote
}

// MemberStats are totals since a member was made.
type MemberStats struct {
	// Published counts the instance's own records.
	Published uint64
	// Heeded counts dependencies that were held back because of others, Advised those
	// that would have been.
	Heeded, Advised uint64
	// Postponed counts probes that were moved because of others, Recovered recoveries
	// that began because the probes of others went well.
	Postponed, Recovered uint64
	// Doubts is why the instance does not trust itself now; 0 if it does.
	Doubt health.Doubt
	// Panics counts bugs.
	Panics uint64
}

type memberCounts struct {
	steps, published, heeded, advised, postponed, recovered, panics atomic.Uint64
	doubt                                                           atomic.Uint32
}

// Stats returns the counters.
func (m *Member) Stats() MemberStats {
	c := &m.counts
	return MemberStats{
		Published: c.published.Load(), Heeded: c.heeded.Load(), Advised: c.advised.Load(),
		Postponed: c.postponed.Load(), Recovered: c.recovered.Load(), Panics: c.panics.Load(),
		Doubt: health.Doubt(c.doubt.Load()), //nolint:gosec // stored from one
	}
}

// Verdicts returns what is made of the dependencies that are not plainly well, in the
// order of their names, as of the last look.
func (m *Member) Verdicts() []Verdict { return slices.Clone(*m.shown.Load()) }

// Explain tells why the verdict on a dependency is what it is.
func (m *Member) Explain(dependency string) Explanation {
	e := Explanation{Verdict: Verdict{Dependency: dependency, Reason: health.NoEvidence.String()}, Doubt: m.Stats().Doubt}
	for _, v := range *m.shown.Load() {
		if v.Dependency == dependency {
			e.Verdict = v
		}
	}
	var me health.Origin
	if c := m.credential.Load(); c != nil {
		me = originOf(&c.is)
	}
	m.config.Store.look(func(t *health.Table, _ map[string]health.Population) {
		e.Votes = t.Votes(m.config.Clock.Now(), dependency, me)
	})
	return e
}

// Record returns the instance's own record as it travels now; nil if it has said
// nothing lately.
func (m *Member) Record() []byte {
	c := m.credential.Load()
	if c == nil {
		return nil
	}
	return m.config.Store.Encode(c.is.ID)
}

// show lets Verdicts return what was concluded, and tells what changed.
func (m *Member) show(now int64) {
	m.counts.doubt.Store(uint32(m.doubt))
	all := make([]Verdict, 0, len(m.standings))
	var told []Event
	for _, s := range m.byName() {
		v := s.shown(now)
		if !s.quiet() || v.Finding.HostsOpen > 0 {
			all = append(all, v)
		}
		if was := s.told; v.Others != was.Others || v.Hearsay != was.Hearsay || v.Advised != was.Advised {
			told = append(told, Event{v})
			m.count(&was, &v)
			s.told = v
		}
	}
	m.shown.Store(&all)
	for _, e := range told {
		m.tell(e)
	}
}

func (s *standing) shown(now int64) Verdict {
	v := Verdict{
		Dependency: s.is.Dependency, Open: s.verdict.Open, Others: s.verdict.Suspecting.Open,
		Hearsay: s.heeded.Mode == policy.FleetEnforce && s.verdict.Hearsay,
		Mode:    s.verdict.Mode, Reason: s.verdict.Reason.String(), Opinion: s.report.Opinion, Finding: s.verdict.Suspecting,
	}
	if v.Finding.Reason == health.TwoHosts && v.Mode == policy.FleetEnforce {
		v.Mode = policy.FleetAdvise
	}
	v.Advised = v.Open && v.Others && !v.Hearsay && !hard(s.is.State)
	if s.plan.Candidates > 0 {
		v.ProbeRank, v.ProbeCandidates, v.ProbeIn = s.plan.Rank, s.plan.Candidates, time.Duration(max(s.plan.Turn-now, 0))
	}
	return v
}

// words says what others find, for logs and rejections.
func words(f *health.Finding) string {
	return fmt.Sprintf("%s: %d of %d hosts find it broken, %d needed", f.Reason, f.HostsOpen, f.Hosts, f.HostsNeeded)
}

func (m *Member) count(was, is *Verdict) {
	if is.Hearsay && !was.Hearsay {
		m.counts.heeded.Add(1)
	}
	if is.Advised && !was.Advised {
		m.counts.advised.Add(1)
	}
}

// tell tells the log and whoever listens of another verdict.
func (m *Member) tell(e Event) {
	level, text := slog.LevelInfo, "others find a dependency broken no longer"
	if e.Others {
		level, text = slog.LevelWarn, "others find a dependency broken"
	}
	m.config.Logger.Log(context.Background(), level, text, //nolint:sloglint // one of two
		"dependency", e.Dependency, "held_back", e.Hearsay, "mode", string(e.Mode), "reason", e.Reason, "others", words(&e.Finding))
	if m.config.OnEvent != nil {
		m.config.OnEvent(e)
	}
}
