package consensus

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Limits of a node. Each is a refusal, never a queue without end.
const (
	// MaxCommand is the largest command, in bytes; larger ones are refused with
	// [ErrTooLarge]. Larger entries would delay heartbeats.
	MaxCommand = 1 << 20
	// maxProposals bounds the proposals in flight, and maxProposalBytes their
	// size; more get ErrUnavailable.
	maxProposals     = 8192
	maxProposalBytes = 128 << 20
	// maxAppendEntries bounds one group commit, one message and one batch of the
	// state machine.
	maxAppendEntries = 256
	// maxAppendBytes bounds the commands in one message if it carries several.
	// 256 of the largest ones would not get through a slow link within
	// rpcTimeout, however often they are sent.
	maxAppendBytes = 8 << 20
	// retainSnapshots is how many snapshots stay on disk.
	retainSnapshots = 3
	// logCache is how many recent entries replication reads from memory.
	logCache = 512
	// rpcTimeout bounds one message between two members, dialling included.
	rpcTimeout = 10 * time.Second
	// caughtUp is how many entries a member may be behind when it is promoted.
	caughtUp = 250
)

// Timing holds the clocks of a node and of its log. All members of a cluster
// should use the same. A field that is zero means that of [DefaultTiming].
type Timing struct {
	// Heartbeat is how long a follower waits for its leader before it asks for
	// an election; the leader sends ten in that time.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes.
	Election time.Duration
	// Lease is how long a leader goes on without contact to a quorum.
	Lease time.Duration
	// Commit bounds how late an idle leader repeats its commit index: the
	// backstop of the commit nudge.
	Commit time.Duration
	// Stall is how long one write to disk may take before the node goes silent,
	// so that another can lead; StallFatal is when it gives up.
	Stall, StallFatal time.Duration
	// SnapshotInterval is how often the log's growth is looked at,
	// SnapshotThreshold how many entries make a snapshot worth while, and
	// TrailingLogs how many entries stay in the log for slow followers.
	SnapshotInterval  time.Duration
	SnapshotThreshold uint64
	TrailingLogs      uint64
}

// DefaultTiming suits local disks and links within a region.
func DefaultTiming() Timing {
	return Timing{
		Heartbeat:         500 * time.Millisecond,
		Election:          500 * time.Millisecond,
		Lease:             250 * time.Millisecond,
		Commit:            50 * time.Millisecond,
		Stall:             2 * time.Second,
		StallFatal:        10 * time.Second,
		SnapshotInterval:  30 * time.Second,
		SnapshotThreshold: 8192,
		TrailingLogs:      10240,
	}
}

// SlowTiming suits slow or busy disks and links between regions: failures are
// noticed later, and pauses are mistaken for failures less often.
func SlowTiming() Timing {
	t := DefaultTiming()
	t.Heartbeat, t.Election, t.Lease = 2*time.Second, 2*time.Second, time.Second
	return t
}

func (t Timing) withDefaults() Timing {
	d := DefaultTiming()
	return Timing{
		Heartbeat:         cmp.Or(t.Heartbeat, d.Heartbeat),
		Election:          cmp.Or(t.Election, d.Election),
		Lease:             cmp.Or(t.Lease, d.Lease),
		Commit:            cmp.Or(t.Commit, d.Commit),
		Stall:             cmp.Or(t.Stall, d.Stall),
		StallFatal:        cmp.Or(t.StallFatal, d.StallFatal),
		SnapshotInterval:  cmp.Or(t.SnapshotInterval, d.SnapshotInterval),
		SnapshotThreshold: cmp.Or(t.SnapshotThreshold, d.SnapshotThreshold),
		TrailingLogs:      cmp.Or(t.TrailingLogs, d.TrailingLogs),
	}
}

// Config says what a node is. ID, DataDir and BindAddr are required.
type Config struct {
	// ID names this member. It must be stable, and must never be used again with
	// an empty disk: a member that forgot its vote may vote twice.
	ID string
	// DataDir holds the log and the snapshots; it is created with mode 0700.
	DataDir string
	// BindAddr is the host:port to listen on; port 0 picks a free one.
	BindAddr string
	// AdvertiseAddr is the host:port that other members dial. Empty means the
	// address listened on; port 0 means the port listened on.
	AdvertiseAddr string
	// SourceIP binds outgoing connections. Empty leaves it to the system.
	SourceIP string
	// ServerTLS and ClientTLS secure the connections between members; nil means
	// plaintext, and both must be set or both be nil. They must verify the peer:
	// whoever gets through can write the log.
	ServerTLS, ClientTLS *tls.Config
	// Timing is DefaultTiming where zero.
	Timing Timing
	// DisableNudge leaves it to Timing.Commit to tell followers of a commit.
	DisableNudge bool
	// Logger is slog.Default() when nil.
	Logger *slog.Logger
	// Lead, if set, runs on its own goroutine while this node leads, once it has
	// applied everything committed before its term. ctx ends with the
	// leadership. Lead never runs twice at a time: it must return when ctx ends,
	// and Close waits for it.
	Lead func(ctx context.Context, term uint64)
	// OnFatal, if set, is called at most once, on its own goroutine, when the
	// node cannot go on: [ErrRemoved], [ErrCorrupt], a disk error, an error of
	// the state machine. The node is silent from then on; the process must exit.
	OnFatal func(error)

	// seams lets the tests of this package replace the disk.
	seams seams
}

// seams are the places where this package's tests cut in.
type seams struct {
	store              func(innerStore) innerStore
	snapshots          func(raft.SnapshotStore) raft.SnapshotStore
	refuse             func(addr string) error // of an outgoing connection
	greeting, progress time.Duration           // of an accepted connection
	noSync             bool                    // so that a busy disk does not end a leadership
}

// withDefaults returns c with every optional field filled in.
func (c Config) withDefaults() (Config, error) {
	if c.ID == "" || c.DataDir == "" || c.BindAddr == "" {
		return c, errors.New("configure consensus: ID, DataDir and BindAddr are required")
	}
	if (c.ServerTLS == nil) != (c.ClientTLS == nil) {
		return c, errors.New("configure consensus: ServerTLS and ClientTLS belong together")
	}
	if c.SourceIP != "" && net.ParseIP(c.SourceIP) == nil {
		return c, fmt.Errorf("configure consensus: source address %q is not an IP address", c.SourceIP)
	}
	c.Timing = c.Timing.withDefaults()
	if c.Timing.StallFatal <= c.Timing.Stall {
		return c, errors.New("configure consensus: StallFatal must be longer than Stall")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Lead == nil {
		c.Lead = func(context.Context, uint64) {}
	}
	if c.OnFatal == nil {
		c.OnFatal = func(error) {}
	}
	return c, nil
}

// raftConfig translates c. Two choices are deliberate: RestoreCommittedLogs
// stays off, because it loses the members after a restart, and snapshots are
// restored by openSnapshots before raft starts, because raft would fall back to
// an older one without checking that the log reaches far enough. BatchApplyCh
// lets the queue hand over a group at once.
func (c Config) raftConfig(notify chan<- bool) *raft.Config {
	rc := raft.DefaultConfig()
	rc.ProtocolVersion = raft.ProtocolVersionMax
	rc.LocalID = raft.ServerID(c.ID)
	rc.HeartbeatTimeout = c.Timing.Heartbeat
	rc.ElectionTimeout = c.Timing.Election
	rc.LeaderLeaseTimeout = c.Timing.Lease
	rc.CommitTimeout = c.Timing.Commit
	rc.MaxAppendEntries = maxAppendEntries
	rc.BatchApplyCh = true
	rc.SnapshotInterval = c.Timing.SnapshotInterval
	rc.SnapshotThreshold = c.Timing.SnapshotThreshold
	rc.TrailingLogs = c.Timing.TrailingLogs
	rc.NoLegacyTelemetry = true
	rc.NoSnapshotRestoreOnStart = true
	rc.ShutdownOnRemove = false
	rc.NotifyCh = notify
	rc.Logger = newLogger(c.Logger)
	return rc
}
