package measure_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/history"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/measure"
)

const (
	ms     = int64(1e6)
	second = int64(1e9)
)

// beats are acknowledged writes by way of s1 and s2 in turn, every 100 ms from one time
// up to another, each answered after 10 ms.
func beats(from, to int64, servers ...string) []history.Op {
	var ops []history.Op
	for i, t := 0, from; t < to; i, t = i+1, t+100*ms {
		ops = append(ops, history.Op{
			Client: "beat", Server: servers[i%len(servers)], F: history.Put, Probe: true, Call: t, Return: t + 10*ms, Outcome: history.OK,
		})
	}
	return ops
}

func fault(id int, name string, begin, end int64, targets ...string) []history.Fault {
	return []history.Fault{
		{ID: id, Name: name, Targets: targets, Event: history.FaultBegin, T: begin},
		{ID: id, Name: name, Targets: targets, Event: history.FaultBit, T: begin},
		{ID: id, Name: name, Targets: targets, Event: history.FaultEnd, T: end},
	}
}

func failovers() *history.History {
	h := &history.History{
		Run:   history.Run{Scenario: "failover", Seed: 3, Began: second, Servers: []string{"s1", "s2", "s3"}},
		Leads: []history.Lead{{Server: "s1", T: second, Term: 1, Leads: true}, {Server: "s2", T: 11 * second, Term: 2, Leads: true}, {Server: "s1", T: 12 * second}},
		Faults: slices.Concat(
			fault(1, "failover-kill", 10*second, 14*second, "s1"),
			fault(2, "failover-kill", 24*second, 28*second, "s2"),
			fault(3, "failover-pause", 50*second, 54*second, "s3"),
		),
	}
	// s2 and s3 take writes again at 12 s and 13 s, and no longer a moment before the second
	// fault.
	h.Ops = slices.Concat(
		beats(2*second, 10*second, "s2", "s3"), beats(12*second, 13*second, "s2"), beats(13*second, 24*second, "s2", "s3"),
		beats(27*second, 60*second, "s1", "s3"),
		// They were begun early and answered late, which is no time without an answer.
		[]history.Op{
			{Server: "s2", F: history.Put, Probe: true, Call: 5 * second, Return: 9950 * ms, Outcome: history.OK},
			{Server: "s2", F: history.Put, Probe: true, Call: 12 * second, Return: 16 * second, Outcome: history.OK},
		},
		// None of these counts: a closed-loop client, a read, a write that was not acknowledged.
		[]history.Op{
			{Server: "s2", F: history.Put, Call: 10 * second, Return: 11 * second, Outcome: history.OK},
			{Server: "s2", F: history.Get, Probe: true, Call: 10 * second, Return: 11 * second, Outcome: history.OK},
			{Server: "s2", F: history.Put, Probe: true, Call: 10 * second, Return: 11 * second, Outcome: history.Unknown},
		},
	)
	h.Sort()
	return h
}

// The time that writers waited runs from the begin of the last write that was acknowledged
// to the next acknowledgement; one fault does not answer for the next.
func TestOutages(t *testing.T) {
	got := measure.Of(failovers()).Outages
	want := []measure.Outage{
		// From 9.9 s to 12.01 s; by s2 alone from 9.8 s, by s3 alone from 9.9 s to 13.11 s.
		{Run: "failover-3", Fault: "failover-kill", Target: "s1", At: 9 * second, Led: true, Gap: 2110 * ms, Stayed: []int64{2210 * ms, 3210 * ms}},
		// From 23.9 s to 27.01 s; by s1 nothing had been acknowledged since ever, by s3 from
		// 23.9 s to 27.11 s.
		{Run: "failover-3", Fault: "failover-kill", Target: "s2", At: 23 * second, Led: true, Gap: 3110 * ms, Stayed: []int64{3010 * ms, 3210 * ms}},
		// By s2 nothing is acknowledged any more; the last write of all is begun at 59.9 s.
		{Run: "failover-3", Fault: "failover-pause", Target: "s3", At: 49 * second, Gap: 110 * ms, Stayed: []int64{210 * ms, 36100 * ms}, Open: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("measured\n%+v, want\n%+v", got, want)
	}
	h := failovers()
	for i := range h.Ops {
		h.Ops[i].Probe = false
	}
	if got := measure.Of(h).Outages; got != nil {
		t.Errorf("nobody probed, and yet %+v", got)
	}
}

// What was no trial, or longer than could be seen, is told beside the table and not
// counted as if it were.
func TestOutagesForAReader(t *testing.T) {
	figures := measure.Of(failovers())
	table := figures.Tables()[0]
	want := [][]string{
		{"kill", "who go on to another server at once", "2", "2.11 s", "2.11 s", "3.11 s", "3.11 s"},
		{"kill", "who stay with a server that did not fail", "4", "2.21 s", "3.01 s", "3.21 s", "3.21 s"},
	}
	if !reflect.DeepEqual(table.Rows, want) {
		t.Errorf("rows %q, want %q", table.Rows, want)
	}
	notes := strings.Join(table.Notes, "\n")
	for _, want := range []string{"Not a trial: failover-pause at 49.00 s of failover-3", "The longest: 3.11 s, failover-kill at 23.00 s"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, notes)
		}
	}
}

func partitions() *history.History {
	decision := func(id string, from, to int64, revision uint64, server string) history.Decision {
		return history.Decision{Instance: id, T: from, Until: to, N: 100, Revision: revision, Epoch: 1, Connected: server != "", Server: server, Slowest: 900, Took: map[int64]int{100: 90, 1000: 10}}
	}
	applied := func(server string, t int64, revision uint64) history.Applied {
		return history.Applied{Server: server, T: t, Index: revision, Revision: revision, Epoch: 1}
	}
	h := &history.History{
		Run: history.Run{
			Scenario: "partitions", Seed: 1, Began: second, Healed: 60 * second, Servers: []string{"s1", "s2"}, Instances: []string{"i1", "i2"},
		},
		Faults: slices.Concat(fault(1, "partition-sdk-some", 10*second, 20*second, "i1"), fault(2, "partition-minority", 40*second, 50*second, "s2")),
		Ops: []history.Op{
			{F: history.Put, Call: 18 * second, Return: 19 * second, Outcome: history.OK, Revision: 7, Epoch: 1},
			{F: history.Put, Call: 18 * second, Return: 21 * second, Outcome: history.OK, Revision: 9, Epoch: 1}, // after the heal
			{F: history.Put, Call: 19 * second, Return: 19 * second, Outcome: history.Failed, Revision: 99, Epoch: 1},
			{F: history.Put, Call: 48 * second, Return: 49 * second, Outcome: history.OK, Revision: 20, Epoch: 1},
		},
		Applied: []history.Applied{
			applied("s1", 18*second, 7), applied("s2", 20*second+300*ms, 8), applied("s1", 48*second, 20), applied("s2", 52*second, 20),
		},
		Decisions: []history.Decision{
			decision("i1", 5*second, 11*second, 3, "s1"),
			decision("i1", 12*second, 19*second, 3, ""),
			decision("i1", 20*second, 21*second, 7, ""), // it has the state, from a peer, and no server
			decision("i1", 22*second, 23*second, 7, "s1"),
			decision("i2", 5*second, 19*second, 3, "s1"),
			decision("i2", 19*second, 25*second, 7, "s1"),
			decision("i1", 41*second, 55*second, 20, "s1"),
			decision("i2", 41*second, 59*second, 19, "s2"), // never comes to 20
		},
	}
	h.Sort()
	return h
}

// Everybody agrees when the last server has applied, and the last instance obeys and is
// connected; who never does is not left out.
func TestAgreements(t *testing.T) {
	got := measure.Of(partitions()).Agreements
	want := []measure.Agreement{
		{
			Run: "partitions-1", Fault: "partition-sdk-some", At: 19 * second, Cut: 10 * second,
			All: 2 * second, Servers: 300 * ms, Instances: []int64{2 * second},
		},
		{
			Run: "partitions-1", Fault: "partition-minority", At: 49 * second, Cut: 10 * second,
			All: 10 * second, Servers: 2 * second, Instances: []int64{10 * second}, Open: true, Late: []string{"i2"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("measured\n%+v, want\n%+v", got, want)
	}
}

// Decisions count for the state that the instance was in all along.
func TestDecided(t *testing.T) {
	h := partitions()
	h.Decisions = append(h.Decisions, history.Decision{Instance: "i1", T: 13 * second, Until: 14 * second, N: 10, Err: "no answer", Slowest: 5000})
	// The last of the records that lies in one piece of time is not told from its end on.
	h.Decisions = append(h.Decisions, history.Decision{Instance: "i1", T: 2 * second, Until: 3 * second, N: 50, Connected: true, Took: map[int64]int{100: 50}, Slowest: 80})
	h.Sort()
	figures := measure.Of(h)
	want := measure.Decided{
		Apart: measure.Decisions{Instances: 1, Asked: 110, Answered: 100, Took: map[int64]int{100: 90, 1000: 10}, Slowest: 5000, Pause: second},
		Connected: measure.Decisions{
			Instances: 1, Asked: 150, Answered: 150, Took: map[int64]int{100: 140, 1000: 10}, Slowest: 900, Pause: 17 * second,
		},
	}
	if !reflect.DeepEqual(figures.Decided, want) {
		t.Errorf("measured\n%+v, want\n%+v", figures.Decided, want)
	}
	tables := figures.Tables()
	table := tables[slices.IndexFunc(tables, func(t measure.Table) bool { return strings.HasPrefix(t.Title, "How instances") })]
	if row := strings.Join(table.Rows[0], " "); row != "cut off 1 110 100 90.91 % 100 ns 1 µs 5 µs 1.00 s" {
		t.Errorf("for a reader: %s", row)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		samples []int
		want    measure.Spread[int]
	}{
		{nil, measure.Spread[int]{}},
		{[]int{4}, measure.Spread[int]{1, 4, 4, 4, 4}},
		{[]int{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, measure.Spread[int]{10, 1, 5, 9, 10}},
		{[]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, measure.Spread[int]{11, 1, 6, 10, 11}},
	} {
		if got := measure.SpreadOf(test.samples); got != test.want {
			t.Errorf("%v: %+v, want %+v", test.samples, got, test.want)
		}
	}
}
