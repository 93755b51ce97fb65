// Package mirror is what an instance holds of its namespace: resources, their
// Merkle tree, epoch and revision.
//
// Everything here is a value. A Mirror never changes, so it can be written to disk
// while the next one is made; nothing reads a clock, starts a goroutine or does I/O.
//
// A server tells of a namespace in messages, as Watch and Connect have them. An
// Assembler makes an Update of the chunks, Mirror.Apply checks the update and takes
// it in:
//
//   - the epoch is the own one or a later one of the same lineage, and the revision
//     never goes back behind the own one or behind the floor: ErrForeign,
//     ErrOlderEpoch, ErrForked, ErrBehind;
//   - a difference begins where the mirror is, or before: ErrGap;
//   - the Merkle root that results is the one that was told: ErrRoot.
//
// After ErrGap and ErrRoot a snapshot is needed; see NeedsSnapshot. Whatever the
// error, the mirror stays as it was.
package mirror
