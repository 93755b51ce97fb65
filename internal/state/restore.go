package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/seam"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// staged is a restore under way; it is immutable. Each chunk makes a new one
// that shares the bytes.
type staged struct {
	id      [16]byte
	size    uint64
	want    [32]byte // SHA-256 of the whole
	touched int64    // state time of the last progress
	chunks  [][]byte // only the newest value appends
	length  uint64
	sum     hash.Hash // over chunks; cloned before it goes on
}

// matches tells whether the bytes at offset are the given ones.
func (s *staged) matches(offset uint64, data []byte) bool {
	for _, chunk := range s.chunks {
		n := uint64(len(chunk))
		if offset >= n {
			offset -= n
			continue
		}
		rest := chunk[offset:]
		n = uint64(min(len(rest), len(data))) //nolint:gosec // lengths
		if !bytes.Equal(rest[:n], data[:n]) {
			return false
		}
		if data, offset = data[n:], 0; len(data) == 0 {
			return true
		}
	}
	return len(data) == 0
}

// append returns the restore with more bytes staged.
func (s *staged) append(data []byte, now int64) *staged {
	next := *s
	// A SHA-256 of the standard library can always be cloned.
	next.sum, _ = s.sum.(hash.Cloner).Clone()
	_, _ = next.sum.Write(data)
	next.chunks = append(next.chunks, data)
	next.length += uint64(len(data))
	next.touched = now
	return &next
}

// reader returns the staged bytes.
func (s *staged) reader() io.Reader {
	readers := make([]io.Reader, len(s.chunks))
	for i, chunk := range s.chunks {
		readers[i] = bytes.NewReader(chunk)
	}
	return io.MultiReader(readers...)
}

// resting tells whether a restore has not moved for so long that whoever began it
// must be gone.
func (d *draft) resting(s *staged) bool {
	return d.now-s.touched > d.limits.RestoreIdle.Milliseconds()
}

// dropResting gives back what a restore holds that nobody goes on with.
func (d *draft) dropResting() {
	if d.staged != nil && d.resting(d.staged) {
		d.staged = nil
	}
}

// restoreBegin opens a restore. The same one may begin again; another one only
// takes the place of one that is at rest.
func (d *draft) restoreBegin(b *storagev1.RestoreBegin) *Rejection {
	next := &staged{size: b.GetSizeBytes(), touched: d.now, sum: sha256.New()}
	if len(b.GetRestoreId()) != len(next.id) || len(b.GetSha256()) != len(next.want) {
		return reject(ReasonInvalidCommand, "the restore has no id of %d bytes or no SHA-256", len(next.id))
	}
	copy(next.id[:], b.GetRestoreId())
	copy(next.want[:], b.GetSha256())
	if next.size == 0 || next.size > d.limits.BackupBytes {
		return reject(ReasonRestoreTooLarge, "the backup has %d bytes; 1 to %d are allowed", next.size, d.limits.BackupBytes)
	}
	if s := d.staged; s != nil {
		if s.id == next.id && s.size == next.size && s.want == next.want {
			return nil
		}
		if !d.resting(s) {
			return reject(ReasonRestoreBusy, "another restore is under way; it gives way after resting for %s", d.limits.RestoreIdle)
		}
	}
	d.staged = next
	return nil
}

// restoring returns the restore under way if it is the named one.
func (d *draft) restoring(id []byte) (*staged, *Rejection) {
	if d.staged == nil || !bytes.Equal(d.staged.id[:], id) {
		return nil, reject(ReasonRestoreUnknown, "no such restore is under way")
	}
	return d.staged, nil
}

// restoreChunk stages bytes. Bytes that are there already may come again.
func (d *draft) restoreChunk(b *storagev1.RestoreChunk) *Rejection {
	s, rejection := d.restoring(b.GetRestoreId())
	if rejection != nil {
		return rejection
	}
	n, offset := uint64(len(b.GetData())), b.GetOffset()
	if n == 0 || len(b.GetData()) > d.limits.ChunkBytes {
		return reject(ReasonInvalidCommand, "the chunk has %d bytes; 1 to %d are allowed", n, d.limits.ChunkBytes)
	}
	if offset > s.size || n > s.size-offset {
		return reject(ReasonRestoreTooLarge, "the chunk reaches beyond the announced %d bytes", s.size)
	}
	switch {
	case offset == s.length:
		d.staged = s.append(b.GetData(), d.now)
		return nil
	case offset < s.length && n <= s.length-offset && s.matches(offset, b.GetData()):
		return nil
	}
	r := reject(ReasonRestoreOutOfOrder, "the chunk begins at %d, but %d bytes are staged", offset, s.length)
	r.Actual = s.length
	return r
}

// restoreAbort drops the restore. One that is not under way is aborted already.
func (d *draft) restoreAbort(b *storagev1.RestoreAbort) {
	if _, unknown := d.restoring(b.GetRestoreId()); unknown == nil {
		d.staged = nil
	}
}

// restoreCommit swaps the staged backup in, or drops it if it is no good.
func (d *draft) restoreCommit(cmd *storagev1.Command, b *storagev1.RestoreCommit) ([]string, *Rejection) {
	s, rejection := d.restoring(b.GetRestoreId())
	if rejection != nil {
		return nil, rejection
	}
	if s.length != s.size {
		r := reject(ReasonRestoreIncomplete, "%d of %d bytes are staged", s.length, s.size)
		r.Actual = s.length
		return nil, r
	}
	d.staged = nil
	if !bytes.Equal(s.sum.Sum(nil), s.want[:]) {
		return nil, reject(ReasonRestoreCorrupt, "the backup does not have the announced SHA-256")
	}
	// The version of the command decides what is too new, not that of this
	// server: others may be older. What is wrong in detail is not told: messages
	// of libraries differ between servers.
	backup, err := readView(s.reader(), d.limits, cmd.GetVersion())
	var tooMuch *Rejection
	switch {
	case errors.As(err, &tooMuch):
		return nil, tooMuch
	case errors.Is(err, ErrUnknownFormat):
		return nil, reject(ReasonRestoreUnknownFormat, "the backup was written by a newer version")
	case err != nil:
		return nil, reject(ReasonRestoreCorrupt, "the backup is damaged")
	case !backup.epoch.HasLineage():
		return nil, reject(ReasonRestoreCorrupt, "the backup belongs to no cluster")
	}
	return d.swapIn(backup, cmd, b.GetNonce()), nil
}

// swapIn replaces the resources by those of a backup, in a new epoch. Resources
// keep their revisions, so the roots are those of the backup. The clocks are
// this cluster's own; state time goes on from the later one.
func (d *draft) swapIn(backup *View, cmd *storagev1.Command, nonce uint64) []string {
	own := d.seal()
	d.epoch = document.Epoch{Lineage: backup.epoch.Lineage, Counter: backup.epoch.Counter + 1, Nonce: nonce}
	if own.epoch.Lineage == backup.epoch.Lineage {
		d.epoch.Counter = max(own.epoch.Counter, backup.epoch.Counter) + 1
	}
	if seam.Bug(seam.RestoreKeepsEpoch) {
		d.epoch = own.epoch
	}
	d.revision = max(own.revision, backup.revision) + 1
	d.now = max(own.now, backup.now)
	d.namespaces, d.ends, d.graves = backup.namespaces, backup.ends, backup.graves
	d.declared, d.overrides = backup.declared, backup.overrides
	d.history = hasher(nil).raw(own.history[:]).text("restore").raw(backup.history[:]).sum()
	d.forgetEmpty()
	d.mergeAudit(own, backup)
	d.mergeOutcomes(backup)
	by := d.author(cmd)
	d.record(&AuditRecord{
		Revision: d.revision, Time: d.now, Actor: by.actor, ActorVerified: by.verified,
		Reason: by.reason, RequestID: cmd.GetRequestId(),
	}, nil)
	touched := slices.Concat(own.Namespaces(), d.Namespaces())
	slices.Sort(touched)
	return slices.Compact(touched)
}

// forgetEmpty drops the namespaces without resources. It can be done here and
// only here: no cursor of the new epoch lies before it.
func (d *draft) forgetEmpty() {
	var empty []*content
	for _, c := range d.namespaces.All() {
		if c.byKey.Len() == 0 {
			empty = append(empty, c)
		}
	}
	for _, c := range empty {
		for key, t := range c.dead.All() {
			d.graves.Delete(d.edit, queued{t.Revision, place{c.name, key}})
		}
		d.namespaces.Delete(d.edit, btree.Text(c.name))
	}
}

// mergeAudit keeps the audit of the lineage that goes on: the own one and what
// the backup has after it, or all of the backup's if the lineage is another.
func (d *draft) mergeAudit(own, backup *View) {
	after := own.revision
	if own.epoch.Lineage != backup.epoch.Lineage {
		d.audit, d.auditBytes, d.auditDropped = fifo[*AuditRecord]{}, 0, backup.auditDropped
		after = 0
	}
	for i := range backup.audit.len() {
		r := backup.audit.at(i)
		if r.Revision <= after {
			continue
		}
		d.audit.push(r)
		d.auditBytes += r.size()
	}
}

// mergeOutcomes keeps the own outcomes and appends those of the backup that are
// missing, as if they had been committed now. From here on a request that was
// begun before the restore is found or refused, never applied: it may have been
// applied in the history that was left, or in the one that was restored, and
// been dropped in either.
//
// A request begun after the restore must pass in spite of its slack, so the
// horizon is put that much earlier. What the backup had dropped was applied at
// least the slack before the commit all the same, unless it was dropped young.
// What the history that was left applied in that last second is known from the
// own outcomes; a new cluster has none, so it must not begin within it.
func (d *draft) mergeOutcomes(backup *View) {
	for i := range backup.outcomes.len() {
		k := *backup.outcomes.at(i)
		if _, ok := d.requests[k.id]; !ok {
			k.lived = d.lived
			d.keep(&k)
		}
	}
	horizon := d.lived
	if backup.horizon < backup.lived-ageErrorMs {
		horizon -= ageErrorMs + 1
	}
	d.horizon = max(d.horizon, horizon)
}
