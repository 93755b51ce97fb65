package consensus

import (
	"sync"
	"sync/atomic"
	"time"
)

// latencyBounds are the upper bounds of a Histogram's buckets, in seconds.
var latencyBounds = [...]float64{ //nolint:gochecknoglobals // a table
	0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
}

// Histogram is a snapshot of durations, in seconds.
type Histogram struct {
	Bounds []float64 // upper bounds, ascending
	Counts []uint64  // observations at or below the bound of the same position (cumulative)
	Count  uint64    // all observations
	Sum    float64
	Max    float64 // since the node started
}

// Metrics is a snapshot of a node's counters since it started.
type Metrics struct {
	StoreLogs        Histogram // one write of entries to disk
	Propose          Histogram // from Propose to applied, on the leader
	Apply            Histogram // one batch in the state machine
	Entries          uint64    // entries written to disk
	LeaderChanges    uint64    // leaders seen, this node included
	SnapshotsTaken   uint64
	SnapshotFailures uint64
	SnapshotsInstalled,
	SnapshotBytes uint64 // snapshots received from a leader; size of the last one written
	Stalls uint64 // writes that took longer than Timing.Stall
	Peers  map[string]PeerMetrics
}

// PeerMetrics counts what this node sent to one other member.
type PeerMetrics struct {
	AppendFailures uint64 // heartbeats and appends that got no answer
	Strangers      uint64 // answers, not used, of another server at the member's address
	NudgesSent     uint64
	NudgesRetried  uint64
	NudgesFailed   uint64 // no answer, or refused twice
	NudgesSpared   uint64 // raft's own message came first
	LastLog        uint64 // the last index that the member reported
}

// counters are the node's live figures.
type counters struct {
	storeLogs, propose, apply latency
	entries                   atomic.Uint64
	leaderChanges             atomic.Uint64
	snapshotsTaken            atomic.Uint64
	snapshotFailures          atomic.Uint64
	snapshotsInstalled        atomic.Uint64
	snapshotBytes             atomic.Uint64
	stalls                    atomic.Uint64
}

// latency is a histogram that any goroutine may add to.
type latency struct {
	mu     sync.Mutex // guards the fields below
	counts [len(latencyBounds)]uint64
	count  uint64
	sum    time.Duration
	max    time.Duration
}

func (l *latency) observe(d time.Duration) {
	seconds := d.Seconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	l.sum += d
	l.max = max(l.max, d)
	for i, bound := range latencyBounds {
		if seconds <= bound {
			l.counts[i]++
			return
		}
	}
}

func (l *latency) snapshot() Histogram {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := Histogram{
		Bounds: latencyBounds[:],
		Counts: make([]uint64, len(latencyBounds)),
		Count:  l.count,
		Sum:    l.sum.Seconds(),
		Max:    l.max.Seconds(),
	}
	var below uint64
	for i, c := range l.counts {
		below += c
		h.Counts[i] = below
	}
	return h
}

// Metrics returns the counters as they are now.
func (n *Node) Metrics() Metrics {
	c := &n.counters
	return Metrics{
		StoreLogs:          c.storeLogs.snapshot(),
		Propose:            c.propose.snapshot(),
		Apply:              c.apply.snapshot(),
		Entries:            c.entries.Load(),
		LeaderChanges:      c.leaderChanges.Load(),
		SnapshotsTaken:     c.snapshotsTaken.Load(),
		SnapshotFailures:   c.snapshotFailures.Load(),
		SnapshotsInstalled: c.snapshotsInstalled.Load(),
		SnapshotBytes:      c.snapshotBytes.Load(),
		Stalls:             c.stalls.Load(),
		Peers:              n.trans.peerMetrics(),
	}
}
