package api

import (
	"context"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// ListAudit returns a page of who changed what and why, newest first.
func (s *stateService) ListAudit(ctx context.Context, req *holdfastv1.ListAuditRequest) (*holdfastv1.ListAuditResponse, error) {
	var v violations
	a := auditing{
		namespace: req.GetNamespace(),
		kinds:     v.kinds("kind", req.GetKind()),
		prefix:    req.GetNamePrefix(),
		size:      v.checkPage(req.GetPageSize()),
	}
	v.prefix("namespace", req.GetNamespace())
	v.prefix("name_prefix", req.GetNamePrefix())
	s.reader.check(&v, req.GetRead())
	if err := v.err(); err != nil {
		return nil, err
	}
	token, err := parsePageToken(req.GetPageToken(), a.filter())
	if err != nil {
		return nil, err
	}
	view, err := s.reader.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	resp := &holdfastv1.ListAuditResponse{Header: s.reader.header(view), DroppedThrough: view.AuditDroppedThrough()}
	resp.Records, resp.NextPageToken = a.page(view, token)
	return resp, nil
}

// auditing is what a list of the audit asks for.
type auditing struct {
	namespace string // empty means every namespace
	kinds     []document.Kind
	prefix    string
	size      int
}

// filter identifies the question in page tokens.
func (a *auditing) filter() [8]byte {
	parts := []string{"audit", a.namespace, a.prefix}
	for _, k := range a.kinds {
		parts = append(parts, k.String())
	}
	return filterOf(parts...)
}

// page returns the records before the token's, and the token of the next page,
// which is empty when nothing is left.
func (a *auditing) page(view *state.View, token pageToken) (records []*holdfastv1.AuditRecord, next string) {
	upTo := uint64(math.MaxUint64)
	if token.below > 0 {
		upTo = token.below - 1
	}
	bytes := 0
	for r := range view.Audit(upTo) {
		p, ok := a.match(r)
		if !ok {
			continue
		}
		size := proto.Size(p)
		if len(records) == a.size || len(records) > 0 && bytes+size > MaxPageBytes {
			return records, token.String()
		}
		records, bytes = append(records, p), bytes+size
		token.below = r.Revision
	}
	return records, ""
}

// match returns the record with the changes that were asked for. A record
// without any change, which is that of a restore, concerns everything.
func (a *auditing) match(r *state.AuditRecord) (*holdfastv1.AuditRecord, bool) {
	wanted := func(c state.AuditChange) bool {
		return (a.namespace == "" || c.Namespace == a.namespace) &&
			slices.Contains(a.kinds, c.Kind) && strings.HasPrefix(c.Name, a.prefix)
	}
	if len(r.Changes) > 0 && !slices.ContainsFunc(r.Changes, wanted) {
		return nil, false
	}
	p := r.Proto()
	changes := p.GetChanges()[:0]
	for i, c := range p.GetChanges() {
		if wanted(r.Changes[i]) {
			changes = append(changes, c)
		}
	}
	p.Changes = changes
	return p, true
}
