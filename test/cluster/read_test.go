package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
	"github.com/holdfast-dev/holdfast/test/cluster"
)

// list reads a whole namespace, linearizably, by kind and name.
func list(ctx context.Context, client holdfastv1.StateServiceClient, namespace string) (map[string]*holdfastv1.Resource, error) {
	found := make(map[string]*holdfastv1.Resource)
	req := &holdfastv1.ListRequest{
		Namespace: namespace, PageSize: 1000,
		Read: &holdfastv1.ReadOptions{Consistency: holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE},
	}
	for {
		page, err := client.List(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("list %q: %w", namespace, err)
		}
		for _, r := range page.GetResources() {
			found[cluster.ResourceName(r.GetKey().GetKind(), r.GetKey().GetName())] = r
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return found, nil
		}
	}
}

// listAll reads a namespace through every running server and requires that all
// of them have the same.
func listAll(t *testing.T, c *cluster.Cluster, namespace string) map[string]*holdfastv1.Resource {
	t.Helper()
	var first map[string]*holdfastv1.Resource
	for i := range c.Len() {
		if !c.Alive(i) {
			continue
		}
		got := get[map[string]*holdfastv1.Resource](t)(list(within(t, 30*time.Second), c.Client(i), namespace))
		if first == nil {
			first = got
			continue
		}
		if len(got) != len(first) {
			t.Errorf("server %d lists %d resources of %q, the first server %d", i, len(got), namespace, len(first))
		}
		for name, r := range first {
			if other := got[name]; other.GetModRevision() != r.GetModRevision() || string(other.GetSpec()) != string(r.GetSpec()) {
				t.Errorf("server %d has %s as %v, the first server %v", i, name, other, r)
			}
		}
	}
	return first
}

// auditor collects the audit piece by piece, so that a long test does not
// depend on how much the ring holds.
type auditor struct {
	records []*holdfastv1.AuditRecord // oldest first
	through uint64
}

// collect adds what is new, through one server.
func (a *auditor) collect(ctx context.Context, client holdfastv1.StateServiceClient) error {
	var fresh []*holdfastv1.AuditRecord // newest first
	req := &holdfastv1.ListAuditRequest{
		PageSize: 1000,
		Read:     &holdfastv1.ReadOptions{Consistency: holdfastv1.Consistency_CONSISTENCY_LINEARIZABLE},
	}
	for {
		page, err := client.ListAudit(ctx, req)
		if err != nil {
			return fmt.Errorf("list audit: %w", err)
		}
		if page.GetDroppedThrough() > a.through {
			return fmt.Errorf("audit up to %d was dropped, collected up to %d only", page.GetDroppedThrough(), a.through)
		}
		for _, r := range page.GetRecords() {
			if r.GetRevision() <= a.through {
				return a.add(fresh)
			}
			fresh = append(fresh, r)
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return a.add(fresh)
		}
	}
}

func (a *auditor) add(fresh []*holdfastv1.AuditRecord) error {
	for _, r := range slices.Backward(fresh) {
		if r.GetRevision() <= a.through {
			return fmt.Errorf("audit is out of order: revision %d after %d", r.GetRevision(), a.through)
		}
		if n := len(a.records); n > 0 && r.GetTime().AsTime().Before(a.records[n-1].GetTime().AsTime()) {
			return fmt.Errorf("state time went back: revision %d at %v, revision %d at %v", a.records[n-1].GetRevision(),
				a.records[n-1].GetTime().AsTime(), r.GetRevision(), r.GetTime().AsTime())
		}
		a.through = r.GetRevision()
		a.records = append(a.records, r)
	}
	return nil
}

// byRequest groups the collected records by request id.
func (a *auditor) byRequest() map[string][]*holdfastv1.AuditRecord {
	byID := make(map[string][]*holdfastv1.AuditRecord)
	for _, r := range a.records {
		byID[string(r.GetRequestId())] = append(byID[string(r.GetRequestId())], r)
	}
	return byID
}

// aged is a request as a client would repeat it now.
func aged(req *holdfastv1.ApplyRequest, age time.Duration) *holdfastv1.ApplyRequest {
	return &holdfastv1.ApplyRequest{
		RequestId: req.GetRequestId(), Age: durationpb.New(age), Operations: req.GetOperations(),
		Reason: req.GetReason(), DryRun: req.GetDryRun(), ClaimedActor: req.GetClaimedActor(),
	}
}
