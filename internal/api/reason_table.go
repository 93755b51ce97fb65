package api

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/state"
)

// Reasons returns the table of failures, as docs/errors.md lists it. Failures of
// gRPC itself, such as a message over the limit, carry no reason.
func Reasons() []ReasonInfo { return slices.Clone(reasonTable) }

// rowOf returns the row of a reason.
func rowOf(reason string) (ReasonInfo, bool) {
	for _, row := range reasonTable {
		if row.Reason == reason {
			return row, true
		}
	}
	return ReasonInfo{}, false
}

const (
	soon  = 100 * time.Millisecond
	later = time.Second
)

var reasonTable = []ReasonInfo{ //nolint:gochecknoglobals // a table, never changed
	// The request.
	{ReasonInvalidRequest, codes.InvalidArgument, Definite, 0, "The request is not well formed. Its BadRequest lists every field at fault."},
	{ReasonInvalidPageToken, codes.InvalidArgument, Definite, 0, "The page token is damaged or belongs to another request. Begin with the first page."},
	{ReasonUnauthenticated, codes.Unauthenticated, Definite, 0, "The client certificate is missing or names no identity of Holdfast."},
	{ReasonPermissionDenied, codes.PermissionDenied, Definite, 0, "The role of the certificate may not call this method."},
	{ReasonNotFound, codes.NotFound, Definite, 0, "There is no such resource at the revision that was read."},
	{ReasonCancelled, codes.Canceled, Definite, 0, "The caller gave up before anything was done."},
	{ReasonDeadlineExceeded, codes.DeadlineExceeded, Definite, 0, "The caller's time was over before anything was done."},

	// The transaction.
	{state.ReasonRevisionMismatch, codes.FailedPrecondition, Definite, 0, "A resource does not have the expected revision; actual_revision tells which it has. Read it again and decide anew."},
	{state.ReasonRequestTooOld, codes.FailedPrecondition, Unknown, 0, "The first attempt is so old that its outcome is no longer known. This attempt was not applied, an earlier one may have been. Read, and write under a new request id if need be."},
	{state.ReasonRequestIDReused, codes.InvalidArgument, Definite, 0, "The request id names another write. Draw a new one for each write; repeat it only with the same body."},
	{state.ReasonInvalidCommand, codes.InvalidArgument, Definite, 0, "The state machine refused the form of the command, which validation let pass."},
	{state.ReasonCommandTooLarge, codes.InvalidArgument, Definite, 0, "The encoded transaction is over the limit. Split it."},
	{state.ReasonStateFull, codes.ResourceExhausted, Definite, 0, "The write would exceed the bytes that the state may hold. Delete something first."},
	{state.ReasonTooManyResources, codes.ResourceExhausted, Definite, 0, "The write would exceed the number of flags, modes and policies. Delete some first."},
	{state.ReasonTooManyOverrides, codes.ResourceExhausted, Definite, 0, "The write would exceed the number of overrides. End some first."},
	{state.ReasonTooManyNamespaces, codes.ResourceExhausted, Definite, 0, "The write would exceed the number of namespaces."},

	// The cluster.
	{ReasonNoLeader, codes.Unavailable, Definite, later, "No leader could be reached. Nothing was written; retry."},
	{ReasonNotLeader, codes.Unavailable, Definite, soon, "Only the leader can do this, and this server is not the leader; leader names it where known. Servers forward, so clients see it only while leaders change."},
	{ReasonUnavailable, codes.Unavailable, Definite, later, "The leader could not take the request. Nothing was written; retry."},
	{ReasonUnknownOutcome, codes.Unavailable, Unknown, soon, "The write may or may not have been applied. Retry with the same request id and its age: it is applied once."},
	{ReasonBehind, codes.Unavailable, Definite, later, "This server has not reached the revision in time; revision tells where it is. Ask another server, or wait longer."},
	{ReasonStale, codes.Unavailable, Definite, later, "This server may be further behind the leader than the read allows. Ask another server."},
	{ReasonFenced, codes.Unavailable, Definite, 0, "This server has found that its state differs from that of the others and answers nothing from it. Use another server; replace this one."},
	{ReasonNotServing, codes.Unavailable, Definite, later, "This server belongs to no cluster yet, or is being recovered."},
	{ReasonDraining, codes.Unavailable, Definite, soon, "This server is shutting down. Use another one."},

	// Watches and sessions.
	{ReasonTooManyWatches, codes.ResourceExhausted, Definite, later, "This server has as many watches as it takes. Use another one."},
	{ReasonTooManySessions, codes.ResourceExhausted, Definite, later, "This server has as many sessions of instances as it takes. Use another one."},
	{ReasonInstanceReplaced, codes.AlreadyExists, Definite, 0, "Another process has a session under this instance's id, and is newer or has another certificate. Go on under another id."},
	{ReasonTooManyWaits, codes.ResourceExhausted, Definite, later, "This server counts instances for as many callers as it can. Retry, or use another one."},
	{ReasonForeignLineage, codes.FailedPrecondition, Definite, 0, "The cursor is from another cluster. Check the address; if it is right, watch without a cursor."},
	{ReasonForkedEpoch, codes.FailedPrecondition, Definite, 0, "The cursor's epoch has the number of this cluster's and is another: two clusters descend from one. Find out which is right before watching without a cursor."},

	// Backup and restore.
	{ReasonTooManyBackups, codes.ResourceExhausted, Definite, later, "This server streams as many backups as it takes."},
	{ReasonTooManyRestores, codes.ResourceExhausted, Definite, later, "This server is taking in another restore."},
	{ReasonBackupInvalid, codes.InvalidArgument, Definite, 0, "The backup is damaged, cut short, or of a newer version. Nothing was changed."},
	{ReasonBackupTooLarge, codes.ResourceExhausted, Definite, 0, "The backup is over the limit. Nothing was changed."},
	{state.ReasonRestoreBusy, codes.Aborted, Definite, later, "Another restore is under way in the cluster."},
	{state.ReasonRestoreUnknown, codes.Aborted, Definite, 0, "Another restore took the place of this one. Nothing was changed; begin again."},
	{state.ReasonRestoreTooLarge, codes.ResourceExhausted, Definite, 0, "The cluster refuses the size of the backup. Nothing was changed."},
	{state.ReasonRestoreOutOfOrder, codes.Aborted, Definite, 0, "A piece of the backup did not continue what was there. Nothing was changed; begin again."},
	{state.ReasonRestoreIncomplete, codes.Aborted, Definite, 0, "A piece of the backup is missing. Nothing was changed; begin again."},
	{state.ReasonRestoreCorrupt, codes.InvalidArgument, Definite, 0, "The cluster found the backup damaged. Nothing was changed."},
	{state.ReasonRestoreUnknownFormat, codes.InvalidArgument, Definite, 0, "The backup was made by a newer version. Nothing was changed."},

	// Membership.
	{ReasonMemberNotFound, codes.NotFound, Definite, 0, "The cluster has no server with this id."},
	{ReasonMemberBehind, codes.FailedPrecondition, Definite, later, "The server has not caught up and cannot vote yet."},
	{ReasonMembershipRefused, codes.FailedPrecondition, Definite, 0, "The change would endanger the cluster, or does not fit its members."},

	// The fleet.
	{ReasonNoGossip, codes.FailedPrecondition, Definite, 0, "This server is not in the gossip pool of the namespace, and cannot be; the message says why. Ask another one."},
	{ReasonGossipKeyNotFound, codes.NotFound, Definite, 0, "The pool has no key with this id. List the keys."},
	{ReasonGossipKeyRefused, codes.FailedPrecondition, Definite, 0, "The step would cut members off, or there is nothing to rotate: the pool is plaintext or has as many keys as it may have, or it encrypts with the key to be removed."},

	{ReasonInternal, codes.Internal, Unknown, 0, "A defect of the server. Its log tells more."},
}
