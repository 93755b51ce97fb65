package nemesis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/disk"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

// Catalogue is every fault.
func Catalogue() []Fault {
	delays := func(c fabric.Caps) bool { return c.Delay }
	loses := func(c fabric.Caps) bool { return c.Loss }
	fails := func(c disk.Caps) bool { return c.Errors }
	fills := func(c disk.Caps) bool { return c.Full }
	slows := func(c disk.Caps) bool { return c.Slow }
	hangs := func(c disk.Caps) bool { return c.Hang }
	short, long := Span{400 * time.Millisecond, 1500 * time.Millisecond}, Span{2 * time.Second, 5 * time.Second}
	return append(measured(hangs), []Fault{
		kill("leader", Leader),
		kill("follower", Follower),
		kill("majority", Majority),
		kill("all", All),
		strand(),
		stopLeader(),
		pause("leader", long, Leader),
		pause("leader-briefly", short, Leader),
		pause("majority", long, Majority),
		pause("all", long, All),
		rolling("restart", false),
		rolling("upgrade", true),
		replace("follower", Follower),
		replace("leader", Leader),
		forget(),
		transfer(),
		belated(),
		install(),
		backup(),
		restore(),
		cut("isolate-leader", isolate(Leader)),
		cut("isolate-minority", isolate(Follower)),
		cut("isolate-majority", shatter),
		cut("halves", halves),
		// Up to 50 s until everybody counts as dead, and 30 s until they are not told of it
		// any more.
		lasting(cut("halves-long", halves), Span{90 * time.Second, 94 * time.Second}),
		cut("bridge", bridge),
		cut("deaf-leader", deaf),
		deafened(),
		cut("mute-leader", mute),
		cut("reply-loss", replyLoss),
		cut("sdk-from-all", sdk(All, everyone)),
		cut("sdk-from-some", sdk(All, someone)),
		cut("sdk-from-one", sdk(One, everyone)),
		cut("gossip-only", gossipOnly),
		flap(),
		// Longer than a session believes in a server that says nothing.
		lasting(cut("alone-all", sdk(All, everyone)), Span{20 * time.Second, 24 * time.Second}),
		lasting(cut("alone-some", sdk(All, someone)), Span{20 * time.Second, 24 * time.Second}),
		cut("instances-apart", apart),
		lasting(cut("instances-apart-long", apart), Span{42 * time.Second, 50 * time.Second}),
		killInstances(),
		pauseInstances("pause", long),
		pauseInstances("pause-long", Span{22 * time.Second, 30 * time.Second}),
		restartApart(),
		sicken("refuse"),
		sicken("hang"),
		sickAndSilent(),
		cut("dependency-from-some", dependencyApart),
		sickThenApart(),
		shape("delay", fabric.Shape{Delay: 40 * time.Millisecond, Jitter: 20 * time.Millisecond}, delays),
		shape("slow", fabric.Shape{Delay: 200 * time.Millisecond, Jitter: 100 * time.Millisecond}, delays),
		shape("loss", fabric.Shape{Loss: 0.3}, loses),
		shape("messy", fabric.Shape{Loss: 0.05, Duplicate: 0.2, Reorder: 0.3}, loses),
		breakDisk("eio-leader", short, disk.Fault{Kind: disk.EIO, Ops: disk.Write | disk.Fsync}, fails, Leader),
		breakDisk("eio-follower", short, disk.Fault{Kind: disk.EIO, Ops: disk.Write | disk.Fsync}, fails, Follower),
		breakDisk("full", short, disk.Fault{Kind: disk.Full, Room: 16 << 10}, fills, One),
		breakDisk("slow", long, disk.Fault{Kind: disk.Slow, Ops: disk.Fsync, Wait: 150 * time.Millisecond}, slows, Leader),
		breakDisk("hang", Span{time.Second, 6 * time.Second}, disk.Fault{Kind: disk.Hang, Ops: disk.All}, hangs, Leader),
		powerLoss("one", false, One),
		powerLoss("leader-torn", true, Leader),
		powerLoss("all", false, All),
		powerLoss("all-torn", true, All),
		jump("leader-forward", time.Hour, Leader),
		jump("leader-back", -24*time.Hour, Leader),
		jump("follower-forward", 30*time.Second, Follower),
		jump("all-back", -time.Hour, All),
	}...)
}

// Named are the faults whose names match any of some patterns: a name, or its
// beginning and a star.
func Named(patterns ...string) ([]Fault, error) {
	all := Catalogue()
	var chosen []Fault
	for _, pattern := range patterns {
		prefix, open := strings.CutSuffix(pattern, "*")
		found := false
		for _, f := range all {
			if f.Name != pattern && (!open || !strings.HasPrefix(f.Name, prefix)) {
				continue
			}
			found = true
			if !slices.ContainsFunc(chosen, func(c Fault) bool { return c.Name == f.Name }) {
				chosen = append(chosen, f)
			}
		}
		if !found {
			return nil, fmt.Errorf("no fault is called %q; jepsen-lite list names them", pattern)
		}
	}
	return chosen, nil
}
