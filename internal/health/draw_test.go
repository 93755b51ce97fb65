package health

import (
	"fmt"
	"time"

	"pgregory.net/rapid"
)

const second = int64(time.Second)

func drawReport(t *rapid.T, name string) Report {
	p := Report{
		Dependency: name, Opinion: Opinion(rapid.IntRange(1, 6).Draw(t, "opinion")),
		Cause: Cause(rapid.Byte().Draw(t, "cause")),
		Calls: rapid.Uint32().Draw(t, "calls"), Failures: rapid.Uint32().Draw(t, "failures"),
		Successes: rapid.Uint32Range(0, 5).Draw(t, "successes"), Round: rapid.Uint32().Draw(t, "round"),
		Since:    time.Duration(rapid.Int64Range(-1e9, 1e13).Draw(t, "since")),
		Probe:    Result(rapid.IntRange(0, 2).Draw(t, "probe")),
		ProbeAgo: time.Duration(rapid.Int64Range(0, 1e13).Draw(t, "ago")),
	}
	if rapid.Bool().Draw(t, "few") {
		p.Calls, p.Failures = p.Calls%50, p.Failures%50
	}
	return p
}

// drawRecord draws a record as an instance might fill it in, in any order and with
// anything in it.
func drawRecord(t *rapid.T, most int) Record {
	r := Record{
		Incarnation: rapid.Uint64Range(0, 3).Draw(t, "incarnation"), Sequence: rapid.Uint64Range(0, 4).Draw(t, "sequence"),
		Doubt: Doubt(rapid.SampledFrom([]int{0, 0, 0, 1, 8}).Draw(t, "doubt")), Leaving: rapid.IntRange(0, 9).Draw(t, "leaving") == 0,
	}
	for range rapid.IntRange(0, most).Draw(t, "reports") {
		r.Reports = append(r.Reports, drawReport(t, fmt.Sprintf("dep-%d", rapid.IntRange(0, most).Draw(t, "name"))))
	}
	return r
}

// drawOrigin draws one of a few instances on fewer hosts in even fewer zones.
func drawOrigin(t *rapid.T) Origin {
	i := rapid.IntRange(0, 11).Draw(t, "origin")
	return Origin{ID: fmt.Sprintf("i%d", i), Service: "checkout", Host: fmt.Sprintf("h%d", i%7), Zone: fmt.Sprintf("z%d", i%7%3)}
}

// heard is a record that somebody hears.
type heard struct {
	from   Origin
	record Record
	raw    []byte
	age    time.Duration
}

func (h heard) put(t *Table, now int64) Outcome { return t.Put(now, h.from, h.record, h.raw, h.age) }

// drawHeard draws a record that an honest instance could have signed or a liar could.
func drawHeard(t *rapid.T) heard {
	r := drawRecord(t, 3)
	r.Normalize()
	raw, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return heard{drawOrigin(t), r, raw, time.Duration(rapid.Int64Range(0, 170).Draw(t, "age")) * tick}
}
