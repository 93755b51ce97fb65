package fleet

import (
	"time"

	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/pace"
)

const (
	// voiceRate and voiceBurst keep the own records within what others take of one
	// instance (recordRate, recordBurst), with one to spare for the farewell.
	voiceRate  = 1.5
	voiceBurst = 4
	// refreshJitter is by how much refreshes come earlier, at random, so that those who
	// spoke together do not do so for ever.
	refreshJitter = time.Second
)

// voice is what an instance has said to the others.
type voice struct {
	incarnation, sequence uint64
	due                   int64 // when to say it again; 0 if there was nothing to say
	disowns               bool  // something is to be set right, and has not been yet
	doubt                 health.Doubt
	pace                  pace.Bucket
}

// spoken is what was said of one dependency.
type spoken struct {
	said   health.Report // without an opinion: nothing
	rode   bool          // only because there was something else to say; it is not repeated
	polite int64         // when a polite wish to speak is looked at again; 0 without one
}

// firm tells whether something was said that has to be repeated.
func (s *spoken) firm() bool { return s.said.Opinion != health.None && !s.rode }

// wish is what to do about a report.
type wish uint8

const (
	silent wish = iota // say nothing of it, and withdraw what was said when there is occasion
	ride               // say it if there is something else to say
	repeat             // go on saying it
	news               // say it at once, or, without an opinion, withdraw it at once
)

// wish decides what to do about a report, and when to ask again at the latest; 0 for no
// time in particular.
func (s *spoken) wish(now int64, r *health.Report, urgency health.Urgency, pause func() time.Duration) (wish, int64) {
	was, stands := s.polite, s.said.Opinion != health.None
	s.polite = 0
	switch {
	case stands && differs(&s.said, r), r.Opinion == health.None && s.firm():
		return news, 0
	case r.Opinion == health.None:
		return silent, 0
	case !stands && r.Probe != health.NoResult: // others wait for results
		return news, 0
	case urgency == health.Never && r.Probe == health.NoResult:
		return silent, 0
	case s.firm():
		return repeat, 0
	case urgency == health.Now, urgency == health.Politely && was != 0 && now >= was:
		s.polite = was // until it has been said
		return news, 0
	case urgency == health.Later:
		return ride, 0
	}
	if s.polite = was; was == 0 {
		s.polite = now + int64(pause())
	}
	return ride, s.polite
}

// differs tells whether others conclude something else from a report than from what was
// said before. Praise that holds no longer outweighs those who find it broken, and rounds
// are of those who probe.
func differs(said, r *health.Report) bool {
	return accuses(said.Opinion) != accuses(r.Opinion) || said.Opinion == health.Well && r.Opinion != health.Well ||
		said.Probe != r.Probe || said.Round != r.Round && accuses(r.Opinion)
}

func accuses(o health.Opinion) bool { return o == health.Open || o == health.Probing }

// speak says what there is to say, if there is, and returns when to try again; 0 for no
// time in particular.
func (m *Member) speak(l *look) int64 {
	v, c := &m.voice, m.credential.Load()
	if c == nil {
		return 0
	}
	v.disowns = m.disowned(c) || v.disowns
	urgent := v.disowns || m.doubt != v.doubt && v.due > 0
	var firm, riding []*standing
	for _, of := range l.speech {
		s := of.standing
		what, again := s.spoken.wish(l.now, &s.report, of.urgency, m.politely)
		l.at(again)
		switch {
		case what == news && s.report.Opinion == health.None:
			urgent = true
		case what == news:
			urgent, firm = true, append(firm, s)
		case what == repeat:
			firm = append(firm, s)
		case what == ride:
			riding = append(riding, s)
		}
	}
	if !urgent && (v.due == 0 || l.now < v.due) {
		return v.due
	}
	limit := pace.Limit{Rate: voiceRate, Burst: voiceBurst}
	if !v.pace.Take(l.now, 1, limit) {
		return l.now + int64(v.pace.Wait(l.now, 1, limit))
	}
	if len(firm) == 0 {
		riding = nil
	}
	m.say(c, firm, riding, urgent)
	v.due = 0
	if len(firm) > 0 {
		v.due = l.now + int64(refresh(firm)-m.draw(refreshJitter))
	}
	for _, of := range l.speech {
		of.standing.spoken = spoken{polite: of.standing.spoken.polite}
	}
	for _, s := range firm {
		s.spoken = spoken{said: s.report}
	}
	for _, s := range riding {
		s.spoken.said, s.spoken.rode = s.report, true
	}
	return v.due
}

// refresh is how soon to say the same again. Witnesses of the contrary are many where
// one is wrong, and one of them may be missing for a while.
func refresh(firm []*standing) time.Duration {
	for _, s := range firm {
		if accuses(s.report.Opinion) {
			return health.Refresh
		}
	}
	return 2 * health.Refresh
}

// disowned tells whether somebody holds something that this instance is said to have
// said, and that it has not: it did in an earlier life, or its clock went back between
// the two. It has to speak then, if only to say that there is nothing to say.
func (m *Member) disowned(c *credential) bool {
	v := &m.voice
	incarnation, sequence, ok := m.config.Store.latest(c.is.ID)
	switch {
	case !ok:
		return false
	case incarnation > v.incarnation:
		v.incarnation, v.sequence = incarnation+1, 0
		return true
	case incarnation == v.incarnation && sequence > v.sequence:
		v.sequence = sequence
		return true
	default:
		return incarnation < v.incarnation
	}
}

// say makes a record of reports, signs it and lets it travel.
func (m *Member) say(c *credential, firm, riding []*standing, news bool) {
	v := &m.voice
	v.sequence++
	v.doubt, v.disowns = m.doubt, false
	r := health.Record{Incarnation: v.incarnation, Sequence: v.sequence, Doubt: m.doubt}
	for _, s := range append(firm, riding...) {
		r.Reports = append(r.Reports, s.report)
	}
	m.publish(c, r, news)
}

// publish signs a record and lets it travel.
func (m *Member) publish(c *credential, r health.Record, news bool) {
	sealed, err := sealRecord(m.config.Key, c, &r, m.config.Store.config.Time())
	if err != nil {
		m.config.Logger.Error("what the breakers saw cannot be told", "error", err)
		return
	}
	m.config.Store.own(&c.is, r, sealed)
	m.counts.published.Add(1)
	if spread := *m.spread.Load(); spread != nil {
		spread(c.is.ID, news)
	}
}

// leave says farewell and lets go of the breakers.
func (m *Member) leave() {
	for _, s := range m.byName() {
		if s.heeded.Mode != "" {
			s.dependency.Heed(guard.FleetVerdict{})
		}
	}
	if c, v := m.credential.Load(), &m.voice; c != nil && v.due > 0 {
		v.sequence++
		m.publish(c, health.Record{Incarnation: v.incarnation, Sequence: v.sequence, Leaving: true}, true)
	}
}

// politely draws how long to wait for others to speak first.
func (m *Member) politely() time.Duration { return m.draw(health.PoliteDelay) }

// draw returns a random time up to d.
func (m *Member) draw(d time.Duration) time.Duration {
	return time.Duration(m.random.Int64N(int64(d)))
}
