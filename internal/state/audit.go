package state

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// AuditRecord is one committed write. It is immutable.
type AuditRecord struct {
	// Revision is the one that the write made.
	Revision uint64
	// Time is state time in milliseconds since 1970.
	Time int64
	// Actor is who, proven by a certificate or not; Reason is why.
	Actor         string
	ActorVerified bool
	Reason        string
	// RequestID is empty for what the cluster did itself.
	RequestID []byte
	// Changes are what. A restore has none: it replaces everything.
	Changes []AuditChange
}

// AuditChange is one change of one resource.
type AuditChange struct {
	Namespace string
	document.Key
	Type document.ChangeType
	// Before and After are the definitions, shared with the resources. Before is
	// also empty where it did not fit into the record.
	Before, After []byte
}

// Overheads of what is kept, besides its texts.
const (
	auditOverhead       = 160
	auditChangeOverhead = 112
)

// size returns the bytes that the record counts against the limit. It counts
// definitions although they are shared, because they outlive the resources.
func (r *AuditRecord) size() int {
	n := auditOverhead + len(r.Actor) + len(r.Reason) + len(r.RequestID)
	for i := range r.Changes {
		c := &r.Changes[i]
		n += auditChangeOverhead + len(c.Namespace) + len(c.Name) + len(c.Before) + len(c.After)
	}
	return n
}

// Proto returns the wire form. It shares the bytes of the definitions.
func (r *AuditRecord) Proto() *holdfastv1.AuditRecord {
	p := &holdfastv1.AuditRecord{
		Revision:  r.Revision,
		Time:      timestamppb.New(time.UnixMilli(r.Time)),
		Actor:     &holdfastv1.Actor{Name: r.Actor, Verified: r.ActorVerified},
		Reason:    r.Reason,
		RequestId: r.RequestID,
		Changes:   make([]*holdfastv1.AuditChange, len(r.Changes)),
	}
	for i := range r.Changes {
		c := &r.Changes[i]
		p.Changes[i] = &holdfastv1.AuditChange{
			Key: c.Proto(c.Namespace), Type: c.Type.Proto(), Before: c.Before, After: c.After,
		}
	}
	return p
}

func auditFromProto(p *holdfastv1.AuditRecord) *AuditRecord {
	r := &AuditRecord{
		Revision:      p.GetRevision(),
		Time:          p.GetTime().AsTime().UnixMilli(),
		Actor:         p.GetActor().GetName(),
		ActorVerified: p.GetActor().GetVerified(),
		Reason:        p.GetReason(),
		RequestID:     p.GetRequestId(),
	}
	if n := len(p.GetChanges()); n > 0 {
		r.Changes = make([]AuditChange, n)
	}
	for i, c := range p.GetChanges() {
		r.Changes[i] = AuditChange{
			Namespace: c.GetKey().GetNamespace(),
			Key:       document.Key{Kind: document.Kind(c.GetKey().GetKind()), Name: c.GetKey().GetName()}, //nolint:gosec // written from a Kind
			Type:      document.ChangeType(c.GetType()),                                                    //nolint:gosec // written from a ChangeType
			Before:    c.GetBefore(),
			After:     c.GetAfter(),
		}
	}
	return r
}

// fit leaves out definitions before a change until the record is within the
// limit. The definitions after it came with the command and are small enough.
func (r *AuditRecord) fit(limit int) {
	over := r.size() - limit
	for i := len(r.Changes) - 1; i >= 0 && over > 0; i-- {
		over -= len(r.Changes[i].Before)
		r.Changes[i].Before = nil
	}
}
