package api

import "time"

// Limits of the API. Each has a refusal or a named policy; docs/limits.md lists
// them. Limits of the state itself are those of package state.
const (
	// MaxOperations is the most steps of one transaction: INVALID_REQUEST.
	MaxOperations = 1024
	// MaxCommandBytes is the largest encoded command: INVALID_REQUEST.
	MaxCommandBytes = 512 << 10
	// MaxReasonBytes is the longest reason: INVALID_REQUEST.
	MaxReasonBytes = 1024
	// MaxActorBytes is the longest claimed actor: INVALID_REQUEST.
	MaxActorBytes = 253
	// MaxLabels, MaxLabelKeyBytes and MaxLabelValueBytes bound the labels of a
	// resource and of a filter: INVALID_REQUEST.
	MaxLabels          = 64
	MaxLabelKeyBytes   = 63
	MaxLabelValueBytes = 253
	// MinTTL and MaxTTL bound how long an override lasts: INVALID_REQUEST.
	MinTTL = time.Second
	MaxTTL = 30 * 24 * time.Hour

	// MaxPageSize is the most entries of a page, DefaultPageSize what 0 means.
	// More is refused: INVALID_REQUEST.
	MaxPageSize     = 1000
	DefaultPageSize = 100
	// MaxPageBytes ends a page early. A page has at least one entry.
	MaxPageBytes = 1 << 20

	// MinProgressInterval and MaxProgressInterval clamp what a watch asks for;
	// DefaultProgressInterval is what it gets when it does not ask.
	MinProgressInterval     = 100 * time.Millisecond
	MaxProgressInterval     = time.Minute
	DefaultProgressInterval = 5 * time.Second
	// MaxWatches is the most open watches of a server: TOO_MANY_WATCHES.
	MaxWatches = 10_000
	// DefaultSessions is how many sessions of instances a server takes unless it is
	// configured: TOO_MANY_SESSIONS.
	DefaultSessions = 10_000
	// MaxHelloTime is how long a new session may take to say who it is:
	// INVALID_REQUEST.
	MaxHelloTime = 10 * time.Second
	// MaxProblems is the most problems that are kept of an Ack, MaxProblemBytes the
	// longest message of one. The rest is left out; their number is kept.
	MaxProblems     = 32
	MaxProblemBytes = 512
	// ChunkBytes is where a chunk of a snapshot or delta is cut. A chunk is larger
	// only when a single resource is, and never larger than MaxPageBytes.
	ChunkBytes = 256 << 10
	// MaxConcurrentEncodes is how many chunks of snapshots are encoded at once;
	// further ones wait.
	MaxConcurrentEncodes = 4
	// MaxCachedChunks is how many encoded chunks are kept for the next watch that
	// needs the same one; the oldest is dropped.
	MaxCachedChunks = 64

	// MaxDirectMembers is how many members a pool may have before further instances
	// are relayed, and told so.
	MaxDirectMembers = 500
	// MaxEvidenceBytes is the largest record that an instance may hand in; a larger one
	// is dropped and counted.
	MaxEvidenceBytes = 1200
	// MaxEvidenceRate is how many records an instance may hand in each second, after a
	// first MaxEvidenceBurst; more are dropped and counted.
	MaxEvidenceRate  = 2
	MaxEvidenceBurst = 5
	// MaxEvidenceRecords is how many records of others a relayed instance is sent at
	// once; the rest follows after evidencePause.
	MaxEvidenceRecords = 48
	// MaxToldServices is how many services an instance is told the population of.
	MaxToldServices = 256
	// MaxVerifications is how many addresses of instances are verified at once; further
	// ones wait.
	MaxVerifications = 16
	// MaxCachedHeads is how many signed heads are kept for the next session that needs
	// the same one; the oldest is dropped.
	MaxCachedHeads = 2048
	// MaxFleetWatches is the most open watches of fleets of a server:
	// TOO_MANY_WATCHES.
	MaxFleetWatches = 256
	// MaxPolicyViews is of how many namespaces the policies are kept compiled for
	// those who look at fleets; all are dropped when there is one more.
	MaxPolicyViews = 64
	// MaxKeyIDBytes is the longest id of a gossip key: INVALID_REQUEST.
	MaxKeyIDBytes = 64

	// MaxAwait is the longest that AwaitRevision waits: INVALID_REQUEST.
	MaxAwait = 30 * time.Second
	// MaxInstancesWait is the longest that AwaitInstances waits: INVALID_REQUEST.
	MaxInstancesWait = 5 * time.Minute
	// MaxReadWait is how long a read waits for its revision or for a leader, if
	// its context allows: BEHIND, NO_LEADER.
	MaxReadWait = 10 * time.Second
	// MaxLeaderWait is how long a write waits for a leader, if its context
	// allows: NO_LEADER.
	MaxLeaderWait = 10 * time.Second
	// MaxWriteTime is how long a write that names no deadline may take:
	// UNKNOWN_OUTCOME.
	MaxWriteTime = time.Minute

	// MaxMessageBytes is the largest message that the server receives:
	// RESOURCE_EXHAUSTED by gRPC itself, without details.
	MaxMessageBytes = 4 << 20
	// MaxStreamsPerConnection is how many calls one connection may have open;
	// a client's further ones wait.
	MaxStreamsPerConnection = 2048

	// MaxBackupBytes is the largest backup that can be restored:
	// BACKUP_TOO_LARGE.
	MaxBackupBytes = 128 << 20
	// BackupPieceBytes is the size of a piece of a backup, and the largest piece
	// that a restore accepts: INVALID_REQUEST.
	BackupPieceBytes = 256 << 10
	// MaxBackups is how many backups a server streams at once: TOO_MANY_BACKUPS.
	MaxBackups = 2
	// MaxRestores is how many restores a server takes in at once:
	// TOO_MANY_RESTORES.
	MaxRestores = 1

	// MaxViolations and MaxViolationBytes bound the field violations of one
	// refusal, which travels in HTTP/2 trailers. The last one tells how many were
	// left out.
	MaxViolations     = 64
	MaxViolationBytes = 6 << 10

	// maxPeerConnections is how many connections to other servers are kept before
	// those to addresses that are no longer in the cluster are closed.
	maxPeerConnections = 16
)
