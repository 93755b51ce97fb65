package health

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRecordHasOneEncoding: what Normalize leaves is encoded, read back the same, and
// encoded the same again; and Normalize has nothing more to do.
func TestRecordHasOneEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t, 60)
		r.Normalize()
		b, err := r.Append([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if len(b)-1 > MaxRecord {
			t.Fatalf("%d bytes", len(b)-1)
		}
		back, err := DecodeRecord(b[1:])
		if err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%v\n%+v\n%+v", err, r, back)
		}
		if dropped := back.Normalize(); dropped != 0 || !reflect.DeepEqual(back, r) {
			t.Fatalf("normalized again: %d dropped, %+v", dropped, back)
		}
	})
}

// TestNormalizeKeepsWhatMatters: where there is no room, no report goes while a less
// important one stays.
func TestNormalizeKeepsWhatMatters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Record
		for i := range rapid.IntRange(0, 80).Draw(t, "reports") {
			r.Reports = append(r.Reports, drawReport(t, fmt.Sprintf("dependency-%d", i)))
		}
		before := slices.Clone(r.Reports)
		dropped := r.Normalize()
		if len(r.Reports)+dropped != len(before) {
			t.Fatalf("%d reports, %d dropped of %d", len(r.Reports), dropped, len(before))
		}
		kept, least := map[string]bool{}, 99
		for _, p := range r.Reports {
			kept[p.Dependency] = true
			least = min(least, p.Opinion.importance())
		}
		for _, p := range before {
			if !kept[p.Dependency] && p.Opinion.importance() > least {
				t.Fatalf("%s (%v) is missing, and something of importance %d is not", p.Dependency, p.Opinion, least)
			}
		}
	})
}

func TestRecordLimits(t *testing.T) {
	report := func(name string) Report { return Report{Dependency: name, Opinion: Open} }
	var many, long Record
	for i := range MaxReports + 1 {
		many.Reports = append(many.Reports, report(fmt.Sprintf("%02d", i)))
	}
	for i := range 3 {
		long.Reports = append(long.Reports, report(fmt.Sprintf("%d%s", i, strings.Repeat("x", MaxName-1))))
	}
	with := func(p Report) Record { return Record{Reports: []Report{p}} }
	for name, r := range map[string]Record{
		"too many":        many,
		"too long":        long,
		"long name":       with(report(strings.Repeat("x", MaxName+1))),
		"no name":         with(report("")),
		"not printable":   with(report("a\x1b[2J")),
		"not UTF-8":       with(report("a\xff")),
		"out of order":    {Reports: []Report{report("b"), report("a")}},
		"twice":           {Reports: []Report{report("a"), report("a")}},
		"no opinion":      with(Report{Dependency: "a"}),
		"unknown opinion": with(Report{Dependency: "a", Opinion: Recovering + 1}),
		"unknown result":  with(Report{Dependency: "a", Opinion: Open, Probe: Bad + 1}),
		"part of a tick":  with(Report{Dependency: "a", Opinion: Open, Since: time.Millisecond}),
		"negative":        with(Report{Dependency: "a", Opinion: Open, Since: -tick}),
		"failures":        with(Report{Dependency: "a", Opinion: Open, Calls: 1, Failures: 2}),
		"age of nothing":  with(Report{Dependency: "a", Opinion: Open, ProbeAgo: tick}),
		"unknown doubt":   {Doubt: allDoubts + 1},
	} {
		b, err := r.Append([]byte("kept"))
		if !errors.Is(err, ErrMalformed) || string(b) != "kept" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		r.Normalize()
		if _, err := r.Append(nil); err != nil {
			t.Errorf("%s, normalized: %v", name, err)
		}
	}
	if _, err := DecodeRecord(make([]byte, MaxRecord+1)); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	r := Record{Incarnation: 1, Sequence: 2, Reports: []Report{{Dependency: "a", Opinion: Open, Calls: 5, Failures: 5}}}
	good, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, to byte) []byte {
		b := bytes.Clone(good)
		b[i] = to
		return b
	}
	for name, b := range map[string][]byte{
		"empty":                nil,
		"format":               change(0, format+1),
		"doubt":                change(1, 0xf0),
		"flags":                change(2, 2),
		"count":                change(headerBytes-1, 2),
		"count of none":        change(headerBytes-1, 0),
		"behind":               append(bytes.Clone(good), 0),
		"no incarnation above": slices.Concat(good[:3], bytes.Repeat([]byte{0xff}, 8), good[11:]),
		"no sequence above":    slices.Concat(good[:11], bytes.Repeat([]byte{0xff}, 8), good[19:]),
		"not minimal":          slices.Concat(good[:headerBytes], []byte{0x81, 0x00}, good[headerBytes+1:]),
	} {
		if _, err := DecodeRecord(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		if _, err := DecodeRecord(good[:i]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
}

// FuzzDecodeRecord: whatever the bytes are, they are refused, or they are the one
// encoding of what was read.
func FuzzDecodeRecord(f *testing.F) {
	full := Record{Incarnation: 1 << 40, Sequence: 7, Doubt: DoubtDeaf, Reports: []Report{
		{Dependency: "inventory", Opinion: Probing, Cause: ProbeFailed, Calls: 20, Failures: 12, Since: 3 * time.Second, Round: 3},
		{Dependency: "payments", Opinion: Open, Cause: TooManyFailures, Calls: 5, Failures: 5, Since: longest, Round: 300, Probe: Bad, ProbeAgo: tick},
		{Dependency: "zürich", Opinion: Well, Calls: 1 << 31, Successes: 300},
	}}
	for _, r := range []Record{{}, {Leaving: true, Sequence: 1}, full} {
		b, err := r.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		again, err := r.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%v: %x was read as %+v, which is %x", err, b, r, again)
		}
		if dropped := r.Normalize(); dropped != 0 {
			t.Fatalf("%d reports dropped of %+v", dropped, r)
		}
	})
}
