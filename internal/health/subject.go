package health

import (
	"cmp"
	"math"
	"slices"
)

// subject is what is said of one dependency, by hosts. What the votes of a host come to
// is worked out once for each change of them: so a tally costs some nanoseconds a host,
// and a plan looks at the first hosts that take part.
type subject struct {
	name   string
	booths map[string]*booth
	order  []*booth       // by voice, then by host
	zones  map[string]int // numbers of those in which anything was said
	votes  int
}

// booth holds the votes of one host.
type booth struct {
	host  string
	voice uint64
	votes []vote

	sum       share // of the votes; true from since on, before until
	since     int64
	until     int64
	outOfDate bool
	probes    bool // somebody may be a candidate to probe
}

// vote is what one instance says.
type vote struct {
	*Held
	report *Report
}

// share is what the fresh votes of a host come to.
type share struct {
	count             Count
	zones             []zoneShare
	hearsay, doubting bool
}

// zoneShare is the part of a share that is said in one zone.
type zoneShare struct {
	zone  int // its number
	count Count
	open  bool // it says open, and so does the host
	votes ballot
}

func newSubject(name string) *subject {
	return &subject{name: name, booths: make(map[string]*booth), zones: make(map[string]int)}
}

func (s *subject) add(v vote) {
	b := s.booths[v.Host]
	if b == nil {
		b = &booth{host: v.Host, voice: voice(s.name, v.Host)}
		s.booths[v.Host] = b
		at, _ := slices.BinarySearchFunc(s.order, b, (*booth).compare)
		s.order = slices.Insert(s.order, at, b)
	}
	b.votes, b.outOfDate = append(b.votes, v), true
	s.votes++
	s.number(v.Zone)
}

// number gives a zone a number. Zones of which nothing is said any more are forgotten
// when there are as many of them as of votes.
func (s *subject) number(zone string) {
	if _, ok := s.zones[zone]; ok {
		return
	}
	s.zones[zone] = len(s.zones)
	if len(s.zones) <= 2*s.votes {
		return
	}
	clear(s.zones)
	for _, b := range s.order {
		b.outOfDate = true
		for _, v := range b.votes {
			if _, ok := s.zones[v.Zone]; !ok {
				s.zones[v.Zone] = len(s.zones)
			}
		}
	}
}

func (s *subject) remove(h *Held) {
	b := s.booths[h.Host]
	b.votes, b.outOfDate = slices.DeleteFunc(b.votes, func(v vote) bool { return v.Held == h }), true
	s.votes--
	if len(b.votes) > 0 {
		return
	}
	delete(s.booths, h.Host)
	at, _ := slices.BinarySearchFunc(s.order, b, (*booth).compare)
	s.order = slices.Delete(s.order, at, at+1)
}

func (b *booth) compare(c *booth) int {
	return cmp.Or(cmp.Compare(b.voice, c.voice), cmp.Compare(b.host, c.host))
}

// share returns what is fresh. It is good until the votes change.
func (s *subject) share(b *booth, now int64) *share {
	if !b.outOfDate && b.since <= now && now < b.until {
		return &b.sum
	}
	var all ballot
	sum := share{zones: b.sum.zones[:0]}
	b.outOfDate, b.probes, b.since, b.until = false, false, math.MinInt64, math.MaxInt64
	for _, v := range b.votes {
		if v.Age(now) >= TTL {
			b.since = now
			continue
		}
		b.until = min(b.until, v.Born+int64(TTL))
		if v.Record.Doubt != 0 {
			sum.doubting = true
			continue
		}
		b.probes = b.probes || v.report.Opinion == Open || v.report.Opinion == Probing || v.report.Probe != NoResult
		sum.hearsay = sum.hearsay || v.report.Opinion == Hearsay
		if v.report.side() != 0 {
			all.add(v.report)
			sum.in(s.zones[v.Zone]).votes.add(v.report)
		}
	}
	sum.count.add(all)
	for i := range sum.zones {
		z := &sum.zones[i]
		z.count.add(z.votes)
		z.open = all.wins() && z.votes.open > 0
	}
	b.sum = sum
	return &b.sum
}

// in returns the part of a zone.
func (s *share) in(zone int) *zoneShare {
	at := slices.IndexFunc(s.zones, func(z zoneShare) bool { return z.zone == zone })
	if at < 0 {
		at = len(s.zones)
		s.zones = append(s.zones, zoneShare{zone: zone})
	}
	return &s.zones[at]
}
