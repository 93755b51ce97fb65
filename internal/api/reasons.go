package api

// Domain is the domain of every ErrorInfo.
const Domain = "holdfast"

// Reasons of failures, beside those of package state. They are part of the
// contract: clients decide by them. One is never renamed or reused.
const (
	ReasonInvalidRequest    = "INVALID_REQUEST"
	ReasonInvalidPageToken  = "INVALID_PAGE_TOKEN"
	ReasonUnauthenticated   = "UNAUTHENTICATED"
	ReasonPermissionDenied  = "PERMISSION_DENIED"
	ReasonNotFound          = "NOT_FOUND"
	ReasonCancelled         = "CANCELLED"
	ReasonDeadlineExceeded  = "DEADLINE_EXCEEDED"
	ReasonNoLeader          = "NO_LEADER"
	ReasonNotLeader         = "NOT_LEADER"
	ReasonUnavailable       = "UNAVAILABLE"
	ReasonUnknownOutcome    = "UNKNOWN_OUTCOME"
	ReasonBehind            = "BEHIND"
	ReasonStale             = "STALE"
	ReasonFenced            = "FENCED"
	ReasonNotServing        = "NOT_SERVING"
	ReasonDraining          = "DRAINING"
	ReasonTooManyWatches    = "TOO_MANY_WATCHES"
	ReasonTooManySessions   = "TOO_MANY_SESSIONS"
	ReasonInstanceReplaced  = "INSTANCE_REPLACED"
	ReasonTooManyWaits      = "TOO_MANY_WAITS"
	ReasonForeignLineage    = "FOREIGN_LINEAGE"
	ReasonForkedEpoch       = "FORKED_EPOCH"
	ReasonTooManyBackups    = "TOO_MANY_BACKUPS"
	ReasonTooManyRestores   = "TOO_MANY_RESTORES"
	ReasonBackupInvalid     = "BACKUP_INVALID"
	ReasonBackupTooLarge    = "BACKUP_TOO_LARGE"
	ReasonMemberNotFound    = "MEMBER_NOT_FOUND"
	ReasonMemberBehind      = "MEMBER_BEHIND"
	ReasonMembershipRefused = "MEMBERSHIP_REFUSED"
	ReasonNoGossip          = "NO_GOSSIP"
	ReasonGossipKeyNotFound = "GOSSIP_KEY_NOT_FOUND"
	ReasonGossipKeyRefused  = "GOSSIP_KEY_REFUSED"
	ReasonInternal          = "INTERNAL"
)
