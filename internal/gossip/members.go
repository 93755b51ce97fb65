package gossip

import (
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// nameLimit is the longest name of a process: most messages carry it.
	nameLimit = 128
	// lostLimit and lostFor bound the memory of members that went. The oldest
	// is forgotten first; seeds are never forgotten.
	lostLimit = 1024
	lostFor   = 72 * time.Hour
	// A lost member is tried again after a sixty-fourth of the time that it has been
	// away, and no more rarely than lostPause: often enough for a partition of ten
	// minutes to heal within seconds, and those that crashed for good cost little.
	lostShare = 64
	lostPause = time.Minute
	// leaverLimit bounds the farewells of members that are still there. When it
	// is reached all are forgotten: their senders are then tried again for a while.
	leaverLimit = 1024
)

// departure is when a member went that may come back, and when to try it.
type departure struct {
	name string
	at   time.Time
	next time.Time
}

// arrive takes in a member.
func (p *Pool) arrive(m Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lost, m.Addr)
	if p.members[m.Name] != nil {
		return
	}
	at := -1
	if m.Name == p.name {
		p.self = m.Addr
	} else {
		at = len(p.others)
		p.others = append(p.others, address{m.Name, m.Addr})
	}
	p.members[m.Name] = &member{m, at}
	p.alive.Store(int64(len(p.members)))
}

// depart takes a member out. One that said nothing is tried again for a while.
func (p *Pool) depart(name, addr string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.members[name]; m != nil && m.at >= 0 {
		last := len(p.others) - 1
		p.others[m.at] = p.others[last]
		p.members[p.others[m.at].name].at = m.at
		p.others = p.others[:last]
	}
	delete(p.members, name)
	p.alive.Store(int64(len(p.members)))
	switch {
	case name == p.name:
	case p.leavers[name]:
		delete(p.leavers, name)
		p.left.Add(1)
	default:
		p.lose(name, addr, now)
	}
}

// lose remembers an address to try again. The caller holds p.mu.
func (p *Pool) lose(name, addr string, now time.Time) {
	p.lost[addr] = departure{name: name, at: now, next: now}
	if len(p.lost) <= lostLimit {
		return
	}
	oldest := addr
	for a, d := range p.lost {
		if d.at.Before(p.lost[oldest].at) {
			oldest = a
		}
	}
	delete(p.lost, oldest)
}

// lostDue returns up to n lost members whose time has come: half of them are those that
// went last, so that they are tried soon however many are gone for good, and the others
// those that have waited longest.
func (p *Pool) lostDue(now time.Time, n int) []address {
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []address
	for addr, d := range p.lost {
		switch {
		case now.Sub(d.at) > lostFor:
			delete(p.lost, addr)
		case !now.Before(d.next):
			due = append(due, address{d.name, addr})
		}
	}
	slices.SortFunc(due, func(a, b address) int { return p.lost[b.addr].at.Compare(p.lost[a.addr].at) })
	rest := due[min(n/2, len(due)):]
	slices.SortFunc(rest, func(a, b address) int { return p.lost[a.addr].next.Compare(p.lost[b.addr].next) })
	due = due[:min(n, len(due))]
	for _, a := range due {
		d := p.lost[a.addr]
		pause := min(max(now.Sub(d.at)/lostShare, rejoinInterval), lostPause)
		d.next = now.Add(pause/2 + rand.N(pause))
		p.lost[a.addr] = d
	}
	return due
}

// farewellName is the channel of farewells.
const farewellName = "!bye"

// farewell carries the names of members that are about to leave, which the library
// does not tell from those that die.
type farewell struct{ p *Pool }

var _ Records = farewell{}

// Keys implements Records: farewells travel once.
func (farewell) Keys() []string { return nil }

// Encode implements Records.
func (farewell) Encode(name string) []byte { return []byte(name) }

// Digest implements Records.
func (farewell) Digest(string) uint64 { return 0 }

// Merge implements Records. The farewell may come after the member went.
func (f farewell) Merge(b []byte) (name string, news bool) {
	p := f.p
	p.mu.Lock()
	defer p.mu.Unlock()
	name = string(b)
	if m := p.members[name]; m != nil {
		if m.at < 0 || p.leavers[name] {
			return name, false
		}
		if len(p.leavers) >= leaverLimit {
			clear(p.leavers)
		}
		p.leavers[name] = true
		return name, true
	}
	for addr, d := range p.lost {
		if d.name == name {
			delete(p.lost, addr)
			p.left.Add(1)
			return name, true
		}
	}
	return name, false
}
