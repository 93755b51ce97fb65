package run

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/nemesis"
)

// Scenario is what is done to a cluster in one run.
type Scenario struct {
	Name, About string
	// Lanes are faults that follow each other, by name or by beginning and star; lanes
	// are independent of each other.
	Lanes [][]string
	// Swarm is how many of each lane's faults a seed chooses; 0 leaves all.
	Swarm int
	// Args are added to every server's command line.
	Args []string
	// Restores: the state goes back, on purpose.
	Restores bool
	// Previous: the servers begin with the previous version.
	Previous bool
	// LowSnapshots: the servers make snapshots every few dozens of commands.
	LowSnapshots bool
	// Disks: those of the servers can break.
	Disks bool
	// AfterHeal is how long clients go on when everything is healed, where that is longer
	// than usual: long enough for what everybody must have come to by then.
	AfterHeal time.Duration
	// Measures: figures are taken, for which writes are begun at fixed times.
	Measures bool
	// Require names rules that must have had something to check, beside those that every
	// run must.
	Require []string
}

// agreeBy is a little more than members of the gossip may take to agree after a heal.
const agreeBy = 22 * time.Second

// lowSnapshots make a server that missed a second need a snapshot.
func lowSnapshots() []string { return []string{"--snapshot-threshold", "64"} }

// Scenarios are all of them.
func Scenarios() []Scenario {
	one := func(name, about string, faults ...string) Scenario {
		return Scenario{Name: name, About: about, Lanes: [][]string{faults}}
	}
	all := []Scenario{
		{Name: "calm", About: "no faults: what the rules say of a good day"},
		one("leader-kill", "the leader is killed again and again", "kill-leader"),
		one("kill-all", "all servers at once, the leader, a majority", "kill-all", "kill-majority", "kill-leader"),
		one("pause", "processes stand still: the leader for short and long, a majority, all", "pause-*"),
		one("isolate", "the leader, a minority, or every server is cut off from the other servers", "net-isolate-*", "net-bridge"),
		one("belated", "a leader hears late that it is none any more", "transfer-belated"),
		one("one-way", "a leader that is not heard, or hears nothing", "net-deaf-leader", "net-mute-leader"),
		one("deaf", "a leader that hears nothing has to tell what it does not know", "net-deafened-leader"),
		one("reply-loss", "what servers answer is lost for longer than clients wait", "net-reply-loss"),
		one("halves", "servers, instances and clients are split in two; a server comes and goes", "net-halves", "net-flap"),
		{
			Name: "halves-long", About: "the same for longer than members of the gossip remember each other",
			Lanes: [][]string{{"net-halves-long"}}, AfterHeal: agreeBy, Require: []string{"G7"},
		},
		one("sdk-partition", "instances are cut off from all servers, some, one", "net-sdk-*"),
		one("alone", "instances are cut off from all servers for so long that they notice", "net-alone-all", "net-alone-some"),
		one("astray", "the only server that is left is behind what instances and watchers have seen", "strand-behind"),
		one("gossip", "datagrams are lost and streams work, instances are cut in two", "net-gossip-only", "net-sdk-from-all", "net-instances-apart"),
		one("gossip-long", "instances do not hear of each other for longer than they remember", "net-instances-apart-long", "instance-pause-long"),
		one("instances", "processes with the SDK are killed, stand still, start again without a server", "instance-kill", "instance-pause", "instance-restart-apart"),
		one("dependency", "what instances call refuses, hangs, is cut off from some of them",
			"dependency-refuse", "dependency-hang", "net-dependency-from-some"),
		one("hearsay", "what instances call fails for all of them, and later for the one that calls it least", "net-dependency-then-last"),
		one("silence", "who has told others of an outage stands still for longer than that is remembered", "dependency-and-silence"),
		one("bad-links", "delay, jitter, loss, duplicates, disorder", "net-delay", "net-slow", "net-loss", "net-messy"),
		one("members", "disks are replaced by empty ones, the leadership is handed on and on", "replace-follower", "replace-leader", "transfer-storm"),
		one("lost-vote", "who would have to remember has lost its disk, and who remembers stands still", "replace-forgetful"),
		one("rolling", "all servers are restarted one after the other", "rolling-restart", "stop-leader"),
		{
			Name: "upgrade", About: "all servers come from the previous version, one after the other",
			Lanes: [][]string{{"rolling-upgrade"}}, Previous: true,
		},
		{
			Name: "snapshots", About: "a server that was away has to be sent a snapshot", LowSnapshots: true,
			Lanes: [][]string{{"snapshot-install", "kill-leader", "kill-all", "replace-follower"}},
		},
		{
			Name: "backup", About: "a backup is taken and restored while everybody works", Restores: true,
			Lanes: [][]string{{"backup-any", "restore-backup", "kill-leader"}},
		},
		{
			Name: "disks", About: "disks fail, fill up, are slow, hang", Disks: true,
			Lanes: [][]string{{"disk-*"}},
		},
		one("ahead", "the leader's wall clock jumps ahead while overrides are in force", "clock-leader-forward"),
		one("clocks", "wall clocks jump, on one server or on all", "clock-*"),
		{
			Name: "power", About: "the power fails: what no fsync confirmed is gone, in whole or in part", Disks: true, LowSnapshots: true,
			Lanes: [][]string{{"power-*"}},
		},
		{
			Name: "blackout", About: "the power of all servers fails at once", Disks: true, LowSnapshots: true,
			Lanes: [][]string{{"power-all"}},
		},
		{
			Name: "mixed", About: "what the seed chooses of everything, two things at a time", LowSnapshots: true, Disks: true, Swarm: 4,
			Lanes: [][]string{
				// What ends or starts servers, and what breaks their disks, would disturb itself.
				{
					"kill-*", "stop-leader", "pause-*", "transfer-storm", "snapshot-install", "backup-any", "rolling-restart",
					"disk-*", "power-*",
				},
				{
					"net-isolate-*", "net-halves", "net-bridge", "net-deaf-leader", "net-mute-leader", "net-reply-loss", "net-sdk-*", "net-gossip-only",
					"net-flap", "net-delay", "net-loss", "net-messy", "clock-*", "instance-kill", "instance-restart-apart", "dependency-*",
				},
			},
		},
	}
	return append(all, measuring()...)
}

// Find is the scenario of a name.
func Find(name string) (Scenario, error) {
	var known []string
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, nil
		}
		known = append(known, s.Name)
	}
	return Scenario{}, fmt.Errorf("no scenario is called %q; there are %s", name, strings.Join(known, ", "))
}

// plan is what a seed makes of a scenario.
func (s Scenario) plan(seed uint64, faults time.Duration) (nemesis.Plan, error) {
	plan := nemesis.Plan{
		Gap: nemesis.Span{Min: 700 * time.Millisecond, Max: 3 * time.Second}, For: faults, Each: s.Swarm == 0,
	}
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	for _, names := range s.Lanes {
		if len(names) == 0 {
			continue
		}
		lane, err := nemesis.Named(names...)
		if err != nil {
			return plan, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		if s.Swarm > 0 && s.Swarm < len(lane) {
			r.Shuffle(len(lane), func(i, j int) { lane[i], lane[j] = lane[j], lane[i] })
			lane = slices.Clone(lane[:s.Swarm])
		}
		plan.Lanes = append(plan.Lanes, lane)
	}
	return plan, nil
}

func (s Scenario) args() []string {
	args := slices.Clone(s.Args)
	if s.LowSnapshots {
		args = append(args, lowSnapshots()...)
	}
	return append(args, "--dead-server-timeout", "5s")
}

// require are the rules that must have had something to check: without load, without
// instances or without last words a run proves nothing.
func (s Scenario) require() []string {
	rules := append([]string{
		"R0", "R1", "R2", "D1", "D2", "D3", "D4", "D5", "D6", "W1", "W4", "W10", "C1", "C2", "C3", "C4", "C5", "L1", "L4",
	}, s.Require...)
	if len(s.Lanes) > 0 {
		rules = append(rules, "L3")
	}
	return rules
}
