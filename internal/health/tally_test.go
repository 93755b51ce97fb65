package health

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// naiveCount counts votes the long way: host by host, in exact arithmetic.
func naiveCount(votes []Vote, only func(Vote) bool) (Count, map[string]bool) {
	var c Count
	zones := map[string]bool{}
	hosts := map[string][]Vote{}
	for _, v := range votes {
		if v.Ignored == "" && only(v) {
			hosts[v.Host] = append(hosts[v.Host], v)
		}
	}
	for _, of := range hosts {
		var open, well, heaviest float64
		hard := false
		for _, v := range of {
			w := min(max(math.Round(16*math.Log2(1+float64(v.Calls))), 16), 128)
			heaviest = max(heaviest, w)
			if v.Opinion == Well {
				well += w
			} else {
				open += w
				hard = hard || v.Opinion == Open || v.Opinion == Probing
			}
		}
		part := math.Floor(heaviest * open / (open + well))
		c.WeightOpen += part / 16
		c.WeightWell += (heaviest - part) / 16
		if open > well {
			c.Open++
			if hard {
				c.Hard++
			}
		} else {
			c.Well++
		}
		for _, v := range of {
			zones[v.Zone] = zones[v.Zone] || v.Opinion != Well && open > well
		}
	}
	for _, open := range zones {
		if open {
			c.ZonesOpen++
		}
	}
	return c, zones
}

// TestTallyIsItsNaiveTwin also holds Votes to counting just those that it does not
// call ignored.
func TestTallyIsItsNaiveTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := NewTable(0)
		for range rapid.IntRange(1, 4).Draw(t, "times") {
			for _, h := range rapid.SliceOfN(rapid.Custom(drawHeard), 0, 25).Draw(t, "heard") {
				h.put(table, 0)
			}
			checkTally(t, table)
		}
	})
}

func checkTally(t *rapid.T, table *Table) {
	now := rapid.Int64Range(0, 20).Draw(t, "seconds") * second
	me := drawOrigin(t)
	if rapid.IntRange(0, 4).Draw(t, "server") == 0 {
		me = Origin{}
	}
	for i := range 4 {
		name := fmt.Sprintf("dep-%d", i)
		votes := table.Votes(now, name, me)
		got := table.Tally(now, name, me)
		want, zones := naiveCount(votes, func(Vote) bool { return true })
		zone, _ := naiveCount(votes, func(v Vote) bool { return v.Zone == me.Zone })
		if me.Host != "" {
			zones[me.Zone] = true
		}
		got.Fleet.open, got.Fleet.well, got.Zone.open, got.Zone.well = 0, 0, 0, 0
		zone.ZonesOpen = min(zone.Open, 1)
		if got.Fleet != want || got.Zone != zone || got.Zones != len(zones) {
			t.Fatalf("%s: %+v\nwant %+v %+v, %d zones, of\n%+v", name, got, want, zone, len(zones), votes)
		}
		for _, v := range votes {
			if v.Age >= TTL || v.Age < 0 || v.Doubt != 0 && v.Ignored == "" || me.Host != "" && v.Host == me.Host && v.Ignored == "" {
				t.Fatalf("%+v", v)
			}
		}
	}
}

// TestWhatIsAVote: what is said, for whom it counts.
func TestWhatIsAVote(t *testing.T) {
	for _, c := range []struct {
		p    Report
		side int
	}{
		{Report{Opinion: Open}, 1},
		{Report{Opinion: Probing}, 1},
		{Report{Opinion: Suspects, Calls: 2, Failures: 1}, 1},
		{Report{Opinion: Suspects, Calls: 3, Failures: 1}, 0},
		{Report{Opinion: Suspects}, 0},
		{Report{Opinion: Hearsay, Calls: 4, Failures: 2}, 1},
		{Report{Opinion: Hearsay, Calls: 1, Failures: 1}, 0},
		{Report{Opinion: Hearsay, Calls: 5, Failures: 2}, 0},
		{Report{Opinion: Hearsay}, 0},
		{Report{Opinion: Recovering, Calls: 9, Successes: 9}, 0},
		{Report{Opinion: Well, Calls: 9, Successes: 1}, -1},
		{Report{Opinion: Well, Calls: 9}, 0},
	} {
		if got := c.p.side(); got != c.side {
			t.Errorf("%+v: %d, want %d", c.p, got, c.side)
		}
	}
	// A host that is of two minds is not open.
	table := NewTable(0)
	for i, o := range []Opinion{Open, Well} {
		h := say(fmt.Sprint(i), 1, Report{Dependency: "d", Opinion: o, Calls: 9, Successes: 1})
		h.from.Host = "h"
		h.put(table, 0)
	}
	if got := table.Tally(0, "d", Origin{}); got.Fleet.Open != 0 || got.Fleet.Well != 1 || got.Fleet.Hard != 0 {
		t.Errorf("%+v", got.Fleet)
	}
}

// TestWeightOfALie holds the figures in the comment of weight.
func TestWeightOfALie(t *testing.T) {
	for calls, want := range map[uint32]float64{0: 1, 1: 1, 3: 2, 255: 8, 256: 8, math.MaxUint32: 8} {
		if got := float64(weight(calls)) / unit; got != want {
			t.Errorf("%d calls weigh %v, want %v", calls, got, want)
		}
	}
	for calls, want := range map[uint32]float64{100: 1.2, 10: 2.3} {
		if got := float64(maxWeight) / float64(weight(calls)); math.Abs(got-want) > 0.05 {
			t.Errorf("a lie is worth %.2f witnesses with %d calls, want %v", got, calls, want)
		}
	}
}

// TestOneVoteAHost: however many instances a process forges on its host, and however
// many calls they claim, the host has one vote of bounded weight, and an honest
// neighbour takes some of it away.
func TestOneVoteAHost(t *testing.T) {
	table := NewTable(0)
	for i := range 50 {
		h := say(fmt.Sprint(i), 1, Report{Dependency: "d", Opinion: Open, Calls: 1 << 30, Failures: 1 << 30})
		h.from.Host = "liar"
		h.put(table, 0)
	}
	got := table.Tally(0, "d", Origin{ID: "me", Host: "me"})
	if got.Fleet.Open != 1 || got.Fleet.WeightOpen != 8 || got.Fleet.ZonesOpen != 1 {
		t.Errorf("%+v", got.Fleet)
	}
	h := say("honest", 1, Report{Dependency: "d", Opinion: Well, Calls: 300, Successes: 9})
	h.from.Host = "liar"
	h.put(table, 0)
	if after := table.Tally(0, "d", Origin{ID: "me", Host: "me"}); after.Fleet.WeightOpen >= 8 || after.Fleet.WeightWell == 0 {
		t.Errorf("%+v", after.Fleet)
	}
	if mine := table.Tally(0, "d", Origin{ID: "me", Host: "liar"}); mine.Fleet.Open != 0 {
		t.Errorf("its own host counts: %+v", mine.Fleet)
	}
}

// TestSpeak: four hundred witnesses are asked at once, and about as many speak as are
// needed, the same ones whoever is asked first; where many find a dependency broken, as
// many more. And the other way round.
func TestSpeak(t *testing.T) {
	truth := map[Opinion]Report{
		Well: {Dependency: "d", Opinion: Well, Calls: 100, Successes: 10}, Open: {Dependency: "d", Opinion: Open, Calls: 100, Failures: 50},
	}
	for _, c := range []struct {
		say, lie          Opinion
		liars, ever, last int
	}{
		{Well, Open, 0, 0, 0},
		{Well, Open, 1, 90, 24},
		{Well, Open, 3, 90, 33},
		{Well, Open, 20, 218, 218},
		{Open, Well, 0, 90, 24},
		{Open, Well, 3, 90, 33},
		{Open, Well, 20, 218, 218},
	} {
		table := NewTable(0)
		for i := range c.liars {
			say(fmt.Sprint("liar", i), 1, Report{Dependency: "d", Opinion: c.lie, Calls: 1 << 20, Failures: 1 << 20, Successes: 1 << 20}).put(table, 0)
		}
		ever, speaks := 0, map[string]bool{}
		for sequence := range uint64(2) {
			for i := range 400 {
				id := fmt.Sprint(i)
				h := say(id, sequence+1, truth[c.say])
				tally := table.Tally(0, "d", h.from)
				switch u := tally.Speak(c.say, speaks[id]); {
				case u != Never && !speaks[id]:
					speaks[id] = true
					ever++
					h.put(table, 0)
				case u == Never && speaks[id]:
					delete(speaks, id)
					say(id, sequence+1).put(table, 0)
				}
			}
		}
		tally := table.Tally(0, "d", Origin{})
		share := tally.Fleet.Share()
		if c.say == Open {
			share = 1 - share
		}
		if ever > c.ever || len(speaks) > c.last || c.ever > 0 && (len(speaks) < polite || share > 0.15) {
			t.Errorf("%d liars say %v: %d of 400 ever spoke, %d do, share %.2f", c.liars, c.lie, ever, len(speaks), share)
		}
	}
}

// TestNobodyIsSilencedByThoseWhoSpeakFirst: fifty say what a thousand think, before
// these do. As many of the thousand speak as come before the twelfth of the fifty.
func TestNobodyIsSilencedByThoseWhoSpeakFirst(t *testing.T) {
	for _, o := range []Opinion{Open, Well} {
		table := NewTable(0)
		for i := range 50 {
			say(fmt.Sprint("first", i), 1, Report{Dependency: "d", Opinion: o, Calls: 1 << 20, Successes: 9}).put(table, 0)
		}
		if o == Well {
			say("bad", 1, Report{Dependency: "d", Opinion: Open}).put(table, 0)
		}
		speak := 0
		for i := range 1000 {
			tally := table.Tally(0, "d", Origin{ID: fmt.Sprint(i), Host: fmt.Sprint("host of ", i)})
			if tally.Speak(o, false) != Never {
				speak++
			}
		}
		if speak < 100 || speak > 400 {
			t.Errorf("%d of 1000 say %v beside the first fifty", speak, o)
		}
	}
}

func TestSpeakOfTheBroken(t *testing.T) {
	table := NewTable(0)
	me := Origin{ID: "me", Host: "me"}
	urgency := func(o Opinion, said bool) Urgency {
		tally := table.Tally(0, "d", me)
		return tally.Speak(o, said)
	}
	expect := func(when string, want map[Opinion]Urgency) {
		t.Helper()
		for o, u := range want {
			if got := urgency(o, false); got != u {
				t.Errorf("%s: %v is said %d, want %d", when, o, got, u)
			}
		}
	}
	expect("alone", map[Opinion]Urgency{Open: Now, Probing: Now, Suspects: Never, Well: Never, Hearsay: Later, Recovering: Never, None: Never})
	say("x", 1, Report{Dependency: "d", Opinion: Suspects, Calls: 2, Failures: 2}).put(table, 0)
	expect("a suspicion", map[Opinion]Urgency{Suspects: Never, Well: Never})
	say("0", 1, Report{Dependency: "d", Opinion: Open}).put(table, 0)
	expect("the second", map[Opinion]Urgency{Open: Politely, Suspects: Politely, Well: Politely, Hearsay: Later})
	for i := range 200 {
		say(fmt.Sprint(i), 2, Report{Dependency: "d", Opinion: Open}).put(table, 0)
	}
	expect("enough", map[Opinion]Urgency{Open: Never, Suspects: Never, Well: Politely, Hearsay: Never, Recovering: Never})
	if got := urgency(Recovering, true); got != Later {
		t.Errorf("a result: %d", got)
	}
	h := say("a neighbour", 1, Report{Dependency: "d", Opinion: Well, Successes: 3})
	h.from.Host = "me"
	h.put(table, 0)
	expect("a neighbour says it", map[Opinion]Urgency{Well: Never})
}

// TestVotesExplain: ages are as of now, and who does not count is told why.
func TestVotesExplain(t *testing.T) {
	table := NewTable(0)
	put := func(id string, doubt Doubt, p Report) {
		p.Dependency = "d"
		h := say(id, 1, p)
		h.record.Doubt, h.from.Service, h.age = doubt, "s", time.Second
		h.put(table, 0)
	}
	put("counts", 0, Report{Opinion: Open, Since: time.Second, Probe: Bad, ProbeAgo: 2 * time.Second})
	put("doubts", DoubtAll|DoubtSlow, Report{Opinion: Open})
	put("heard", 0, Report{Opinion: Hearsay})
	put("me", 0, Report{Opinion: Open})
	put("recovers", 0, Report{Opinion: Recovering})
	put("suspects", 0, Report{Opinion: Suspects, Calls: 10, Failures: 2})
	put("well", 0, Report{Opinion: Well})
	var got []string
	for _, v := range table.Votes(second, "d", Origin{ID: "me", Host: "host of me"}) {
		got = append(got, fmt.Sprintf("%s %v %v: %s", v.ID, v.Since, v.ProbeAgo, v.Ignored))
	}
	want := []string{
		"counts 3s 4s: ", "doubts 2s 0s: doubts itself: is slow, finds most things broken", "heard 2s 0s: only heard it from others",
		"me 2s 0s: same host", "recovers 2s 0s: recovering, no opinion yet",
		"suspects 2s 0s: fewer than half of its calls failed", "well 2s 0s: no successes lately",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
