package health

import (
	"fmt"
	"time"
)

// Times of the stories: those of the policy's defaults, without jitter.
const (
	storyProbe = 200 * time.Millisecond // a probe's answer
	storyRamp  = 3 * time.Second        // and its end
)

func storyPauses() Pauses { return Pauses{First: 5 * time.Second, Max: time.Minute, Multiplier: 2} }

// person is an instance of a story, with the simplest breaker that could be: it does
// what internal/fleet and internal/guard do, in a few lines.
type person struct {
	world *world
	me    Origin
	table *Table

	own     Own
	vitals  Vitals
	doubter Doubter
	doubt   Doubt
	armed   int
	claim   *Report
	dead    bool

	standing    Standing
	probes      ProbeState
	incarnation uint64
	sequence    uint64
	said        Opinion
	saidAt      int64

	since    int64 // of the state
	pause    time.Duration
	until    int64 // the breaker's own time to probe
	probing  int64 // when the answer is there
	result   Result
	resultAt int64
	round    uint32 // of the result

	verdict string
	news    string
}

func (p *person) start() {
	*p = person{
		world: p.world, me: p.me, incarnation: p.incarnation + 1, table: NewTable(0),
		vitals: Vitals{Members: 100, Dependencies: p.world.deps},
	}
}

func (p *person) sees(failures, calls, good int) {
	p.own.Failures, p.own.Calls, p.own.Successes = uint64(failures), uint64(calls), uint64(good) //nolint:gosec // small
}

func (p *person) state(s State) {
	p.own.State, p.since = s, p.world.now
	if s == Ramping {
		p.sees(0, 0, 0)
	}
}

// open opens for the first time, or for longer than before.
func (p *person) open(after time.Duration) {
	p.pause = min(max(storyPauses().First, 2*after), storyPauses().Max)
	p.state(Opened)
	p.until = p.world.now + int64(p.pause)
}

func (p *person) observe() {
	before := p.doubt
	p.doubter, p.doubt = p.doubter.Observe(p.world.now, p.vitals)
	if p.doubt != before {
		p.publish()
		if p.doubt != 0 {
			p.world.note([]*person{p}, "doubts itself: "+p.doubt.String())
		} else {
			p.world.note([]*person{p}, "doubts itself no more")
		}
	}
}

// report is what the instance says, true or not.
func (p *person) report() (Report, bool) {
	if p.claim != nil {
		return *p.claim, true
	}
	r := Report{
		Dependency: "payments", Opinion: p.own.Opinion(p.world.fleet), Since: time.Duration(p.world.now - p.since),
		Calls: uint32(p.own.Calls), Failures: uint32(p.own.Failures), Successes: uint32(p.own.Successes), Round: p.probes.Round, //nolint:gosec // small
	}
	if p.result != NoResult {
		r.Round, r.Probe, r.ProbeAgo = p.round, p.result, time.Duration(p.world.now-p.resultAt)
	}
	tally := p.table.Tally(p.world.now, "payments", p.me)
	if r.Opinion == None || r.Probe == NoResult && tally.Speak(r.Opinion, p.said != None) == Never {
		return Report{}, false
	}
	return r, true
}

// publish says it to everybody who can be reached.
func (p *person) publish() {
	record := Record{Incarnation: p.incarnation, Sequence: p.sequence, Doubt: p.doubt}
	p.said = None
	if r, ok := p.report(); ok {
		record.Reports, p.said = []Report{r}, r.Opinion
	}
	p.spread(record)
}

func (p *person) spread(record Record) {
	p.sequence++
	record.Sequence = p.sequence
	record.Normalize()
	raw, err := record.Append(nil)
	if err != nil {
		p.world.t.Fatal(err)
	}
	p.saidAt = p.world.now
	p.send(Held{Origin: p.me, Record: record, Raw: raw, Born: p.world.now})
}

func (p *person) send(h Held) {
	for _, to := range p.world.people {
		switch {
		case to.dead || p.world.cut[[2]*person{p, to}]:
		case to == p:
			p.table.Put(p.world.now, h.Origin, h.Record, h.Raw, h.Age(p.world.now))
		default:
			p.world.post = append(p.world.post, letter{to, h})
		}
	}
}

func (p *person) leave() {
	p.spread(Record{Incarnation: p.incarnation, Leaving: true})
	p.dead = true
}

// turn is what an instance does as time passes.
func (p *person) turn() {
	now := p.world.now
	if p.vitals.Health != 0 || p.doubt != 0 {
		p.observe()
	}
	if p.said != None && now >= p.saidAt+int64(Refresh) {
		p.publish()
	}
	switch p.own.State {
	case HalfOpen:
		if now >= p.probing {
			p.answer()
		}
	case Opened, Holding:
		p.plan()
	case Ramping:
		if now >= p.since+int64(storyRamp) {
			p.state(Passing)
			if p.pause > 0 {
				p.sees(0, 50, 10)
			}
			p.pause, p.result, p.probes = 0, NoResult, ProbeState{}
			if p.world.down[p] {
				p.sees(5, 5, 0)
				p.open(p.pause)
			}
			p.publish()
		}
	case Passing:
	}
}

func (p *person) plan() {
	now := p.world.now
	plan := p.table.Plan(now, Prober{
		Dependency: "payments", Me: p.me, Probes: p.world.fleet.Probes, ProbeTime: 5 * time.Second,
		Pauses: storyPauses(), Own: p.until, State: p.probes,
	})
	if plan.State.Round != p.probes.Round && !plan.Alone {
		p.note("round %d is due in %v", plan.State.Round, time.Duration(plan.Due-now))
	}
	p.probes = plan.State
	switch {
	case plan.Recover:
		p.state(Ramping)
		p.note("others' probes succeed, recovering")
		p.publish()
	case p.own.State == Opened && p.claim == nil && now >= plan.Turn:
		p.state(HalfOpen)
		p.probing, p.result = now+int64(storyProbe), NoResult
		if plan.Alone {
			p.world.note([]*person{p}, "probes, alone")
		} else {
			p.world.note([]*person{p}, fmt.Sprintf("probes, round %d, rank %d of %d", plan.State.Round, plan.Rank, plan.Candidates))
		}
		p.publish()
	}
}

func (p *person) note(format string, args ...any) { p.news = fmt.Sprintf(format, args...) }

func (p *person) answer() {
	p.resultAt, p.round = p.world.now, p.probes.Round
	if p.world.down[p] {
		p.result = Bad
		p.open(p.pause)
		p.world.note([]*person{p}, fmt.Sprintf("its probe fails, its own next one would be in %v", p.pause))
	} else {
		p.result = Good
		p.state(Ramping)
		p.world.note([]*person{p}, "its probe succeeds, recovering")
	}
	p.publish()
}

// judge asks for the verdict and obeys.
func (p *person) judge() {
	w := p.world
	tally := p.table.Tally(w.now, "payments", p.me)
	c := Case{
		Now: w.now, Fleet: w.fleet, WithoutTraffic: w.idle, Own: p.own, Population: Population{len(w.people), w.zones},
		Doubt: p.doubt, Dependencies: w.deps, Armed: p.armed, Tally: &tally, Standing: p.standing,
	}
	v, standing := c.Verdict()
	p.standing = standing
	switch {
	case p.own.State == Passing && v.Hearsay:
		p.state(Holding)
	case p.own.State == Holding && v.Reason == OwnSuccesses:
		p.state(Passing)
	case p.own.State == Holding && !v.Arm && !v.ArmIdle:
		p.state(Ramping)
	}
	if o := p.own.Opinion(w.fleet); p.claim == nil && o != p.said {
		switch tally.Speak(o, false) {
		case Now, Politely:
			p.publish()
		case Later, Never:
			if p.said != None {
				p.publish()
			}
		}
	}
	if said := describe(v); said != p.verdict {
		if p.verdict != "" || v.Reason != NoEvidence {
			p.news = said
		}
		if v.Reason < OwnEvidence && v.Reason != NoEvidence || v.Open && v.Reason > OwnRamp {
			f := &v.Suspecting
			if v.Mode == w.idle.Mode && p.own.Calls == 0 && p.own.State != Holding {
				f = &v.Idle
			}
			p.news += fmt.Sprintf(" (%d of %d hosts, %d needed; %d of %d zones; weight %.1f to %.1f)",
				f.HostsOpen, f.Hosts, f.HostsNeeded, f.ZonesOpen, f.ZonesNeeded, f.WeightOpen, f.WeightWell)
		}
		p.verdict = said
	}
}

// describe says a verdict in words.
func describe(v Verdict) string {
	what := "closed"
	switch {
	case v.Hearsay:
		what = "holds back"
	case v.Open && v.Reason == OwnEvidence:
		what = "open"
	case v.Open:
		what = "is advised"
	}
	if scope := v.Suspecting.Scope; scope == ScopeZone && v.Open && v.Reason != OwnEvidence {
		return fmt.Sprintf("%s, %v in its zone", what, v.Reason)
	}
	return fmt.Sprintf("%s, %v", what, v.Reason)
}
