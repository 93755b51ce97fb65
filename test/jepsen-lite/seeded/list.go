// Package seeded has the bugs that the product can be given, to show that the rules
// find such things.
package seeded

import (
	"fmt"
	"strings"
	"time"
)

// Bug is one that the product can be given, and what has to find it.
type Bug struct {
	// Name is that of package seam of the product, Story what goes wrong.
	Name, Story string
	// Rules are those of which one has to be violated: the first is the promise that the
	// bug breaks, any further one says the same of another witness.
	Rules []string
	// Scenario exposes it; Faults is for how long, 0 leaves that to the profile.
	Scenario string
	Faults   time.Duration
}

// Bugs are all of them.
func Bugs() []Bug {
	return []Bug{
		{"reads-without-quorum", "the leader reads without asking whether it still leads", []string{"R1"}, "pause", 0},
		{"reads-without-apply", "a read does not wait until this server has applied what was committed", []string{"R1"}, "leader-kill", 0},
		{"retries-applied", "a request that was applied before is applied again", []string{"D2"}, "reply-loss", 0},
		{"requests-forgotten", "after a restore from a snapshot, applied requests are unknown", []string{"D2", "D4"}, "snapshots", 0},
		{"unknown-is-done", "a write that reached the log of a leader that is none any more is acknowledged", []string{"D2", "R1"}, "isolate", 0},
		{"unsynced-log", "the log is written without fsync", []string{"D1", "R1"}, "power", 0},
		{"lost-leadership-refuses", "a write under way when the leadership is lost is said to have failed", []string{"D2"}, "one-way", 0},
		{"strangers-answer", "an answer counts whoever gives it at a server's address", []string{"D1", "R1"}, "lost-vote", 0},
		{"snapshot-ignored", "a server that has a state already keeps it when it is sent a snapshot", []string{"D6", "D4"}, "snapshots", 0},
		{"tombstones-unindexed", "watches do not find tombstones that were read from a snapshot", []string{"W5", "W4"}, "snapshots", 0},
		{"applied-by-local-clock", "commands are applied at the time of the own wall clock", []string{"D4"}, "calm", 0},
		{"applied-out-of-order", "a batch of entries is applied from its end", []string{"D4", "D6"}, "calm", 0},
		{"stamps-by-wall-clock", "the leader stamps commands with its wall clock, which may jump", []string{"D2", "C9"}, "clocks", 0},
		{"absent-matches", "a demand for a revision is met where there is nothing", []string{"R2"}, "calm", 0},
		{"min-revision-ignored", "a read that asks for a revision does not wait for it", []string{"R3"}, "bad-links", 0},
		{"restore-keeps-epoch", "a restore goes on in the epoch that it ends", []string{"R1", "W5"}, "backup", 0},
		{"resumes-from-now", "a watch that resumes begins with the next change", []string{"W5", "W6"}, "leader-kill", 0},
		{"deltas-without-deletes", "watchers are not told of what was deleted", []string{"W4"}, "calm", 0},
		{"deltas-too-short", "a delta has its first change only", []string{"W3"}, "calm", 0},

		{"older-admitted", "whoever is at a revision may be told an older one", []string{"C3"}, "alone", 0},
		{"forgets-on-reconnect", "each session begins with nothing, so that any server will do", []string{"C3"}, "astray", 16 * time.Second},
		{"updates-in-pieces", "a change of several resources is obeyed in two pieces", []string{"C5", "C2"}, "calm", 0},
		{"tries-count-as-heard", "the age of a view counts from the last try to reach a server", []string{"C4"}, "alone", 0},
		{"servers-vouch", "a view counts as the newest while any server is there", []string{"C4"}, "isolate", 0},
		{"ends-need-server", "an override ends when a server says so", []string{"C9"}, "alone", 0},
		{"decisions-wait", "a decision waits a little for a session", []string{"C1"}, "alone", 0},
		{"disk-ignored", "what the disk has is used only once a server has answered", []string{"C3", "C7"}, "instances", 0},
		{"connections-left", "the connection of a session that ended stays open", []string{"U1"}, "alone", 0},

		{"no-rejoin", "a member that has company does not look for those that it lost", []string{"G7"}, "gossip-long", 0},
		{"evidence-stays", "evidence does not expire", []string{"G5", "G6"}, "gossip-long", 0},
		{"older-evidence-wins", "a record replaces whatever is held of its instance", []string{"G2"}, "dependency", 0},
		{"hearsay-stays", "a verdict by hearsay stands for good", []string{"C8", "G9"}, "dependency", 0},
		{"everything-is-news", "what is known already is passed on again", []string{"G8"}, "dependency", 0},
	}
}

// Find is the bug of a name.
func Find(name string) (Bug, error) {
	var known []string
	for _, b := range Bugs() {
		if b.Name == name {
			return b, nil
		}
		known = append(known, b.Name)
	}
	return Bug{}, fmt.Errorf("no bug is called %q; there are %s", name, strings.Join(known, ", "))
}
