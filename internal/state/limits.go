package state

import "time"

// Version is the highest command version that this package understands. A
// command with a higher one stops the server instead of being skipped.
const Version = 1

// Limits bound the state. They are part of what all servers must agree on: a
// server with others would refuse what the rest accept. They are a value only
// so that tests can reach them.
type Limits struct {
	// Namespaces is how many namespaces there may be. One that became empty
	// counts until the next restore, because cursors into it stay valid.
	Namespaces int
	// Declared and DeclaredBytes bound flags, modes and policies.
	Declared, DeclaredBytes int
	// Overrides and OverrideBytes bound overrides. They have a share of their
	// own, so that a state full of flags cannot keep anybody from ending an
	// incident.
	Overrides, OverrideBytes int
	// Command is the longest command in bytes; Steps its most steps; TTL the
	// longest life of an override.
	Command, Steps int
	TTL            time.Duration
	// AuditBytes bounds the audit; AuditRecordBytes the definitions kept in one
	// record. Definitions before a change that do not fit are left out.
	AuditBytes, AuditRecordBytes int
	// Outcomes, OutcomeBytes and OutcomeAge bound the outcomes kept for retries.
	Outcomes, OutcomeBytes int
	OutcomeAge             time.Duration
	// Tombstones is how many deletions are remembered for deltas.
	Tombstones int
	// BackupBytes is the largest backup that can be restored, ChunkBytes the
	// longest piece of it, and RestoreIdle how long a restore may rest before it
	// gives way to another one, or is dropped by a tick.
	BackupBytes uint64
	ChunkBytes  int
	RestoreIdle time.Duration
}

// DefaultLimits returns the limits of every server.
func DefaultLimits() Limits {
	return Limits{
		Namespaces:       1_024,
		Declared:         100_000,
		DeclaredBytes:    60 << 20,
		Overrides:        10_000,
		OverrideBytes:    4 << 20,
		Command:          512 << 10,
		Steps:            1_024,
		TTL:              366 * 24 * time.Hour,
		AuditBytes:       16 << 20,
		AuditRecordBytes: 1 << 20,
		Outcomes:         262_144,
		OutcomeBytes:     32 << 20,
		OutcomeAge:       10 * time.Minute,
		Tombstones:       65_536,
		BackupBytes:      128 << 20,
		ChunkBytes:       256 << 10,
		RestoreIdle:      2 * time.Minute,
	}
}
