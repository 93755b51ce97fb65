package seam

// The bugs that a build with the tag "seeded" can be given, to show that the tests of
// whole systems find such things: each is what somebody could have written. A process
// has the one that HOLDFAST_BUG names.
//
// Of servers.
const (
	// ReadsWithoutQuorum: the leader answers reads without asking whether it still leads.
	ReadsWithoutQuorum = "reads-without-quorum"
	// ReadsWithoutApply: a server answers a read before it has applied what the leader had
	// committed.
	ReadsWithoutApply = "reads-without-apply"
	// RetriesApplied: a request that was applied before is applied again.
	RetriesApplied = "retries-applied"
	// RequestsForgotten: outcomes are in snapshots, but nobody finds them after a restore.
	RequestsForgotten = "requests-forgotten"
	// UnknownIsDone: a write that reached the log of a leader that is none any more is
	// acknowledged.
	UnknownIsDone = "unknown-is-done"
	// UnsyncedLog: the log is written without fsync.
	UnsyncedLog = "unsynced-log"
	// LostLeadershipRefuses: a write that was under way when the leadership was lost is
	// said to have had no effect.
	LostLeadershipRefuses = "lost-leadership-refuses"
	// StrangersAnswer: an answer counts whoever gives it at a server's address.
	StrangersAnswer = "strangers-answer"
	// SnapshotIgnored: a server that has a state already keeps it when it is sent a
	// snapshot.
	SnapshotIgnored = "snapshot-ignored"
	// TombstonesUnindexed: what is read from a snapshot is not found by watches.
	TombstonesUnindexed = "tombstones-unindexed"
	// AppliedByLocalClock: a command is applied at the time of the own wall clock.
	AppliedByLocalClock = "applied-by-local-clock"
	// AppliedOutOfOrder: a batch of entries is applied from its end.
	AppliedOutOfOrder = "applied-out-of-order"
	// StampsByWallClock: the leader stamps commands with its wall clock, which may jump.
	StampsByWallClock = "stamps-by-wall-clock"
	// AbsentMatches: a demand for a revision is taken for met where there is nothing.
	AbsentMatches = "absent-matches"
	// MinRevisionIgnored: a read that asks for a revision does not wait for it.
	MinRevisionIgnored = "min-revision-ignored"
	// RestoreKeepsEpoch: a restore goes on in the epoch that it ends.
	RestoreKeepsEpoch = "restore-keeps-epoch"
	// ResumesFromNow: a watch that resumes begins with the next change.
	ResumesFromNow = "resumes-from-now"
	// DeltasWithoutDeletes: watchers are not told of what was deleted.
	DeltasWithoutDeletes = "deltas-without-deletes"
	// DeltasTooShort: a delta has its first change only.
	DeltasTooShort = "deltas-too-short"
)

// Of instances.
const (
	// OlderAdmitted: whoever is at a revision may be told an older one.
	OlderAdmitted = "older-admitted"
	// ForgetsOnReconnect: each session begins with nothing, so that any server will do.
	ForgetsOnReconnect = "forgets-on-reconnect"
	// UpdatesInPieces: a change of several resources is obeyed in two pieces.
	UpdatesInPieces = "updates-in-pieces"
	// TriesCountAsHeard: the age of a view counts from the last attempt to reach a server.
	TriesCountAsHeard = "tries-count-as-heard"
	// ServersVouch: a view counts as the newest while any server is there, also one that is
	// cut off from the others.
	ServersVouch = "servers-vouch"
	// EndsNeedServer: an override ends when a server says so.
	EndsNeedServer = "ends-need-server"
	// DecisionsWait: a decision waits a little for a session.
	DecisionsWait = "decisions-wait"
	// DiskIgnored: what the disk has is used only once a server has answered.
	DiskIgnored = "disk-ignored"
	// ConnectionsLeft: the connection of a session that ended stays open.
	ConnectionsLeft = "connections-left"
)

// Of fleet health.
const (
	// NoRejoin: a member that has company does not look for those that it lost.
	NoRejoin = "no-rejoin"
	// EvidenceStays: evidence does not expire.
	EvidenceStays = "evidence-stays"
	// OlderEvidenceWins: a record replaces whatever is held of its instance.
	OlderEvidenceWins = "older-evidence-wins"
	// HearsayStays: a verdict by hearsay stands for as long as nobody calls the dependency.
	HearsayStays = "hearsay-stays"
	// EverythingIsNews: what is known already is passed on again.
	EverythingIsNews = "everything-is-news"
)
