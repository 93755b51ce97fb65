package health

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// content is what a table holds, without ages.
func content(t *Table) map[string]string {
	m := map[string]string{}
	for h := range t.All() {
		m[h.ID] = fmt.Sprintf("%v %x", h.Origin, h.Raw)
	}
	return m
}

// TestMergeLaws: whatever the order in which records are heard, how often, and by
// which way round over other tables, the tables that have heard all of them hold the
// same. So merging is commutative, associative and idempotent.
func TestMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(drawHeard), 1, 20).Draw(t, "heard")
		for i := range all {
			all[i].age %= 10 * time.Second // nothing expires
		}
		straight := NewTable(0)
		for _, h := range all {
			h.put(straight, 0)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		random := rand.New(rand.NewPCG(seed, seed))
		shuffled := slices.Concat(all, all)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })

		// Each is heard by one of three, who then tell each other all they have.
		tables := []*Table{NewTable(0), NewTable(0), NewTable(0)}
		for _, h := range shuffled {
			h.put(tables[random.IntN(3)], 0)
		}
		for range 2 {
			for _, i := range random.Perm(3) {
				for h := range tables[i].All() {
					tables[(i+1)%3].Put(0, h.Origin, h.Record, h.Raw, h.Age(0))
				}
			}
		}
		for h := range tables[0].All() {
			tables[2].Put(0, h.Origin, h.Record, h.Raw, h.Age(0))
		}
		want := content(straight)
		if got := content(tables[2]); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%v", got, want)
		}
		for h := range straight.All() {
			if o := straight.Put(0, h.Origin, h.Record, h.Raw, 0); o != Same {
				t.Fatalf("again: %v", o)
			}
			if a, b := straight.Digest(h.ID), tables[2].Digest(h.ID); a != b || a == 0 {
				t.Fatalf("digests %x and %x", a, b)
			}
		}
	})
}

// naiveTable remembers everything it was told and looks through all of it.
type naiveTable struct {
	log []naiveEntry
}

type naiveEntry struct {
	heard
	born int64
}

func (e naiveEntry) compare(o naiveEntry) int {
	return cmp.Or(
		cmp.Compare(e.record.Incarnation, o.record.Incarnation),
		cmp.Compare(e.record.Sequence, o.record.Sequence), bytes.Compare(e.raw, o.raw),
	)
}

func (n *naiveTable) put(now int64, h heard) Outcome {
	if h.age >= TTL {
		return Expired
	}
	e := naiveEntry{h, now - int64(h.age)}
	if best, ok := n.best(h.from.ID); ok && now < best.born+int64(TTL+memory) {
		alive := now < best.born+int64(TTL)
		switch c := e.compare(best); {
		case alive && c == 0:
			return Same
		case c <= 0:
			return Stale
		case !alive && e.record.Incarnation == best.record.Incarnation && e.record.Sequence == best.record.Sequence:
			return Stale
		}
	}
	n.log = append(n.log, e)
	return New
}

// best is the one that was accepted last, which is the newest.
func (n *naiveTable) best(id string) (naiveEntry, bool) {
	for _, e := range slices.Backward(n.log) {
		if e.from.ID == id {
			return e, true
		}
	}
	return naiveEntry{}, false
}

func (n *naiveTable) alive(now int64) map[string]naiveEntry {
	m := map[string]naiveEntry{}
	for _, e := range n.log {
		best, _ := n.best(e.from.ID)
		if now < best.born+int64(TTL) {
			m[e.from.ID] = best
		}
	}
	return m
}

// TestTableIsItsNaiveTwin: with time passing, records of every age, duplicates and
// restarts, the table says and holds what a log that forgets nothing says.
func TestTableIsItsNaiveTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, naive, now := NewTable(0), &naiveTable{}, int64(0)
		var told []heard
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, 0, second / 10, second, 6 * second, int64(TTL), int64(memory)}).Draw(t, "pause")
			h := drawHeard(t)
			if len(told) > 0 && rapid.IntRange(0, 3).Draw(t, "replay") == 0 {
				h = rapid.SampledFrom(told).Draw(t, "of")
				h.age = time.Duration(rapid.Int64Range(0, 170).Draw(t, "said age")) * tick
			}
			told = append(told, h)
			table.Expire(now)
			known := table.Known(h.from.ID, h.record.Incarnation, h.record.Sequence, h.raw)
			got, want := h.put(table, now), naive.put(now, h)
			if got != want {
				t.Fatalf("at %v %+v: %v, want %v", time.Duration(now), h, got, want)
			}
			if got != Expired && known != (got == Same || got == Stale) {
				t.Fatalf("known %v, then %v", known, got)
			}
			alive := naive.alive(now)
			if table.Len() != len(alive) {
				t.Fatalf("%d held, want %d", table.Len(), len(alive))
			}
			for id, e := range alive {
				h, ok := table.Get(id)
				if !ok || !bytes.Equal(h.Raw, e.raw) || h.Born != e.born || h.Origin != e.from {
					t.Fatalf("%s: %+v, want %+v", id, h, e)
				}
			}
			checkIndexes(t, table)
		}
	})
}

// checkIndexes compares what a table looks up with what it holds.
func checkIndexes(t *rapid.T, table *Table) {
	perHost, votes := map[string]int{}, map[string]int{}
	for h := range table.All() {
		perHost[h.Host]++
		for _, p := range h.Record.Reports {
			if !h.Record.Leaving {
				votes[p.Dependency+" "+h.Host]++
			}
		}
	}
	indexed := map[string]int{}
	for name, s := range table.subjects {
		if len(s.order) != len(s.booths) || !slices.IsSortedFunc(s.order, (*booth).compare) {
			t.Fatalf("%s: %d hosts, %d in order", name, len(s.booths), len(s.order))
		}
		said := 0
		for _, b := range s.booths {
			said += len(b.votes)
		}
		if s.votes != said {
			t.Fatalf("%s: %d votes, %d said", name, s.votes, said)
		}
		for host, of := range s.booths {
			indexed[name+" "+host] = len(of.votes)
			for _, v := range of.votes {
				if table.held[v.ID] != v.Held || v.report.Dependency != name || v.Host != host {
					t.Fatalf("%s at %s: %+v", name, host, v)
				}
			}
		}
	}
	mute := 0
	for _, h := range table.held {
		if h.Record.mute() {
			mute++
		}
	}
	if len(table.living) != len(table.held) || len(table.idle) != mute || len(table.past) != len(table.gone) {
		t.Fatalf("%d living of %d, %d idle of %d, %d past of %d", len(table.living), len(table.held), len(table.idle), mute, len(table.past), len(table.gone))
	}
	if !maps.Equal(perHost, table.perHost) || !maps.Equal(votes, indexed) {
		t.Fatalf("%v %v\n%v %v", perHost, table.perHost, votes, indexed)
	}
}

func say(id string, sequence uint64, reports ...Report) heard {
	r := Record{Incarnation: 1, Sequence: sequence, Reports: reports}
	raw, err := r.Append(nil)
	if err != nil {
		panic(err)
	}
	return heard{from: Origin{ID: id, Host: "host of " + id}, record: r, raw: append(raw, id...)}
}

// TestZonesAreForgotten: an instance that is somewhere else each time leaves nothing
// behind, and counts where it is.
func TestZonesAreForgotten(t *testing.T) {
	table := NewTable(0)
	put := func(id string, sequence uint64, zone string) {
		h := say(id, sequence, Report{Dependency: "d", Opinion: Open})
		h.from.Zone = zone
		h.put(table, 0)
	}
	for i := range 4 {
		put(fmt.Sprint("still ", i), 1, fmt.Sprint("still ", i))
	}
	for i := range uint64(100) {
		put("moves", i+1, fmt.Sprint("zone ", i))
		for _, zone := range []string{"still 0", "still 1", "still 2", "still 3", fmt.Sprint("zone ", i)} {
			tally := table.Tally(0, "d", Origin{Host: "here", Zone: zone})
			if tally.Zones != 5 || tally.Fleet.ZonesOpen != 5 || tally.Zone.Open != 1 {
				t.Fatalf("%s: %+v", zone, tally)
			}
		}
	}
	if zones := len(table.subjects["d"].zones); zones > 10 {
		t.Errorf("%d zones are known", zones)
	}
}

// TestReplayKeepsNothingAlive: copies come in all the time, each as if it were new; the
// record is gone after TTL, and stays gone.
func TestReplayKeepsNothingAlive(t *testing.T) {
	table := NewTable(0)
	h := say("a", 1, Report{Dependency: "d", Opinion: Open})
	h.put(table, 0)
	for now := int64(0); now < int64(memory); now += second {
		if o := h.put(table, now); now > 0 && o == New {
			t.Fatalf("new after %v", time.Duration(now))
		}
		if _, ok := table.Get("a"); ok != (now < int64(TTL)) {
			t.Fatalf("held after %v: %v", time.Duration(now), ok)
		}
	}
	if o := say("a", 2).put(table, int64(memory)); o != New {
		t.Errorf("a newer one: %v", o)
	}
}

// TestNobodyAgesOthers: a copy that claims to be old takes nothing away.
func TestNobodyAgesOthers(t *testing.T) {
	table := NewTable(0)
	h := say("a", 1, Report{Dependency: "d", Opinion: Well, Successes: 3})
	h.put(table, 0)
	for _, age := range []time.Duration{TTL - 1, TTL, time.Hour} {
		h.age = age
		h.put(table, second)
	}
	if held, ok := table.Get("a"); !ok || held.Born != 0 {
		t.Errorf("%+v %v", held, ok)
	}
	// Nor does one that comes first and is too old to be held.
	other := say("b", 1)
	other.age = TTL
	other.put(table, 0)
	other.age = 0
	if o := other.put(table, 0); o != New {
		t.Errorf("after an expired copy: %v", o)
	}
}

func TestTableIsBounded(t *testing.T) {
	table := NewTable(3)
	open := Report{Dependency: "d", Opinion: Open}
	for i, h := range []heard{say("a", 1, open), say("b", 1), say("c", 1, open), say("d", 1, open)} {
		if o := h.put(table, int64(i)*second); o != New {
			t.Fatalf("%d: %v", i, o)
		}
	}
	if _, ok := table.Get("b"); ok || table.Len() != 3 {
		t.Error("the one without an opinion is still there")
	}
	if o := say("b", 1).put(table, 5*second); o != Stale {
		t.Errorf("a late copy of it: %v", o)
	}
	if o := say("e", 1, open).put(table, 5*second); o != Refused {
		t.Errorf("one too many: %v", o)
	}
	if o := say("a", 2, open).put(table, 5*second); o != New {
		t.Errorf("a newer record of one who is there: %v", o)
	}
	// What is remembered is bounded as well.
	for i := range 10 {
		now := int64(100+20*i) * second
		if o := say(fmt.Sprint("x", i), 1).put(table, now); o != New {
			t.Fatal(o)
		}
		if table.Len() != 1 || len(table.gone) > 3 {
			t.Fatalf("%d held, %d remembered", table.Len(), len(table.gone))
		}
	}
	if o := say("x8", 1).put(table, 300*second); o != Stale {
		t.Errorf("the last one is forgotten: %v", o)
	}
}

// TestPutTellsWhomItDisplaced: Expire returns also who made room, once, unless it is
// back.
func TestPutTellsWhomItDisplaced(t *testing.T) {
	table := NewTable(2)
	say("b", 1).put(table, 0)
	say("a", 1).put(table, 1)
	say("c", 1).put(table, 2)
	say("d", 1).put(table, 3)
	say("b", 2).put(table, 4) // instead of c
	if got := table.Expire(5); !slices.Equal(got, []string{"a", "c"}) {
		t.Error(got)
	}
	if got := table.Expire(5); got != nil {
		t.Errorf("again: %v", got)
	}
	say("e", 1).put(table, int64(TTL)+4) // has b and d expire
	if got := table.Expire(int64(TTL) + 4); !slices.Equal(got, []string{"b", "d"}) {
		t.Error(got)
	}
}

// TestHash: instances agree by these numbers who probes, who speaks and what differs.
func TestHash(t *testing.T) {
	for want, parts := range map[uint64][]string{
		0x25fc6dd36ce04b20: {""},
		0x3ec300276c90b6f0: {"voice", "payments", "h1"},
		0x57b8f023cab40807: {strings.Repeat("x", 600)},
	} {
		if got := hash(parts...); got != want {
			t.Errorf("%.20q: %#x, want %#x", parts, got, want)
		}
	}
}

func TestOneHostCannotFillTheTable(t *testing.T) {
	table := NewTable(0)
	for i := range MaxPerHost + 1 {
		h := say(fmt.Sprint(i), 1)
		h.from.Host = "h"
		if o := h.put(table, 0); (o == Refused) != (i == MaxPerHost) {
			t.Fatalf("%d: %v", i, o)
		}
	}
	if o := say("other", 1).put(table, 0); o != New {
		t.Error(o)
	}
}

func TestExpireTells(t *testing.T) {
	table := NewTable(0)
	if _, ok := table.NextExpiry(); ok {
		t.Error("an empty table has nothing to expire")
	}
	say("b", 1).put(table, 0)
	say("a", 1).put(table, 0)
	say("c", 1).put(table, second)
	if at, ok := table.NextExpiry(); !ok || at > int64(TTL) {
		t.Error(at, ok)
	}
	if got := table.Expire(int64(TTL) - 1); got != nil {
		t.Error(got)
	}
	if got := table.Expire(int64(TTL)); !slices.Equal(got, []string{"a", "b"}) {
		t.Error(got)
	}
	if at, ok := table.NextExpiry(); !ok || at != int64(TTL)+second {
		t.Error(time.Duration(at), ok)
	}
	table.Expire(int64(TTL) + second)
	if got := table.Expire(int64(TTL+memory) + second); got != nil || len(table.gone) != 0 {
		t.Error(got, len(table.gone))
	}
}
