package health

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Weights of votes, in sixteenths, so that sums do not depend on their order.
//
// A vote weighs log2(1+calls): what somebody saw in 100 calls is worth more than
// what another one saw in 3, but not 33 times as much, since beyond some dozens what
// differs is the path and not the sample. The weight is the witness's own claim, so
// the cap is what a lie is worth: at 8 (255 calls; a share estimated from so many is
// known to ±3 %) a liar weighs as much as 1.2 honest witnesses with 100 calls, or 2.3
// with 10. With log2's cap at 15, as link metrics have it, it would be 2.3 and 4.3.
const (
	unit      = 16
	maxWeight = 8 * unit
)

func weight(calls uint32) int64 {
	return min(max(int64(math.Round(unit*math.Log2(1+float64(calls)))), unit), maxWeight)
}

// Politeness, as in Trickle (RFC 6206): who has nothing new to add stays silent.
const (
	// polite is how many hosts on one side are enough, so that a thousand witnesses do
	// not speak at once: four times the usual quorum of three, so that some may crash,
	// leave or doubt themselves. As many take turns to probe.
	polite = 12
	// PoliteDelay is the longest that somebody waits for others to speak first.
	PoliteDelay = 50 * time.Millisecond
	// quietShare is the share of open weight below which nobody can take a dependency for
	// broken, or that of the others for well; all speak, however many there are, until
	// their side has reached that. So liars cannot outnumber those who are only polite.
	quietShare = 0.1
)

// Tally is what distinct hosts say of one dependency, leaving out the host of the one
// who asks: those on it share its fate, and it has evidence of its own.
type Tally struct {
	// Fleet counts all of them, Zone those in the zone of the one who asks.
	Fleet, Zone Count
	// Zones are those of all who ask or have evidence.
	Zones int
	// Hearsay counts the hosts on which somebody holds calls back by hearsay, Doubting
	// those on which somebody has an opinion and doubts itself.
	Hearsay, Doubting int

	// here says what other instances of the own host say whose ids are less: that it is
	// broken, or well.
	here struct{ open, well bool }
	// ahead are the hosts that speak before the own one: open ones, hard ones among
	// these, and well ones.
	ahead struct{ open, hard, well int }

	me         Origin
	dependency string
}

// Count is the votes of hosts. A host has one vote, which its instances share: it is
// open if those that find the dependency broken outweigh the others, and weighs as
// much as the weightiest of them.
type Count struct {
	// Open and Well count hosts. Hard are the open ones on which somebody has opened
	// its breaker by its own evidence; on the others they only suspect.
	Open, Hard, Well int
	// ZonesOpen are the zones with open hosts.
	ZonesOpen int
	// WeightOpen and WeightWell are sums of weights; one is a witness of one call.
	WeightOpen, WeightWell float64

	open, well int64
}

// Share is that of the weight which finds the dependency broken; 0 without votes.
func (c *Count) Share() float64 {
	if c.open == 0 {
		return 0
	}
	return float64(c.open) / float64(c.open+c.well)
}

func (c *Count) hosts() int { return c.Open + c.Well }

// ballot is the votes of one host.
type ballot struct {
	open, well, heaviest int64
	hard                 bool
}

func (b *ballot) add(p *Report) {
	w := weight(p.Calls)
	if p.side() > 0 {
		b.open += w
		b.hard = b.hard || p.Opinion == Open || p.Opinion == Probing
	} else {
		b.well += w
	}
	b.heaviest = max(b.heaviest, w)
}

func (b *ballot) wins() bool { return b.open > b.well }

func (c *Count) add(b ballot) {
	all := b.open + b.well
	if all == 0 {
		return
	}
	open := b.heaviest * b.open / all
	c.open += open
	c.well += b.heaviest - open
	if !b.wins() {
		c.Well++
		return
	}
	c.Open++
	if b.hard {
		c.Hard++
	}
}

func (c *Count) join(o *Count) {
	c.Open += o.Open
	c.Hard += o.Hard
	c.Well += o.Well
	c.open += o.open
	c.well += o.well
}

// side says what a vote is for: 1 open, -1 well, 0 neither. A suspicion counts where
// half of its calls failed. So does that of one who holds calls back by hearsay: what it
// has heard counts for nothing, but the few calls it makes are its own. Else a quorum of
// suspicions would dissolve as soon as it is obeyed.
func (p *Report) side() int {
	switch p.Opinion {
	case Open, Probing:
		return 1
	case Suspects, Hearsay:
		if p.Failures > 0 && 2*uint64(p.Failures) >= uint64(p.Calls) && (p.Opinion == Suspects || p.Failures > 1) {
			return 1
		}
	case Well:
		if p.Successes > 0 {
			return -1
		}
	case None, Recovering:
	}
	return 0
}

// Tally counts what is fresh.
func (t *Table) Tally(now int64, dependency string, me Origin) Tally {
	tally := Tally{me: me, dependency: dependency}
	if s := t.subjects[dependency]; s != nil {
		tally.count(now, s)
	} else if me.Host != "" {
		tally.Zones = 1
	}
	if tally.Zone.Open > 0 {
		tally.Zone.ZonesOpen = 1
	}
	for _, c := range []*Count{&tally.Fleet, &tally.Zone} {
		c.WeightOpen, c.WeightWell = float64(c.open)/unit, float64(c.well)/unit
	}
	return tally
}

// count counts the hosts.
func (y *Tally) count(now int64, s *subject) {
	place, own := voice(y.dependency, y.me.Host), s.booths[y.me.Host]
	if y.me.Host == "" {
		own = nil
	}
	zones := make([]zoneTally, len(s.zones), len(s.zones)+1)
	zone, known := s.zones[y.me.Zone]
	if !known {
		zone = len(zones)
		zones = append(zones, zoneTally{})
	}
	for _, b := range s.order {
		if b == own {
			y.own(now, b.votes)
			continue
		}
		y.host(s.share(b, now), b.voice <= place, zones)
	}
	y.Zone = zones[zone].count
	zones[zone].asks = y.me.Host != ""
	for i := range zones {
		if zones[i].open {
			y.Fleet.ZonesOpen++
		}
		if zones[i].asks || zones[i].votes {
			y.Zones++
		}
	}
}

// zoneTally is what hosts say in a zone.
type zoneTally struct {
	count             Count
	asks, votes, open bool
}

// own looks at what others on the same host say; nothing of that is a vote.
func (y *Tally) own(now int64, votes []vote) {
	for _, v := range votes {
		if v.ID >= y.me.ID || v.Age(now) >= TTL || v.Record.Doubt != 0 {
			continue
		}
		switch v.report.Opinion {
		case Open, Probing:
			y.here.open = true
		case Well:
			y.here.well = true
		case None, Suspects, Hearsay, Recovering:
		}
	}
}

// host adds the votes of another host, which may come before the own one in the order
// of who speaks.
func (y *Tally) host(s *share, ahead bool, zones []zoneTally) {
	y.Fleet.join(&s.count)
	for i := range s.zones {
		z := &zones[s.zones[i].zone]
		z.count.join(&s.zones[i].count)
		z.votes, z.open = true, z.open || s.zones[i].open
	}
	if s.hearsay {
		y.Hearsay++
	}
	if s.doubting {
		y.Doubting++
	}
	if ahead {
		y.ahead.open += s.count.Open
		y.ahead.hard += s.count.Hard
		y.ahead.well += s.count.Well
	}
}

// Urgency is when to say something.
type Urgency uint8

// Urgencies.
const (
	// Never: leave it out of the record.
	Never Urgency = iota
	// Later: with the next refresh.
	Later
	// Politely: wait a random time up to PoliteDelay, and ask again.
	Politely
	// Now: at once.
	Now
)

// Asked reports whether somebody finds the dependency broken by evidence of its own,
// so that those who find it well should say so.
func (y *Tally) Asked() bool { return y.Fleet.Hard > 0 }

// voice is a host's place in the order of who speaks about a dependency. It depends on
// nothing that the host could choose.
func voice(dependency, host string) uint64 { return hash("voice", dependency, host) }

// Speak says when an instance should say what it thinks: the first that finds a
// dependency broken at once, others politely; those that find it well, or only suspect
// it, once somebody has found it broken. Where enough hosts say so that come before the
// own one, in an order that nobody chooses, it stays silent, unless others contradict:
// then all speak up until it is clear. Of several instances on one host, which has one
// vote, the one with the least id speaks.
//
// Said is whether it says so already: it goes on a little longer, so that newcomers do
// not replace those who were there. The result of a probe is always to be said at once.
func (y *Tally) Speak(o Opinion, said bool) Urgency {
	most := polite
	if said {
		most = 2 * polite
	}
	share, needless := y.Fleet.Share(), !y.Asked()
	switch o {
	case None:
		return Never
	case Hearsay: // whatever is left of a quorum of suspicions
		needless = y.here.open || y.ahead.open >= most && share > 1-quietShare
	case Open, Probing:
		needless = y.here.open || y.ahead.hard >= most && share > 1-quietShare
	case Suspects:
		needless = needless || y.here.open || y.ahead.open >= most && share > 1-quietShare
	case Well:
		needless = needless || y.here.well || y.ahead.well >= most && share < quietShare
	case Recovering: // so that its result stays
		needless = !said
	}
	switch {
	case needless:
		return Never
	case said || o == Hearsay:
		return Later
	case o != Well && y.Fleet.Open == 0:
		return Now
	default:
		return Politely
	}
}

// Vote is a report as somebody reads it now, and whether it counts.
type Vote struct {
	Origin
	// Report has ages as of now.
	Report
	Age   time.Duration
	Doubt Doubt
	// Ignored says why the vote does not count; empty if it does.
	Ignored string
}

// Votes returns what is said of a dependency, by service and id, as me reads it.
func (t *Table) Votes(now int64, dependency string, me Origin) []Vote {
	s := t.subjects[dependency]
	if s == nil {
		return nil
	}
	var votes []Vote
	for _, b := range s.order {
		for _, v := range b.votes {
			age := v.Age(now)
			if age >= TTL {
				continue
			}
			vote := Vote{Origin: v.Origin, Report: *v.report, Age: age, Doubt: v.Record.Doubt}
			vote.Since += age
			if vote.Probe != NoResult {
				vote.ProbeAgo += age
			}
			vote.Ignored = v.ignored(me.Host != "" && b.host == me.Host)
			votes = append(votes, vote)
		}
	}
	slices.SortFunc(votes, func(a, b Vote) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
	})
	return votes
}

func (v *vote) ignored(own bool) string {
	switch {
	case own:
		return "same host"
	case v.Record.Doubt != 0:
		return "doubts itself: " + v.Record.Doubt.String()
	case v.report.Opinion == Hearsay && v.report.side() == 0:
		return "only heard it from others"
	case v.report.Opinion == Recovering:
		return "recovering, no opinion yet"
	case v.report.Opinion == Suspects && v.report.side() == 0:
		return "fewer than half of its calls failed"
	case v.report.Opinion == Well && v.report.side() == 0:
		return "no successes lately"
	default:
		return ""
	}
}
