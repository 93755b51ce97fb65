package service

import (
	"context"

	"github.com/holdfast-dev/holdfast/examples/shop/shoppb"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

// inspection tells how the instance is, from what the SDK knows.
type inspection struct {
	shoppb.UnimplementedInspectionServer

	in *instance
}

// Report tells what the instance obeys and how its dependencies are.
func (i *inspection) Report(context.Context, *shoppb.ReportRequest) (*shoppb.ReportResponse, error) {
	cp := i.in.cp
	status := cp.Status()
	report := &shoppb.ReportResponse{
		Instance: status.InstanceID, Service: status.Service, Source: string(status.Source), Revision: status.Revision,
		Connected: status.Connected, Server: status.Server, Level: cp.Mode(Mode).Level().Name, Problems: status.Problems,
	}
	for _, dependency := range cp.Stats().Dependencies {
		d := &shoppb.Dependency{Name: dependency.Name, Limit: int32(dependency.Limit), InUse: int32(dependency.InUse)}
		for _, target := range dependency.Targets {
			d.Breakers = append(d.Breakers, &shoppb.Breaker{
				Target: target.Name, State: target.Breaker.State.String(), Rejected: target.Rejected[client.BreakerOpen],
				CrowdedOut: target.Rejected[client.BulkheadFull] + target.Rejected[client.BulkheadTimeout],
			})
		}
		report.Dependencies = append(report.Dependencies, d)
	}
	if i.in.pending != nil {
		report.PendingPayments = int32(i.in.pending())
	}
	return report, nil
}
