// Package seeded has the bugs that the product can be given, to show that the rules
// find such things.
package seeded

import (
	"fmt"
	"strings"
	"time"
)

// The parts of the product that bugs are in.
const (
	Server = "server"
	SDK    = "SDK"
	Gossip = "gossip"
)

// Bug is one that the product can be given, and what has to find it.
type Bug struct {
	// Where is the part of the product; Name is that of package seam of the product, Story
	// what goes wrong.
	Where, Name, Story string
	Witness
	// Scenario exposes it; Faults is for how long faults are begun, 0 leaves that to the
	// profile. Each fault of a scenario is done once at least.
	Scenario string
	Faults   time.Duration
}

// Witness is the rule that has to be violated. A few bugs break either of two promises,
// depending on who comes first: Why tells.
type Witness struct {
	Rules []string
	Why   string
}

func by(rule string) Witness { return Witness{Rules: []string{rule}} }

func either(one, other, why string) Witness { return Witness{Rules: []string{one, other}, Why: why} }

// once has each fault of a scenario done once, and no more; a calm run of briefly is
// long enough.
const (
	once    = time.Second
	briefly = 3 * time.Second
)

// Bugs are all of them.
func Bugs() []Bug {
	return []Bug{
		{Server, "reads-without-quorum", "the leader reads without asking whether it still leads", by("R1"), "belated", 4 * time.Second},
		{Server, "reads-without-apply", "a read does not wait until this server has applied what was committed", by("R1"), "calm", 0},
		{Server, "retries-applied", "a request that was applied before is applied again", by("D2"), "reply-loss", 0},
		{
			Server, "requests-forgotten", "after a restore from a snapshot, applied requests are unknown",
			either("D2", "D4", "one server that forgot differs from the others; if all did, the request takes effect twice"), "snapshots", once,
		},
		{Server, "unknown-is-done", "a write that reached the log of a leader that is none any more is acknowledged", by("R1"), "isolate", 0},
		{Server, "unsynced-log", "the log is written without fsync", by("R1"), "blackout", once},
		{Server, "lost-leadership-refuses", "a write under way when the leadership is lost is said to have failed", by("D2"), "deaf", 20 * time.Second},
		{Server, "strangers-answer", "an answer counts whoever gives it at a server's address", by("R1"), "lost-vote", once},
		{Server, "snapshot-ignored", "a server that has a state already keeps it when it is sent a snapshot", by("D6"), "snapshots", once},
		{Server, "tombstones-unindexed", "watches do not find tombstones that were read from a snapshot", by("W4"), "snapshots", once},
		{Server, "applied-by-local-clock", "commands are applied at the time of the own wall clock", by("D4"), "calm", briefly},
		{Server, "applied-out-of-order", "a batch of entries is applied from its end", by("D6"), "calm", briefly},
		{Server, "stamps-by-wall-clock", "the leader stamps commands with its wall clock, which may jump", by("C9"), "ahead", once},
		{Server, "absent-matches", "a demand for a revision is met where there is nothing", by("R2"), "calm", briefly},
		{Server, "min-revision-ignored", "a read that asks for a revision does not wait for it", by("R3"), "calm", 0},
		{Server, "restore-keeps-epoch", "a restore goes on in the epoch that it ends", by("R1"), "backup", once},
		{Server, "resumes-from-now", "a watch that resumes begins with the next change", by("W5"), "leader-kill", once},
		{Server, "deltas-without-deletes", "watchers are not told of what was deleted", by("W4"), "calm", briefly},
		{Server, "deltas-too-short", "a delta has its first change only", by("W3"), "calm", briefly},

		{SDK, "older-admitted", "whoever is at a revision may be told an older one", by("C3"), "alone", once},
		{SDK, "forgets-on-reconnect", "each session begins with nothing, so that any server will do", by("C3"), "astray", once},
		{SDK, "updates-in-pieces", "a change of several resources is obeyed in two pieces", by("C5"), "calm", briefly},
		{SDK, "tries-count-as-heard", "the age of a view counts from the last try to reach a server", by("C4"), "alone", once},
		{SDK, "servers-vouch", "a view counts as the newest while any server is there", by("C4"), "isolate", 0},
		{SDK, "ends-need-server", "an override ends when a server says so", by("C9"), "alone", once},
		{SDK, "decisions-wait", "a decision waits a little for a session", by("C1"), "alone", once},
		{SDK, "disk-ignored", "what the disk has is used only once a server has answered", by("C7"), "instances", 0},
		{SDK, "connections-left", "the connection of a session that ended stays open", by("U1"), "alone", once},

		{Gossip, "no-rejoin", "a member that has company does not look for those that it lost", by("G7"), "halves-long", once},
		{Gossip, "evidence-stays", "evidence does not expire", by("G5"), "silence", 0},
		{Gossip, "older-evidence-wins", "a record replaces whatever is held of its instance", by("G2"), "dependency", 0},
		{Gossip, "hearsay-stays", "a verdict by hearsay stands for good", by("C8"), "hearsay", once},
		{Gossip, "everything-is-news", "what is known already is passed on again", by("G8"), "calm", 0},
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
