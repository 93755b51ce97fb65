package api

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

func healthOf(t *testing.T, n *node, service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := grpc_health_v1.NewHealthClient(n.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetStatus()
}

func TestHealthFollowsTheReplica(t *testing.T) {
	n := single(t)
	for _, service := range services() {
		if got := healthOf(t, n, service); got != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q = %v", service, got)
		}
	}
	n.replica.set(func(r *fakeReplica) { r.serving = errors.New("recovery is pending") })
	eventually(t, "NOT_SERVING", func() bool { return healthOf(t, n, "") == grpc_health_v1.HealthCheckResponse_NOT_SERVING })
	_, err := n.state.Apply(t.Context(), transactionOf(flag("a", `1`)))
	expect(t, err, ReasonNotServing)
	n.replica.set(func(r *fakeReplica) { r.serving = nil })
	eventually(t, "SERVING", func() bool { return healthOf(t, n, "") == grpc_health_v1.HealthCheckResponse_SERVING })
}

func TestReflection(t *testing.T) {
	n := single(t)
	stream, err := reflectionv1.NewServerReflectionClient(n.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(resp.GetListServicesResponse().GetService(), func(s *reflectionv1.ServiceResponse) bool {
		return s.GetName() == "holdfast.v1.StateService"
	}) {
		t.Errorf("services = %v", resp)
	}
}

// panicking is a validator with a defect.
type panicking struct{}

func (panicking) Validate(document.Key, []byte) []schema.Violation { panic("defect") }

func TestPanicsAreFailures(t *testing.T) {
	n := single(t, func(c *Config) { c.Validator = panicking{}; c.Logger = nil })
	_, err := n.state.Apply(t.Context(), transactionOf(flag("a", `1`)))
	expect(t, err, ReasonInternal)
	n.replica.cluster.setOnPropose(func(*storagev1.Command) (before, after error) { return nil, nil })
	if _, err := n.state.List(t.Context(), &holdfastv1.ListRequest{}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := single(t, func(c *Config) { c.Registerer = registry })
	serve(t, newFakeCluster(t, "n1").replicas[0], func(c *Config) { c.Registerer = registry }) // the same metrics again
	n.put(t, flag("a", `1`))
	if _, err := n.state.Get(t.Context(), get("b", nil)); err == nil {
		t.Fatal("found what does not exist")
	}
	m := n.metrics
	eventually(t, "the counts", func() bool { // a call is counted after its answer
		return counted(m.requests.WithLabelValues("holdfast.v1.StateService/Apply", codes.OK.String())) == 1 &&
			counted(m.requests.WithLabelValues("holdfast.v1.StateService/Get", codes.NotFound.String())) == 1
	})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if len(f.GetName()) < 9 || f.GetName()[:9] != "holdfast_" {
			t.Errorf("metric %s", f.GetName())
		}
	}
}

func TestMessageLimit(t *testing.T) {
	n := single(t)
	_, err := n.state.Apply(t.Context(), transactionOf(flag("a", big(MaxMessageBytes))))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over the limit: %v", err)
	}
}

func TestDrain(t *testing.T) {
	const watches, jitter = 20, 300 * time.Millisecond
	n := single(t, func(c *Config) { c.DrainJitter = jitter })
	n.put(t, flag("a", `1`))
	ended := make(chan error, watches)
	for range watches {
		m := n.watch(t.Context(), t, &holdfastv1.WatchRequest{})
		m.until(t, 1)
		go func() {
			for {
				if err := m.next(); err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	// A health watch is endless, too, and must not hold up the end.
	health, err := grpc_health_v1.NewHealthClient(n.conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := health.Recv(); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	drained := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(drained)
		n.Drain(ctx)
	}()
	expect(t, <-ended, ReasonDraining)
	// While the others go on, the server still answers, but opens no watch.
	if _, err := n.state.Get(t.Context(), get("a", nil)); err != nil {
		t.Errorf("a read while draining: %v", err)
	}
	expect(t, n.watch(t.Context(), t, &holdfastv1.WatchRequest{}).next(), ReasonDraining)
	if got := healthOf(t, n, ""); got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health while draining = %v", got)
	}
	for range watches - 1 {
		expect(t, <-ended, ReasonDraining)
	}
	if d := time.Since(began); d < jitter/2 {
		t.Errorf("all watches ended within %s, the window is %s", d, jitter)
	}
	<-drained
	if ctx.Err() != nil {
		t.Error("draining took all of its time")
	}
}

func TestDrainIsBounded(t *testing.T) {
	n := single(t, func(c *Config) { c.DrainJitter = time.Hour })
	for range 3 {
		if err := n.watch(t.Context(), t, &holdfastv1.WatchRequest{}).next(); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := n.cluster.Restore(t.Context()) // a client that never goes on
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&holdfastv1.RestoreRequest{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	n.Drain(ctx)
	if n.streams.following(holdfastv1.StateService_Watch_FullMethodName) != 0 {
		t.Error("watches are left after draining")
	}
	n.Drain(ctx) // and once more
}
