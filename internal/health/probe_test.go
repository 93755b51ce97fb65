package health

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// holders is a table in which so many hosts opened at time 0, in three zones.
func holders(n int) (*Table, func(i int) Origin) {
	table := NewTable(0)
	origin := func(i int) Origin {
		return Origin{ID: fmt.Sprint("i", i), Host: fmt.Sprint("h", i), Zone: fmt.Sprint("z", i%3)}
	}
	for i := range n {
		h := say(fmt.Sprint("i", i), 1, Report{Dependency: "d", Opinion: Open, Calls: 5, Failures: 5})
		h.from = origin(i)
		h.put(table, 0)
	}
	return table, origin
}

func prober(me Origin) Prober {
	return Prober{Dependency: "d", Me: me, Probes: 2, ProbeTime: 5 * time.Second, Pauses: storyPauses(), Own: 6 * second}
}

func resay(t *Table, now int64, from Origin, sequence uint64, p Report) {
	p.Dependency = "d"
	h := say(from.ID, sequence, p)
	h.from = from
	h.put(t, now)
}

// TestTurns: all who hold a breaker open and know of each other come to the same
// order, without asking: two probe when it is due, one of each zone first, then two
// more each half second. Of many, twelve do, and the rest wait for long.
func TestTurns(t *testing.T) {
	for _, n := range []int{2, 3, 10, 100} {
		table, origin := holders(n)
		at := map[int64]int{}
		out := 0
		ranks := make([]string, min(n, polite))
		for i := range n {
			plan := table.Plan(second, prober(origin(i)))
			if late := plan.Turn - plan.Due; plan.Rank == polite {
				out++
				if late < 15*second || late > 45*second || plan.Alone {
					t.Errorf("silent: %+v", plan)
				}
				continue
			}
			if plan.Due != 5*second || plan.Candidates != min(n, polite) || plan.Recover || plan.Alone || ranks[plan.Rank] != "" {
				t.Fatalf("%d: %+v", i, plan)
			}
			ranks[plan.Rank] = origin(i).Zone
			if late := plan.Turn - plan.Due; late != int64(plan.Rank/2)*second/2 {
				t.Errorf("rank %d after %v", plan.Rank, time.Duration(late))
			}
			at[plan.Turn]++
		}
		if out != max(n-polite, 0) {
			t.Errorf("%d of %d are silent", out, n)
		}
		if at[5*second] != 2 {
			t.Errorf("%d of %d probe at first", at[5*second], n)
		}
		if first := ranks[:min(n, 3)]; len(slices.Compact(slices.Sorted(slices.Values(first)))) != len(first) {
			t.Errorf("the first of %d are of %q", n, first)
		}
	}
}

// TestCandidatesAreThoseOfAll: whoever is looked at, the candidates are the first hosts
// of all that take part.
func TestCandidatesAreThoseOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := NewTable(0)
		n := rapid.IntRange(1, 60).Draw(t, "instances")
		origin := func(i int) Origin {
			return Origin{ID: fmt.Sprint("i", i), Host: fmt.Sprint("h", i%40), Zone: fmt.Sprint("z", i%3)}
		}
		for i := range n {
			resay(table, rapid.Int64Range(0, 10).Draw(t, "at")*second, origin(i), 1, Report{
				Opinion: rapid.SampledFrom([]Opinion{Open, Open, Probing, Recovering, Well, Hearsay}).Draw(t, "opinion"), Calls: 9, Failures: 5,
				Round: rapid.Uint32Range(0, 1).Draw(t, "round"), Probe: rapid.SampledFrom([]Result{NoResult, Good, Bad}).Draw(t, "probe"),
			})
		}
		now := rapid.Int64Range(10, 16).Draw(t, "now") * second
		p := prober(origin(rapid.IntRange(0, 99).Draw(t, "me")))
		want := candidates{list: []candidate{{id: p.Me.ID, host: p.Me.Host}}}
		for _, v := range table.Votes(now, "d", Origin{}) {
			c := candidate{id: v.ID, host: v.Host, report: v.Report}
			if v.ID != p.Me.ID && c.takesPart(0) {
				want.list = append(want.list, c)
			}
		}
		want.few(&p)
		got := table.candidates(now, &p)
		ids := func(c candidates) (all []string) {
			for i := range c.list {
				all = append(all, c.list[i].id)
			}
			slices.Sort(all)
			return all
		}
		if got.out != want.out || !slices.Equal(ids(got), ids(want)) {
			t.Fatalf("%v %v\nwant %v %v", got.out, ids(got), want.out, ids(want))
		}
	})
}

// TestOrderChanges: in another round others come first, and over many rounds everybody
// does, equally often.
func TestOrderChanges(t *testing.T) {
	table, origin := holders(9)
	first := map[string]int{}
	const rounds = 900
	for round := range uint32(rounds) {
		for i := range 9 {
			p := prober(origin(i))
			p.State.Round = round + 1
			if table.Plan(second, p).Rank == 0 {
				first[origin(i).ID]++
			}
		}
	}
	for i := range 9 {
		if n := first[origin(i).ID]; math.Abs(float64(n-rounds/9)) > 40 {
			t.Errorf("%s is first in %d of %d rounds", origin(i).ID, n, rounds)
		}
	}
}

// TestHostsTakeTurns: fifty instances of one host are no likelier to probe first than
// one of another.
func TestHostsTakeTurns(t *testing.T) {
	table, origin := holders(5)
	for i := range 50 {
		from := Origin{ID: fmt.Sprint("many", i), Host: "h0", Zone: "z0"}
		resay(table, 0, from, 1, Report{Opinion: Open})
	}
	for i := range 5 {
		if plan := table.Plan(second, prober(origin(i))); i > 0 && plan.Rank >= 5 {
			t.Errorf("%d is behind the second instance of a host: %+v", i, plan)
		}
	}
}

// TestResultsDecide: two hosts in turn, either way; one decides nothing, and neither do
// any number out of turn.
func TestResultsDecide(t *testing.T) {
	order := func(table *Table, origin func(int) Origin) []Origin {
		ranks := make([]Origin, 10)
		for i := range 10 {
			ranks[table.Plan(second, prober(origin(i))).Rank] = origin(i)
		}
		return ranks
	}
	for _, c := range []struct {
		name    string
		results map[int]Result // by rank
		round   uint32
		recover bool
	}{
		{"none", nil, 0, false},
		{"one good", map[int]Result{0: Good}, 0, false},
		{"two good", map[int]Result{0: Good, 1: Good}, 0, true},
		{"one bad", map[int]Result{1: Bad}, 0, false},
		{"two bad", map[int]Result{0: Bad, 1: Bad}, 1, false},
		{"one of each", map[int]Result{0: Good, 1: Bad}, 0, false},
		{"out of turn", map[int]Result{4: Bad, 5: Bad, 6: Bad, 7: Good, 8: Good, 9: Good}, 0, false},
		{"one in turn", map[int]Result{1: Good, 7: Good, 8: Good, 9: Good}, 0, false},
	} {
		table, origin := holders(10)
		ranks := order(table, origin)
		for rank, result := range c.results {
			opinion := Open
			if result == Good {
				opinion = Recovering
			}
			resay(table, 5*second, ranks[rank], 2, Report{Opinion: opinion, Probe: result})
		}
		me := prober(ranks[3])
		plan := table.Plan(5*second+second/5, me)
		if plan.State.Round != c.round || plan.Recover != c.recover {
			t.Errorf("%s: %+v", c.name, plan)
		}
		if c.round == 1 && plan.Due != 5*second+second/5+10*second {
			t.Errorf("%s: due %v", c.name, time.Duration(plan.Due))
		}
	}
}

// TestResultsOfOtherRoundsDoNotCount: nor do those of who doubts itself.
func TestResultsOfOtherRoundsDoNotCount(t *testing.T) {
	table, origin := holders(4)
	for i := range 3 {
		resay(table, 20*second, origin(i), 2, Report{Opinion: Open, Round: 1, Probe: Good})
	}
	p := prober(origin(3))
	p.State.Round = 2
	if plan := table.Plan(20*second, p); plan.Recover || plan.Good != 0 {
		t.Errorf("%+v", plan)
	}
	for i := range 3 {
		h := say(origin(i).ID, 3, Report{Dependency: "d", Opinion: Open, Round: 2, Probe: Good})
		h.from, h.record.Doubt = origin(i), DoubtSlow
		h.put(table, 20*second)
	}
	if plan := table.Plan(60*second, p); plan.Recover || plan.Candidates != 1 || !plan.Alone {
		t.Errorf("%+v", plan)
	}
}

// TestProbersUnderWayAreWaitedFor, for as long as a probe may take and no longer.
func TestProbersUnderWayAreWaitedFor(t *testing.T) {
	table, origin := holders(10)
	var me Origin
	for i := range 10 {
		switch plan := table.Plan(second, prober(origin(i))); plan.Rank {
		case 0, 1:
			resay(table, 5*second, origin(i), 2, Report{Opinion: Probing})
		case 2:
			me = origin(i)
		}
	}
	p := prober(me)
	p.State = table.Plan(5*second, p).State
	if plan := table.Plan(6*second, p); plan.Turn != 10*second {
		t.Errorf("turn at %v", time.Duration(plan.Turn))
	}
	if plan := table.Plan(11*second, p); plan.Turn > 11*second {
		t.Errorf("turn at %v", time.Duration(plan.Turn))
	}
}

// TestNobodyWaitsForEver: everybody says to be probing, one at a time.
func TestNobodyWaitsForEver(t *testing.T) {
	table, origin := holders(polite)
	for i := 1; i < polite; i++ {
		resay(table, second, origin(i), 2, Report{Opinion: Probing, Since: time.Second})
	}
	for round := range uint32(20) {
		p := prober(origin(0))
		p.Probes, p.ProbeTime, p.State.Round = 1, time.Minute, round
		if plan := table.Plan(second, p); plan.Turn > plan.Due+45*second {
			t.Errorf("rank %d waits for %v", plan.Rank, time.Duration(plan.Turn-plan.Due))
		}
	}
}

// TestNewcomerInTheFirstRound: who has probed has opened anew, and that does not
// change when the round was due.
func TestNewcomerInTheFirstRound(t *testing.T) {
	table, origin := holders(3)
	for i := range 2 {
		resay(table, 6*second, origin(i), 2, Report{Opinion: Open, Probe: Bad})
	}
	resay(table, 6*second, origin(2), 2, Report{Opinion: Open, Since: 6 * time.Second})
	if plan := table.Plan(7*second, prober(origin(2))); plan.State.Round != 1 {
		t.Errorf("%+v", plan)
	}
}

// TestWhoIsAloneHasItsOwnTime: without peers everything is the breaker's own.
func TestWhoIsAloneHasItsOwnTime(t *testing.T) {
	me := Origin{ID: "me", Host: "me"}
	for _, own := range []int64{0, second, 100 * second} {
		table := NewTable(0)
		p := prober(me)
		p.Own = own
		for sequence, result := range []Result{NoResult, Bad, Good} {
			resay(table, 0, me, uint64(sequence), Report{Opinion: Open, Round: p.State.Round, Probe: result}) //nolint:gosec // small
			plan := table.Plan(9*second, p)
			if plan.Turn != own || plan.Recover || !plan.Alone {
				t.Errorf("own %v, %v: %+v", time.Duration(own), result, plan)
			}
			p.State = plan.State
		}
	}
}

// TestSickMinorityTriesAgainSoon: where most find the dependency well, pauses do not
// grow, and what is overdue is due now, not in the past: turns are kept.
func TestSickMinorityTriesAgainSoon(t *testing.T) {
	table, origin := holders(6)
	p := prober(origin(0))
	p.State = p.State.Reopened().Reopened().Reopened()
	p.Own = 100 * second
	plan := table.Plan(0, p)
	if plan.Due != 20*second { // a third of Max: two of six
		t.Fatalf("due %v", time.Duration(plan.Due))
	}
	p.State = plan.State
	for i := range 20 {
		resay(table, 8*second, Origin{ID: fmt.Sprint("well", i), Host: fmt.Sprint("well", i)}, 1, Report{Opinion: Well, Calls: 100, Successes: 9})
	}
	if plan = table.Plan(8*second, p); plan.Due != 8*second {
		t.Errorf("due %v", time.Duration(plan.Due))
	}
	p.State = plan.State
	if again := table.Plan(9*second, p); again.Due != plan.Due {
		t.Errorf("then %v", time.Duration(again.Due))
	}
}

// TestNobodyIsKeptFromProbing: whatever is said by anybody, and however often, a turn
// comes within the breaker's own time and four of its longest pauses; and never is one
// alone who is not, or the other way round.
func TestNobodyIsKeptFromProbing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, now := NewTable(0), 1000*second
		p := prober(drawOrigin(t))
		p.Dependency = "dep-0"
		p.Probes = rapid.IntRange(1, 3).Draw(t, "probes")
		p.Own = now + rapid.Int64Range(-400, 100).Draw(t, "own")*second
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			now += rapid.Int64Range(0, 5).Draw(t, "pause") * second
			drawHeard(t).put(table, now)
			plan := table.Plan(now, p)
			if most := p.Own + 4*int64(p.Pauses.Max); plan.Turn > most {
				t.Fatalf("turn %v, at most %v", time.Duration(plan.Turn), time.Duration(most))
			}
			if plan.Alone && (plan.Turn != p.Own || plan.Candidates != 1) || plan.Recover && (plan.Good < 2 || plan.Candidates < 2) {
				t.Fatalf("%+v", plan)
			}
			if plan.State.Round < p.State.Round || plan.Rank >= plan.Candidates {
				t.Fatalf("%+v after %+v", plan, p.State)
			}
			p.State = plan.State
		}
	})
}

// TestMinorityCannotMoveRounds: fewer than half of the hosts claim to be in the last
// round there is.
func TestMinorityCannotMoveRounds(t *testing.T) {
	table, origin := holders(10)
	for i := 6; i < 10; i++ {
		resay(table, 0, origin(i), 2, Report{Opinion: Open, Round: math.MaxUint32, Since: time.Hour})
	}
	plan := table.Plan(second, prober(origin(0)))
	if plan.State.Round != 0 || plan.Due != 5*second {
		t.Errorf("%+v", plan)
	}
	p := prober(origin(1))
	p.State.Round = math.MaxUint32
	if s := p.State.Reopened(); s.Round != math.MaxUint32 {
		t.Errorf("round %d", s.Round)
	}
}
