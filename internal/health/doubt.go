package health

import (
	"strings"
	"time"
)

// Doubt is why an instance does not trust itself, as a set; zero if it does. What it
// reports then does not count, and it obeys no hearsay: it is left with its own
// breakers.
type Doubt uint8

// Reasons to doubt oneself.
const (
	// DoubtSlow: gossip's own probes come late, so the process or its host is slow.
	DoubtSlow Doubt = 1 << iota
	// DoubtAll: more than half of its dependencies fail at once, so it is more likely
	// the one that is broken, or its network, or its DNS.
	DoubtAll
	// DoubtAlone: members vanished by the dozen, so it may be the one that is cut off.
	DoubtAlone
	// DoubtDeaf: members are there and nothing comes in.
	DoubtDeaf

	allDoubts = DoubtSlow | DoubtAll | DoubtAlone | DoubtDeaf
)

func (d Doubt) String() string {
	var words []string
	for i, word := range [...]string{"is slow", "finds most things broken", "has lost its peers", "hears nothing"} {
		if d>>i&1 == 1 {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// Numbers of doubt, from the reasoning in Lifeguard (arXiv 1707.00788: doubt
// yourself first) and Eureka's self-preservation (a register that loses many at once
// distrusts its own network).
const (
	// doubtScore is memberlist's health score from which on a member is slow: its
	// scale is 0 to 7, each step one of its own probes that went wrong lately.
	doubtScore = 3
	// doubtDependencies is the least number of which more than half can mean anything:
	// of two, half is one.
	doubtDependencies = 3
	// doubtLost is the share of members that vanish within doubtWindow without saying
	// so, and doubtMembers the least number of which it is taken: of fewer, one that
	// crashes is a large share.
	doubtLost    = 0.4
	doubtMembers = 5
	doubtWindow  = 30 * time.Second
	// doubtSilence is three of gossip's probe intervals: in a pool of two or more
	// something comes in that often.
	doubtSilence = 15 * time.Second
)

// Vitals are how an instance is doing.
type Vitals struct {
	// Health is memberlist's score, 0 if well.
	Health int
	// Dependencies used lately, and those among them that Fail: opened, probed or
	// mostly failing by evidence of its own, not by hearsay.
	Dependencies, Failing int
	// Members of the pool now, itself included. Left counts those that ever said they
	// were leaving: it is no loss.
	Members int
	Left    uint64
	// Heard is how long ago anything came in from another member.
	Heard time.Duration
}

// Doubter remembers how many members there were. It is a value; the zero value has
// seen nothing.
type Doubter struct {
	peaks [6]int64 // of members and leavers together, by slices of doubtWindow
	slice int64
}

// Observe returns whether to doubt, and what to remember. It is to be asked every few
// seconds at least, or losses look slower than they were.
func (d Doubter) Observe(now int64, v Vitals) (Doubter, Doubt) {
	stock := int64(v.Members) + int64(v.Left) //nolint:gosec // counts
	peak := stock
	d.advance(now / int64(doubtWindow/time.Duration(len(d.peaks))))
	for _, p := range d.peaks {
		peak = max(peak, p)
	}
	slot := &d.peaks[d.slice%int64(len(d.peaks))]
	*slot = max(*slot, stock)

	var doubt Doubt
	if v.Health >= doubtScore {
		doubt |= DoubtSlow
	}
	if v.Dependencies >= doubtDependencies && 2*v.Failing > v.Dependencies {
		doubt |= DoubtAll
	}
	if lost := peak - stock; int64(v.Members)+lost >= doubtMembers && float64(lost) > doubtLost*float64(int64(v.Members)+lost) {
		doubt |= DoubtAlone
	}
	if v.Members > 1 && v.Heard > doubtSilence {
		doubt |= DoubtDeaf
	}
	return d, doubt
}

// advance forgets the slices that are over.
func (d *Doubter) advance(slice int64) {
	n := int64(len(d.peaks))
	for s := max(d.slice+1, slice-n+1); s <= slice; s++ {
		d.peaks[s%n] = 0
	}
	d.slice = max(d.slice, slice)
}
