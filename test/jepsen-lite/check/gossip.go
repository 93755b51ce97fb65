package check

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
)

// cutEvidence takes the key of evidence apart.
func cutEvidence(key string) (origin, dependency string, ok bool) { return strings.Cut(key, "/") }

// filledIn completes records that tell of members or evidence alone by what their
// process saw of the other before, in the same life.
func filledIn(h *history.History) []history.Peers {
	born := by(h.Servers, func(s *history.Server) string { return s.ID })
	last := make(map[string]history.Peers)
	whole := slices.Clone(h.Peers)
	for i := range whole {
		p := &whole[i]
		for ; len(born[p.Instance]) > 0 && born[p.Instance][0].T <= p.T; born[p.Instance] = born[p.Instance][1:] {
			if born[p.Instance][0].Event == history.ProcessStart {
				delete(last, p.Instance)
			}
		}
		if p.Members == nil {
			p.Members = last[p.Instance].Members
		}
		if p.Evidence == nil {
			p.Evidence = last[p.Instance].Evidence
		}
		last[p.Instance] = *p
	}
	return whole
}

// newer compares what somebody said, by incarnation and sequence.
func newer(a, b history.Said) int {
	return cmp.Or(cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.Sequence, b.Sequence))
}

// views are what each process sees of the pool, in the order of time, with the
// moment up to which it saw the last of it.
type views struct {
	of    map[string][]*history.Peers
	until map[string]int64
}

func (f *facts) views() views {
	v := views{of: by(f.Peers, func(p *history.Peers) string { return p.Instance }), until: make(map[string]int64)}
	for id, records := range v.of {
		v.until[id] = max(records[len(records)-1].T, f.lastSeen(id))
	}
	return v
}

// ids are the processes that see anything.
func (v views) ids() []string { return slices.Sorted(maps.Keys(v.of)) }

// at is what a process saw at a time, nil if it had not looked yet.
func (v views) at(id string, t int64) *history.Peers {
	var last *history.Peers
	for _, p := range v.of[id] {
		if p.T > t {
			break
		}
		last = p
	}
	return last
}

// whenAgreed is when everybody must agree, and whether the run lasted until then.
// Instances end when everybody settles.
func (f *facts) whenAgreed() (at int64, reached bool) {
	deadline := f.Run.Healed + int64(f.o.Heal)
	last := cmp.Or(f.Run.Settling, f.lastMoment())
	return min(deadline, last), deadline <= last
}

// agreement checks that after the heal everybody holds the same opinions of
// everybody. Opinions that have just changed may still be on their way.
func agreement(f *facts) *finding {
	out := &finding{none: "nobody held evidence after the heal"}
	at, reached := f.whenAgreed()
	v := f.views()
	if f.Run.Healed == 0 {
		return out
	}
	keys := v.keysHeld()
	holds := make(map[string]map[string]string) // key → opinion → one who holds it
	for _, id := range v.ids() {
		if !f.alive(id, at) {
			continue
		}
		now := v.at(id, at)
		if now == nil {
			continue
		}
		for key := range keys {
			opinion := now.Evidence[key].Opinion
			if holds[key] == nil {
				holds[key] = make(map[string]string)
			}
			if _, ok := holds[key][opinion]; !ok {
				holds[key][opinion] = id
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(holds)) {
		agreed := len(holds[key]) < 2
		if !agreed && !reached {
			continue // they had more time than the run
		}
		out.looked(1)
		if agreed || f.moving(v, key, at) {
			continue
		}
		out.fail("%s after the heal there are several opinions of %s: %s", time.Duration(at-f.Run.Healed), key, showOpinions(holds[key]))
	}
	return out
}

func showOpinions(opinions map[string]string) string {
	said := make([]string, 0, len(opinions))
	for _, opinion := range slices.Sorted(maps.Keys(opinions)) {
		said = append(said, cmp.Or(opinion, "none")+" by "+opinions[opinion])
	}
	return strings.Join(said, ", ")
}

// keysHeld are all keys of evidence.
func (v views) keysHeld() map[string]struct{} {
	keys := make(map[string]struct{})
	for _, records := range v.of {
		for _, p := range records {
			for key := range p.Evidence {
				keys[key] = struct{}{}
			}
		}
	}
	return keys
}

// moving tells whether anybody has changed its opinion shortly before a time.
func (f *facts) moving(v views, key string, at int64) bool {
	for _, id := range v.ids() {
		before, now := v.at(id, at-int64(f.o.EvidenceBy)), v.at(id, at)
		if before == nil || before.Evidence[key].Opinion != now.Evidence[key].Opinion {
			return true
		}
	}
	return false
}

// noResurrection checks that nobody falls back to something older that it had heard
// already, nor takes up again what it had dropped.
func noResurrection(f *facts) *finding {
	out := &finding{none: "nobody held evidence of others"}
	v := f.views()
	for _, id := range v.ids() {
		starts := f.starts(id)
		newest := make(map[string]history.Said)
		dropped := make(map[string]bool)
		for _, p := range v.of[id] {
			for ; len(starts) > 0 && starts[0] <= p.T; starts = starts[1:] {
				clear(newest) // it has forgotten
				clear(dropped)
			}
			for key := range newest {
				if _, ok := p.Evidence[key]; !ok {
					dropped[key] = true
				}
			}
			for _, key := range slices.Sorted(maps.Keys(p.Evidence)) {
				said := p.Evidence[key]
				have, known := newest[key]
				if origin, _, _ := cutEvidence(key); origin == id {
					continue
				}
				out.looked(1)
				switch {
				case known && newer(said, have) < 0:
					out.fail("%s goes back at %s to what %s was in %s, after %s", id, seconds(p.T), key, showSaid(said), showSaid(have))
				case known && dropped[key] && newer(said, have) == 0:
					out.fail("%s takes up again at %s what it had dropped: %s in %s", id, seconds(p.T), key, showSaid(said))
				}
				newest[key] = said
				delete(dropped, key)
			}
		}
	}
	return out
}

func showSaid(s history.Said) string {
	return number(s.Incarnation) + "." + number(s.Sequence) + " " + s.Opinion
}

// noInvention checks that what is passed on is what its origin said: one opinion
// for each sequence.
func noInvention(f *facts) *finding {
	out := &finding{none: "nobody held evidence of others"}
	type saying struct {
		key                   string
		incarnation, sequence uint64
	}
	first := make(map[saying]*history.Peers)
	// What the origin itself lists counts first, whenever it did.
	for _, own := range []bool{true, false} {
		for i := range f.Peers {
			p := &f.Peers[i]
			for _, key := range slices.Sorted(maps.Keys(p.Evidence)) {
				if origin, _, _ := cutEvidence(key); (origin == p.Instance) != own {
					continue
				}
				said := p.Evidence[key]
				id := saying{key, said.Incarnation, said.Sequence}
				other, ok := first[id]
				if !ok {
					first[id] = p
					continue
				}
				out.looked(1)
				if was := other.Evidence[key]; was.Opinion != said.Opinion {
					out.fail("%s: %s has %s, %s has %s", key, other.Instance, showSaid(was), p.Instance, showSaid(said))
				}
			}
		}
	}
	return out
}

// onlyOrigin checks that nobody but the origin makes news, and that a restarted
// origin speaks as another incarnation than before.
func onlyOrigin(f *facts) *finding {
	out := &finding{none: "no origin told what it said itself"}
	own := make(map[string]history.Said) // the newest that each origin said itself
	voices := make(map[string]*voice)
	for i := range f.Peers {
		p := &f.Peers[i]
		for key, said := range p.Evidence {
			if origin, _, _ := cutEvidence(key); origin != p.Instance {
				continue
			}
			if voices[key] == nil {
				voices[key] = &voice{last: p.T}
			}
			f.speaksAnew(out, voices[key], p, said, own[key])
			if have, ok := own[key]; !ok || newer(have, said) < 0 {
				own[key] = said
			}
		}
	}
	for i := range f.Peers {
		p := &f.Peers[i]
		for _, key := range slices.Sorted(maps.Keys(p.Evidence)) {
			origin, _, _ := cutEvidence(key)
			last, ok := own[key]
			if origin == p.Instance || !ok {
				continue
			}
			out.looked(1)
			if len(f.starts(origin)) > 1 || !f.alive(origin, f.lastMoment()) {
				last.Sequence += killedUnseen // what it said right before it was killed
			}
			if said := p.Evidence[key]; newer(said, last) > 0 {
				out.fail("%s holds %s in %s at %s, but %s never came beyond %s", p.Instance, key, showSaid(said), seconds(p.T), origin, showSaid(last))
			}
		}
	}
	return out
}

// voice is what an origin said itself of one dependency.
type voice struct {
	last   int64        // when it was seen last
	before history.Said // the newest of its lives before this one
	since  int64        // since when this life has had nothing newer; 0 if it has
}

// speaksAnew checks that an origin speaks as another incarnation than in its lives
// before. It may hear for a moment what it said in one of them.
func (f *facts) speaksAnew(out *finding, v *voice, p *history.Peers, said, newest history.Said) {
	if f.startedBetween(p.Instance, v.last, p.T) {
		v.before, v.since = newest, 0
	}
	v.last = p.T
	if said.Incarnation == 0 || said.Incarnation > v.before.Incarnation {
		v.since = 0
		return
	}
	v.since = cmp.Or(v.since, p.T)
	heard := v.before
	heard.Sequence += killedUnseen
	if newer(said, heard) > 0 || time.Duration(p.T-v.since) > f.o.EvidenceBy {
		out.fail("%s started again and speaks at %s as incarnation %d, as it did before", p.Instance, seconds(p.T), said.Incarnation)
		v.since = p.T
	}
}

// killedUnseen is how much a process may have said before it was killed and could
// record it.
const killedUnseen = 2

// startedBetween tells whether a process started after one time, up to another.
func (f *facts) startedBetween(id string, after, upTo int64) bool {
	return slices.ContainsFunc(f.starts(id), func(start int64) bool { return start > after && start <= upTo })
}

// expires checks that evidence is dropped when its origin has fallen silent, by the
// holder's own clock.
func expires(f *facts) *finding {
	out := &finding{none: "nobody held evidence of others"}
	v := f.views()
	limit := int64(f.o.Evidence + f.o.EvidenceBy)
	for _, id := range v.ids() {
		heard := make(map[string]int64)
		said := make(map[string]history.Said)
		for i, p := range v.of[id] {
			until := v.until[id]
			if i+1 < len(v.of[id]) {
				until = v.of[id][i+1].T
			}
			for _, key := range slices.Sorted(maps.Keys(p.Evidence)) {
				if origin, _, _ := cutEvidence(key); origin == id {
					continue
				}
				out.looked(1)
				if have, ok := said[key]; !ok || newer(have, p.Evidence[key]) < 0 {
					heard[key] = p.T
				}
				if held := until - heard[key]; held > limit && !f.disturbed(id, heard[key], until) {
					out.fail("%s holds %s in %s at %s, %v after it heard it", id, key, showSaid(p.Evidence[key]), seconds(until), time.Duration(held))
					heard[key] = until
				}
			}
			said = p.Evidence
		}
	}
	return out
}

// deadLeave checks that a process that is gone leaves everybody's view.
func deadLeave(f *facts) *finding {
	out := &finding{none: "nobody died for long enough"}
	v := f.views()
	for i := range f.Servers {
		s := &f.Servers[i]
		if s.Event != history.ProcessKill && s.Event != history.ProcessExit {
			continue
		}
		back := f.lastMoment()
		for _, start := range f.starts(s.ID) {
			if start > s.T {
				back = min(back, start)
			}
		}
		for _, id := range v.ids() {
			for j, p := range v.of[id] {
				until := v.until[id]
				if j+1 < len(v.of[id]) {
					until = v.of[id][j+1].T
				}
				f.stillThere(out, s, p, max(p.T, s.T), min(until, back))
			}
		}
	}
	return out
}

// stillThere checks one view that was held from one time to another after a death.
func (f *facts) stillThere(out *finding, dead *history.Server, p *history.Peers, from, to int64) {
	if p.Instance == dead.ID || to < from || f.disturbed(p.Instance, dead.T, to) {
		return
	}
	gone := time.Duration(to - dead.T)
	if gone > f.o.Dead {
		out.looked(1)
		if slices.Contains(p.Members, dead.ID) {
			out.fail("%s lists %s at %s, %v after it died", p.Instance, dead.ID, seconds(to), gone)
		}
	}
	if gone <= f.o.Evidence+f.o.EvidenceBy {
		return
	}
	out.looked(1)
	for key := range p.Evidence {
		if origin, _, _ := cutEvidence(key); origin == dead.ID {
			out.fail("%s holds %s at %s, %v after its origin died", p.Instance, key, seconds(to), gone)
		}
	}
}

// whole checks that after the heal every member sees every other one.
func whole(f *facts) *finding {
	out := &finding{none: "nobody told of members after the heal"}
	at, reached := f.whenAgreed()
	if f.Run.Healed == 0 {
		return out
	}
	if !reached {
		out.none = "the run ended before everybody had to see everybody"
		return out
	}
	v := f.views()
	listed := make(map[string]bool) // servers go by other names there
	for i := range f.Peers {
		for _, id := range f.Peers[i].Members {
			listed[id] = true
		}
	}
	var members []string
	for _, id := range v.ids() {
		if p := v.at(id, at); p != nil && listed[id] && len(p.Members) > 0 && f.alive(id, at) && !f.disturbed(id, f.Run.Healed, at) {
			members = append(members, id)
		}
	}
	for _, id := range members {
		for _, other := range members {
			out.looked(1)
			if !slices.Contains(v.at(id, at).Members, other) {
				out.fail("%s does not see %s, %v after the heal", id, other, time.Duration(at-f.Run.Healed))
			}
		}
	}
	return out
}

// boundedGossip checks what gossip costs each process: it may send so much in any
// case, and so much for each thing that is new, and nothing waits without end.
func boundedGossip(f *facts) *finding {
	out := &finding{none: "nobody told what gossip costs it"}
	changes := f.revisionsMade()
	heard := by(f.Peers, func(p *history.Peers) string { return p.Instance })
	for id, usages := range by(f.Usages, func(u *history.Usage) string { return u.ID }) {
		said := make([]int64, 0, len(heard[id]))
		for _, p := range heard[id] {
			said = append(said, p.T)
		}
		var since *history.Usage
		for _, u := range usages {
			if u.Queue > f.o.Queue {
				out.fail("%s has %d messages waiting at %s", id, u.Queue, seconds(u.T))
			}
			if u.Packets == 0 && u.Queue == 0 {
				continue
			}
			out.looked(1)
			if since == nil || u.Packets < since.Packets {
				since = u
				continue
			}
			took := time.Duration(u.T - since.T)
			if took < newsTakes {
				continue
			}
			// What was new shortly before may still be passed on.
			from := since.T - int64(newsTakes)
			news := within(changes, from, u.T) + within(said, from, u.T)
			sent, allowed := u.Packets-since.Packets, int64(f.o.Packets*took.Seconds()+f.o.PacketsPerNews*float64(news))
			if sent > allowed {
				out.fail("%s sent %d packets in %v until %s, with %d things new; at most %d were needed", id, sent, took, seconds(u.T), news, allowed)
			}
			since = u
		}
	}
	return out
}

// newsTakes is how long what is new may be passed on, and over how much time packets
// are counted at least.
const newsTakes = time.Second

// revisionsMade are the times, in order, at which each revision was first applied
// anywhere.
func (f *facts) revisionsMade() []int64 {
	first := make(map[history.Place]bool)
	var at []int64
	for i := range f.Applied {
		a := &f.Applied[i]
		if place := f.log.place(a.Epoch, a.Revision); a.Effective && !first[place] {
			first[place] = true
			at = append(at, a.T)
		}
	}
	return at
}

// within counts the times, which are in order, after one and up to another.
func within(times []int64, after, upTo int64) int {
	i, _ := slices.BinarySearch(times, after+1)
	j, _ := slices.BinarySearch(times, upTo+1)
	return j - i
}
