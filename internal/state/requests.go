package state

import (
	"math"

	"github.com/holdfast-dev/holdfast/internal/seam"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// requestID names a write.
type requestID [16]byte

// kept is an outcome that is kept for retries; it is immutable.
type kept struct {
	id      requestID
	body    [32]byte
	lived   int64 // of the commit
	outcome Outcome
}

// ageSlackMs is how much later than measured a retry may arrive, on its way from
// where its age was measured to where it is stamped.
const ageSlackMs = 1_000

// ageErrorMs is the slack and what is lost by counting in whole milliseconds: in
// the age, in its hundredth, and between two stamps.
const ageErrorMs = ageSlackMs + 5

// Overheads of a kept outcome. The message of a rejection counts as the longest
// there is, because its wording is not the same in every version.
const (
	outcomeOverhead   = 192
	rejectionOverhead = 640
)

func (k *kept) size() int {
	n := outcomeOverhead + len(k.outcome.Changes)
	if k.outcome.Rejection != nil {
		n += rejectionOverhead
	}
	return n
}

// recall returns the outcome of a request that was applied before, nil if it was
// not, or why that is not known.
//
// It is known because of this: a request that was applied and whose outcome was
// dropped was applied at a lived time of at most horizon, hence first tried
// before that. Less lived time than real time has gone by since, and its age is
// at least that real time less ageErrorMs and the drift of the client's clock.
// So the first attempt computed here lies at or before horizon too.
//
// The slack has to cover what becomes of a command between the measuring of its
// age and its place in the log, and so how much later a leader may append it
// than others which it stamped later.
func (d *draft) recall(id requestID, body [32]byte, ageMs int64) (*kept, *Rejection) {
	if k, ok := d.requests[id]; ok && !seam.Bug(seam.RetriesApplied) {
		if k.body != body {
			return nil, reject(ReasonRequestIDReused, "the request id was used for another write at revision %d", k.outcome.Revision)
		}
		return k, nil
	}
	if firstAttempt(d.lived, ageMs) <= d.horizon {
		return nil, reject(ReasonRequestTooOld, "the request may have been applied already, so long ago that it is not known any more")
	}
	return nil, nil //nolint:nilnil // a new request: neither known nor refused
}

// firstAttempt returns the lived time at or before which a request was first
// tried.
func firstAttempt(lived, ageMs int64) int64 {
	const most = math.MaxInt64 / 4
	age := min(max(ageMs, 0), most)
	return lived - age - age/100 - ageErrorMs
}

// keep keeps an outcome and drops what is over the limits.
func (d *draft) keep(k *kept) {
	d.requests[k.id] = k
	d.outcomes.push(k)
	d.outcomeBytes += k.size()
	d.history = hashOutcome(d.history, k)
	for d.outcomes.len() > d.limits.Outcomes || d.outcomeBytes > d.limits.OutcomeBytes {
		d.forget()
	}
}

// forgetOld drops the outcomes that have lived long enough.
func (d *draft) forgetOld() {
	oldest := d.lived - d.limits.OutcomeAge.Milliseconds()
	for d.outcomes.len() > 0 && d.outcomes.at(0).lived <= oldest {
		d.forget()
	}
}

func (d *draft) forget() {
	k := d.outcomes.pop()
	delete(d.requests, k.id)
	d.outcomeBytes -= k.size()
	d.horizon = max(d.horizon, k.lived)
}

// bodyHash returns the hash of what the command says, without what differs
// between its attempts. It has an encoding of its own, because that of protobuf
// is not the same in every version of the library.
func bodyHash(cmd *storagev1.Command) [32]byte {
	var space [1024]byte
	h := hasher(append(space[:0], "holdfast/body/1\x00"...))
	switch body := cmd.Body.(type) {
	case *storagev1.Command_Transaction:
		h = h.byte(1).number(uint64(len(body.Transaction.GetSteps())))
		for _, s := range body.Transaction.GetSteps() {
			h = h.step(s)
		}
	case *storagev1.Command_Tick:
		h = h.byte(2)
	case *storagev1.Command_Expire:
		h = h.byte(3)
	case *storagev1.Command_RestoreBegin:
		b := body.RestoreBegin
		h = h.byte(4).bytes(b.GetRestoreId()).number(b.GetSizeBytes()).bytes(b.GetSha256())
	case *storagev1.Command_RestoreChunk:
		b := body.RestoreChunk
		h = h.byte(5).bytes(b.GetRestoreId()).number(b.GetOffset()).bytes(b.GetData())
	case *storagev1.Command_RestoreCommit:
		h = h.byte(6).bytes(body.RestoreCommit.GetRestoreId()).number(body.RestoreCommit.GetNonce())
	case *storagev1.Command_RestoreAbort:
		h = h.byte(7).bytes(body.RestoreAbort.GetRestoreId())
	case *storagev1.Command_NewEpoch:
		h = h.byte(8).bytes(body.NewEpoch.GetLineage()).number(body.NewEpoch.GetNonce())
	}
	return h.sum()
}

func (h hasher) step(s *storagev1.Step) hasher {
	h = h.text(s.GetKey().GetNamespace()).number(uint64(s.GetKey().GetKind())).text(s.GetKey().GetName()) //nolint:gosec // a bit pattern
	h = h.bool(s.GetDelete()).bool(s.ExpectedRevision != nil).number(s.GetExpectedRevision())
	h = h.bytes(s.GetSpec()).number(uint64(s.GetTtlMs())).number(uint64(len(s.GetLabels()))) //nolint:gosec // a bit pattern
	for _, l := range s.GetLabels() {
		h = h.text(l.GetKey()).text(l.GetValue())
	}
	return h
}
