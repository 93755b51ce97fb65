package health

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"
)

// Numbers of probing.
const (
	// stagger is how long the next ones wait for the result of those before them: some
	// times the 99th percentile of first sight (60 ms with eager pushes, 0.7 s without;
	// 0.5 s lies between what is likely and what costs recovery little), beyond the
	// probe itself, which its report of Probing announces.
	stagger = 500 * time.Millisecond
	// decisive is how many hosts' results decide a round, either way: one may be the
	// exception, or a liar.
	decisive = 2
	// soloWait and soloEach bound how long an instance waits for others whose turn
	// comes first, however many there are, spread by half to either side: nobody hears
	// anything, and still the dependency sees at most ten probes a second.
	soloWait = 30 * time.Second
	soloEach = 100 * time.Millisecond
	// patience bounds how long it waits in all, in longest pauses beyond the breaker's
	// own time: it takes twice to four times as many, evenly spread. So nothing that is
	// said can keep it from probing for longer, and nobody's word is needed.
	patience = 2
)

// Pauses are the open times of a breaker, before jitter: First, and after each failure
// Multiplier times as long, up to Max.
type Pauses struct {
	First, Max time.Duration
	Multiplier float64
}

// before is the pause before a round in which so many hosts hold the breaker open and
// so many probe at a time. It need not grow longer than it takes for the fleet to be
// gentler than its breakers would be alone: of them each would come once in Max.
func (p Pauses) before(round uint32, hosts, probes int) time.Duration {
	most := float64(p.Max) * min(float64(probes)/float64(max(hosts, 1)), 1)
	d := float64(p.First) * math.Pow(max(p.Multiplier, 1), float64(round))
	return time.Duration(min(d, max(most, float64(p.First))))
}

// ProbeState is how far the probing of a dependency is. The zero value is a breaker
// that has just opened; take it again when the breaker has closed.
type ProbeState struct {
	// Round counts the rounds that have failed. It travels in reports.
	Round uint32

	begun     bool
	from, due int64 // when the one before ended, and when this one begins
}

// Reopened is the state after a recovery that failed: another round, due after a
// longer pause.
func (s ProbeState) Reopened() ProbeState {
	if s.Round < math.MaxUint32 {
		s.Round++
	}
	return ProbeState{Round: s.Round}
}

// begin finds out when the round is due. In the first one that is a pause after most
// have opened, as long as it has not begun; later ones have begun when Plan heard of the
// results before. It may turn out to be due earlier, never later.
func (s ProbeState) begin(now, opened int64, pause time.Duration) ProbeState {
	if !s.begun {
		s.from = now
		if s.Round == 0 {
			s.from = opened
		}
		s.due = s.from + int64(pause)
		s.begun = s.Round > 0 || s.due <= now
	}
	s.due = min(s.due, max(s.from+int64(pause), now))
	return s
}

// Prober is the question of an instance that holds a dependency's breaker open: when to
// probe.
type Prober struct {
	Dependency string
	Me         Origin
	// Probes is how many hosts may probe at a time, ProbeTime how long one takes at
	// most.
	Probes    int
	ProbeTime time.Duration
	Pauses    Pauses
	// Own is when the breaker would probe if it were alone.
	Own   int64
	State ProbeState
}

// Plan is the answer.
type Plan struct {
	// State is what to keep.
	State ProbeState
	// Due is when the round begins.
	Due int64
	// Turn is when to probe, if nothing else is heard until then.
	Turn int64
	// Recover: enough others' probes have succeeded, so no own one is needed.
	Recover bool
	// Rank is the instance's place among the Candidates, from 0; Candidates if it is
	// none of them.
	Rank, Candidates int
	// Good and Bad are the hosts whose results count in this round.
	Good, Bad int
	// Alone: nobody else has an opinion that matters; Turn is Own.
	Alone bool
}

// Plan says when an instance is to probe, so that of all who hold the breaker open a
// few do at a time, without a leader and without asking anybody.
//
// Candidates are those whose fresh records say Open or Probing, and the one that asks:
// who holds back by hearsay makes a few calls all the time. Of many, twelve hosts are
// enough, always the same ones; the rest wait for results. In each round they have another order, drawn from dependency, round and
// host: first one of each zone, then a second one of each, and so on; a host's second
// instance comes after all hosts' first ones. When the round is due the first Probes of
// them probe, after stagger the next ones, unless those before them are still probing.
// Results of two hosts decide: two good ones let everybody recover, two bad ones begin
// the next round, which is due after a longer pause. A result counts from when it is
// its host's turn, so that who lies must be lucky twice in one round.
//
// Who is alone has the breaker's own time. Where more find the dependency well than
// broken, so that the trouble is of those who do not, their pauses do not grow: it bears
// a few probes. On each side of a partition those who are there take turns.
func (t *Table) Plan(now int64, p Prober) Plan {
	p.Probes = max(p.Probes, 1)
	tally := t.Tally(now, p.Dependency, p.Me)
	all := t.candidates(now, &p)
	all.well = tally.Fleet.Well > 0 && tally.Fleet.Share() < 0.5
	if all.round > p.State.Round {
		p.State = ProbeState{Round: all.round}
	}
	plan := p.plan(now, all)
	if plan.Bad >= plan.Good && plan.Bad >= all.decisive() {
		p.State = p.State.Reopened()
		plan = p.plan(now, all)
	}
	if len(all.list) == 1 && !all.out { // its own good probe is its breaker's affair
		plan.Recover = false
		if plan.Alone = !all.well; plan.Alone {
			plan.Turn = p.Own
		}
	}
	return plan
}

// candidate is one who may probe.
type candidate struct {
	id, host, zone string
	report         Report
	born           int64
	voice          uint64 // place in the order of who speaks
	hostKey, key   uint64 // places in the order of hosts, and of a host's instances
	level, turn    int    // which instance of its host, and which of those of its zone
}

// candidates are all of them, and what most hosts among them say.
type candidates struct {
	list   []candidate
	hosts  int
	round  uint32 // of the median host
	opened int64  // by the median host
	out    bool   // the one that asks is none of them
	well   bool   // most others find the dependency well
}

func (c *candidates) decisive() int { return min(decisive, len(c.list)) }

// whose tells results apart by hosts, or by instances where there is but one host.
func (c *candidates) whose(of *candidate) string {
	if c.hosts > 1 {
		return of.host
	}
	return of.id
}

func (t *Table) candidates(now int64, p *Prober) candidates {
	me := candidate{
		id: p.Me.ID, host: p.Me.Host, zone: p.Me.Zone, born: now,
		report: Report{Opinion: Open, Round: p.State.Round},
	}
	var all candidates
	if s := t.subjects[p.Dependency]; s != nil {
		if h := t.held[p.Me.ID]; h != nil && s.booths[h.Host] != nil {
			for _, v := range s.booths[h.Host].votes {
				if v.Held == h {
					me.report, me.born = *v.report, v.Born
				}
			}
		}
		all.list = s.takingPart(now, p)
	}
	all.list = append(all.list, me)
	all.few(p)
	all.medians(me.id, p.State.Round)
	return all
}

// takingPart are the other candidates of the first hosts in the order of voices; of as
// many hosts as few keeps, or somewhat more.
func (s *subject) takingPart(now int64, p *Prober) []candidate {
	var list []candidate
	hosts, last := 0, uint64(0)
	for _, b := range s.order {
		if hosts >= polite && b.voice > last {
			break
		}
		if s.share(b, now); !b.probes {
			continue
		}
		before := len(list)
		for _, v := range b.votes {
			c := candidate{id: v.ID, host: b.host, zone: v.Zone, report: *v.report, born: v.Born, voice: b.voice}
			if v.ID != p.Me.ID && v.Record.Doubt == 0 && v.Age(now) < TTL && c.takesPart(p.State.Round) {
				list = append(list, c)
			}
		}
		if len(list) > before {
			hosts, last = hosts+1, b.voice
		}
	}
	return list
}

// few keeps those who also speak when not all do: the first hosts in the order of
// voices, whoever else speaks. Somebody who wants to be heard more often than others
// gains nothing.
func (c *candidates) few(p *Prober) {
	var voices []uint64
	for i := range c.list {
		c.list[i].voice = voice(p.Dependency, c.list[i].host)
		voices = append(voices, c.list[i].voice)
	}
	slices.Sort(voices)
	voices = slices.Compact(voices)
	if len(voices) <= polite {
		return
	}
	last := voices[polite-1]
	c.out = voice(p.Dependency, p.Me.Host) > last
	c.list = slices.DeleteFunc(c.list, func(of candidate) bool { return of.voice > last })
}

// takesPart: one that has given its result keeps its place though it recovers.
func (c *candidate) takesPart(round uint32) bool {
	switch c.report.Opinion {
	case Open, Probing:
		return true
	case Recovering, Well:
		return c.report.Round == round && c.report.Probe != NoResult
	case None, Suspects, Hearsay:
	}
	return false
}

// medians takes each host at its highest round and its first opening, and the lower
// median of both: fewer than half of the hosts cannot move it anywhere. Those that have
// probed are not asked when they opened, since by now they have done so again.
func (c *candidates) medians(me string, own uint32) {
	rounds, opened, again := make(map[string]uint32), make(map[string]int64), make(map[string]int64)
	for i := range c.list {
		of := &c.list[i]
		round := of.report.Round
		if of.id == me {
			round = own
		}
		rounds[of.host] = max(rounds[of.host], round)
		times := opened
		if of.report.Opinion == Probing || of.report.Probe != NoResult {
			times = again
		}
		at := of.born - int64(of.report.Since)
		if before, ok := times[of.host]; !ok || at < before {
			times[of.host] = at
		}
	}
	if len(opened) == 0 {
		opened = again
	}
	c.hosts = len(rounds)
	c.round, c.opened = median(rounds), median(opened)
}

func median[T cmp.Ordered](of map[string]T) T {
	all := make([]T, 0, len(of))
	for _, v := range of {
		all = append(all, v)
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// order sorts the candidates for a round.
func (c *candidates) order(dependency string, round uint32) {
	number := strconv.FormatUint(uint64(round), 10)
	for i := range c.list {
		of := &c.list[i]
		of.hostKey, of.key = hash("probe", dependency, number, of.host), hash("probe", dependency, number, of.host, of.id)
	}
	slices.SortFunc(c.list, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(a.hostKey, b.hostKey), cmp.Compare(a.host, b.host),
			cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id),
		)
	})
	type place struct {
		level int
		zone  string
	}
	turns := make(map[place]int)
	for i := range c.list {
		of := &c.list[i]
		of.level = 0
		if i > 0 && c.list[i-1].host == of.host {
			of.level = c.list[i-1].level + 1
		}
		at := place{of.level, of.zone}
		of.turn = turns[at]
		turns[at]++
	}
	slices.SortStableFunc(c.list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.turn, b.turn))
	})
}

// plan is the plan for the round of p.State.
func (p *Prober) plan(now int64, all candidates) Plan {
	round := p.State.Round
	if all.well {
		round = 0
	}
	p.State = p.State.begin(now, all.opened, p.Pauses.before(round, all.hosts, p.Probes))
	state := p.State
	all.order(p.Dependency, state.Round)

	plan := Plan{State: state, Due: state.due, Candidates: len(all.list)}
	good, bad := make(map[string]bool), make(map[string]bool)
	turns := p.turns(state, all)
	plan.Rank, plan.Turn = len(all.list), state.due+p.solo(state.Round, len(all.list))
	for i := range all.list {
		of := &all.list[i]
		in, mine := of.report.Round == state.Round, of.id == p.Me.ID
		if mine {
			plan.Rank = i
			plan.Turn = min(turns[i], plan.Turn)
			if in && of.report.Probe != NoResult { // and undecided: its own breaker knows when it may again
				plan.Turn = p.Own
			}
		}
		switch {
		case !in || turns[i] > now+int64(stagger/2) && !mine:
		case of.report.Probe == Good:
			good[all.whose(of)] = true
		case of.report.Probe == Bad:
			bad[all.whose(of)] = true
		}
	}
	plan.Good, plan.Bad = len(good), len(bad)
	plan.Recover = plan.Good >= all.decisive()
	plan.Turn = min(plan.Turn, p.Own+int64(p.place(0)*patience*float64(p.Pauses.Max)))
	return plan
}

// turns is when each candidate's turn comes, in their order: as many at a time as there
// are probes. Each one is followed by the next after stagger, or if it says that it is
// probing, when that must be over. It may have crashed, so that is not asked again.
func (p *Prober) turns(state ProbeState, all candidates) []int64 {
	turns := make([]int64, len(all.list))
	free := slices.Repeat([]int64{state.due}, min(p.Probes, len(all.list)))
	for i := range all.list {
		lane := 0
		for j := range free {
			if free[j] < free[lane] {
				lane = j
			}
		}
		turns[i] = free[lane]
		if r := &all.list[i].report; r.Opinion == Probing && r.Round == state.Round && r.Probe == NoResult {
			free[lane] += int64(max(p.ProbeTime, stagger))
		} else {
			free[lane] += int64(stagger)
		}
	}
	return turns
}

// solo is how long after the round is due the instance waits at most.
func (p *Prober) solo(round uint32, candidates int) int64 {
	return int64(float64(max(soloWait, time.Duration(candidates)*soloEach)) * (p.place(round) - 0.5))
}

// place is the instance's place in a round, from 1 to 2.
func (p *Prober) place(round uint32) float64 {
	return 1 + Place(p.Dependency+"/"+strconv.FormatUint(uint64(round), 10), p.Me.ID)
}
