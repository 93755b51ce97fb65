package health

import (
	"cmp"
	"math"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// Opinion is what an instance says of a dependency.
type Opinion uint8

// What can be said. Only Open, Probing, Suspects and Well are evidence; Hearsay and
// Recovering say what their instance does, and nothing about the dependency.
const (
	// None is no opinion: there is nothing to report.
	None Opinion = iota
	// Well is the word of a witness with successes of its own a moment ago.
	Well
	// Suspects has seen failures, not enough to open.
	Suspects
	// Open is by failures of its own.
	Open
	// Hearsay is open because others say so.
	Hearsay
	// Probing has been open and has a probe under way.
	Probing
	// Recovering lets a growing share of calls through.
	Recovering
)

func (o Opinion) String() string {
	return [...]string{"", "well", "suspects", "open", "hearsay", "probing", "recovering"}[o]
}

// importance says what is left out first where there is no room: what decides
// verdicts and probes stays.
func (o Opinion) importance() int { return [...]int{0, 3, 1, 6, 2, 5, 4}[o] }

// Cause is why an instance is of its opinion. Other versions may know others.
type Cause uint8

// Causes of opinions.
const (
	NoCause         Cause = iota
	TooManyFailures       // in a row
	FailureRatio
	SlowRatio
	ConnectionRefused
	ProbeFailed // or did not answer
	Ordered     // by the dependency
)

func (c Cause) String() string {
	words := [...]string{
		"", "too many failures", "failure ratio", "slow ratio", "connection refused", "probe failed",
		"ordered by the dependency",
	}
	if int(c) < len(words) {
		return words[c]
	}
	return "unknown cause"
}

// Result is how a probe ended.
type Result uint8

// Results of probes.
const (
	NoResult Result = iota
	Good
	Bad
)

func (r Result) String() string { return [...]string{"", "good", "bad"}[r] }

// Report is what one instance says of one dependency. Times are as of the record;
// whoever reads it adds the record's age.
type Report struct {
	Dependency string
	Opinion    Opinion
	Cause      Cause
	// Calls and Failures are of the breaker's window; of one that has opened, what it
	// saw when it did. Successes are those within the veto window.
	Calls, Failures, Successes uint32
	// Since is for how long it has been of that opinion.
	Since time.Duration
	// Round is the round of probes that the instance is in, Probe its own result in
	// that round, ProbeAgo how long ago that was.
	Round    uint32
	Probe    Result
	ProbeAgo time.Duration
}

// Record is all that one instance says, replacing what it said before.
type Record struct {
	// Incarnation grows with each start of the process, Sequence with each record.
	Incarnation, Sequence uint64
	// Doubt is set while the instance does not trust itself; its reports are shown
	// and do not count.
	Doubt Doubt
	// Leaving is the last word of an instance that stops: nothing it said counts.
	Leaving bool
	// Reports are in the order of their dependencies, each at most once.
	Reports []Report
}

// Limits of a record.
const (
	// MaxRecord bounds an encoded record: with a certificate (512 bytes), a signature
	// (64) and their framing it stays within the 1,200 bytes that a packet is sure to
	// carry.
	MaxRecord = 600
	// MaxReports bounds the reports of a record. About 20 of usual length fit: an
	// instance that finds more broken at once doubts itself.
	MaxReports = 48
	// MaxName bounds a dependency's name, in bytes, as that of any resource.
	MaxName = 253
)

// tick is the unit of ages; what is longer than longest counts as that.
const (
	tick    = 100 * time.Millisecond
	longest = math.MaxUint16 * tick
)

// Normalize makes the record one that Append takes: reports sorted, one for each
// dependency, in range, times in whole ticks. If there is no room for all, the least
// important are left out: suspicions, hearsay and praise before what is broken.
// It returns how many are missing.
func (r *Record) Normalize() (dropped int) {
	before := len(r.Reports)
	reports := slices.DeleteFunc(slices.Clone(r.Reports), func(p Report) bool {
		return p.Opinion == None || p.Opinion > Recovering || !validName(p.Dependency)
	})
	for i := range reports {
		reports[i].normalize()
	}
	slices.SortFunc(reports, func(a, b Report) int {
		return cmp.Or(cmp.Compare(a.Dependency, b.Dependency), b.weightier(a))
	})
	reports = slices.CompactFunc(reports, func(a, b Report) bool { return a.Dependency == b.Dependency })
	for size := r.overhead(reports); size > MaxRecord || len(reports) > MaxReports; {
		least := 0
		for i := range reports {
			if reports[i].weightier(reports[least]) <= 0 {
				least = i
			}
		}
		size -= len(reports[least].append(nil))
		reports = slices.Delete(reports, least, least+1)
	}
	if len(reports) == 0 {
		reports = nil
	}
	r.Doubt &= allDoubts
	r.Reports = reports
	return before - len(reports)
}

// overhead is the length of the record with those reports.
func (r *Record) overhead(reports []Report) int {
	n := headerBytes
	for i := range reports {
		n += len(reports[i].append(nil))
	}
	return n
}

// weightier compares by importance, then by what was seen.
func (p Report) weightier(q Report) int {
	return cmp.Or(
		cmp.Compare(p.Opinion.importance(), q.Opinion.importance()),
		cmp.Compare(p.Failures, q.Failures), cmp.Compare(p.Calls, q.Calls),
	)
}

func (p *Report) normalize() {
	p.Failures = min(p.Failures, p.Calls)
	p.Since, p.ProbeAgo = ticks(p.Since), ticks(p.ProbeAgo)
	if p.Probe != Good && p.Probe != Bad {
		p.Probe, p.ProbeAgo = NoResult, 0
	}
}

func ticks(d time.Duration) time.Duration { return min(max(d, 0), longest).Truncate(tick) }

// validName refuses what could not be a name or would disturb a terminal.
func validName(s string) bool {
	if s == "" || len(s) > MaxName || !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}
