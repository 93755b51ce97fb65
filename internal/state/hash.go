package state

import (
	"crypto/sha256"
	"encoding/binary"
)

// hasher collects what is hashed. Everything of variable length carries its
// length, so no two contents look the same.
type hasher []byte

func (h hasher) byte(b byte) hasher     { return append(h, b) }
func (h hasher) raw(b []byte) hasher    { return append(h, b...) }
func (h hasher) number(n uint64) hasher { return binary.BigEndian.AppendUint64(h, n) }
func (h hasher) time(ms int64) hasher   { return h.number(uint64(ms)) } //nolint:gosec // a bit pattern

func (h hasher) bytes(b []byte) hasher { return append(binary.AppendUvarint(h, uint64(len(b))), b...) }

func (h hasher) text(s string) hasher { return append(binary.AppendUvarint(h, uint64(len(s))), s...) }

func (h hasher) bool(b bool) hasher {
	if b {
		return h.byte(1)
	}
	return h.byte(0)
}

func (h hasher) sum() [32]byte { return sha256.Sum256(h) }

// hashOutcome continues the running hash with an outcome: with its reason, not
// with its message.
func hashOutcome(history [32]byte, k *kept) [32]byte {
	var space [512]byte
	h := hasher(space[:0]).raw(history[:]).text("outcome").raw(k.id[:]).raw(k.body[:])
	h = h.time(k.lived).number(k.outcome.Revision).number(uint64(len(k.outcome.Changes)))
	for _, c := range k.outcome.Changes {
		h = h.byte(byte(c))
	}
	if r := k.outcome.Rejection; r != nil {
		h = h.text(r.Reason).time(int64(r.Step)).number(r.Actual)
	}
	return h.sum()
}

// hashRecord continues the running hash with an audit record. The hashes are
// those of the resources after each change.
func hashRecord(history [32]byte, r *AuditRecord, hashes [][32]byte) [32]byte {
	var space [1024]byte
	h := hasher(space[:0]).raw(history[:]).text("audit").number(r.Revision).time(r.Time)
	h = h.text(r.Actor).bool(r.ActorVerified).text(r.Reason).bytes(r.RequestID)
	for i := range r.Changes {
		c := &r.Changes[i]
		h = h.text(c.Namespace).byte(byte(c.Kind)).text(c.Name).byte(byte(c.Type)).raw(hashes[i][:])
	}
	return h.sum()
}

// Hash returns the hash of all replicated state: epoch, revision, clocks,
// namespaces, a staged restore, and the running hash over outcomes and audit
// records. Servers that applied the same commands have the same one. It takes
// time in the number of namespaces, not of resources.
func (v *View) Hash() [32]byte {
	var space [2048]byte
	h := hasher(space[:0]).text("holdfast/state/1")
	h = h.raw(v.epoch.Lineage[:]).number(v.epoch.Counter).number(v.epoch.Nonce)
	h = h.number(v.revision).time(v.now).time(v.lived).time(v.horizon).number(v.term)
	h = h.raw(v.history[:]).number(v.auditDropped)
	h = h.number(uint64(v.outcomes.len())).number(uint64(v.audit.len()))
	h = h.number(uint64(v.namespaces.Len()))
	for _, c := range v.namespaces.All() {
		root := c.merkle.Root()
		h = h.text(c.name).raw(root[:]).number(c.modRevision).number(c.floor)
		h = h.number(uint64(c.byKey.Len())).number(uint64(c.dead.Len()))
	}
	if s := v.staged; s != nil {
		h = h.raw(s.id[:]).number(s.size).raw(s.want[:]).time(s.touched)
		h = h.number(s.length).raw(s.sum.Sum(nil))
	}
	return h.sum()
}
