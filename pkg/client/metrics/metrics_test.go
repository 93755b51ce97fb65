package metrics

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/pkg/client"
	"github.com/holdfast-dev/holdfast/pkg/client/clienttest"
)

// made returns a collector of figures of which no two are the same.
func made(stats client.Stats, status client.Status) *collector {
	return &collector{
		stats: func() client.Stats { return stats }, status: func() client.Status { return status },
		table: table(), descs: descriptions(),
	}
}

func figures() (client.Stats, client.Status) {
	pay := guard.TargetStats{
		Name: "/shop.Payments/Charge", Breaker: breaker.Snapshot{State: breaker.HalfOpen},
		Transitions: [...]uint64{1, 2, 3, 7, 4, 5, 6}, Calls: 10, Hearsay: 8, Advised: 9, Results: [...]uint64{11, 12, 13, 14, 15},
		Rejected: map[guard.Reason]uint64{guard.BreakerOpen: 21, guard.BulkheadFull: 22, guard.BulkheadTimeout: 23, guard.DeadlineTooNear: 24},
		Observed: map[guard.Reason]uint64{guard.BreakerOpen: 31, guard.BulkheadFull: 32, guard.BulkheadTimeout: 33, guard.DeadlineTooNear: 34},
		Retries:  41, RetriesRefusedBudget: 42, RetriesRefusedDeadline: 43, RetriesRejected: 44, RetrySuccesses: 45,
		Hedges: 51, HedgeWins: 52, Timeouts: 53, TimeoutTime: 54500 * time.Millisecond, Waits: 55, WaitTime: 56 * time.Second,
	}
	stats := client.Stats{
		Stats: guard.Stats{Dependencies: []guard.DependencyStats{
			{Name: "payments", Enforce: true, Limit: 61, InUse: 62, Queued: 63, RetryTokens: 64.5, Fleet: guard.FleetVerdict{Mode: policy.FleetAdvise}, Targets: []guard.TargetStats{pay}},
			{Name: "server:checkout", Limit: 65, InUse: 66, Targets: []guard.TargetStats{{Name: "/shop.Checkout/Buy", Calls: 67}}},
		}},
		Degradations: []client.DegradationStats{{
			Dependency: "payments", Target: "/shop.Payments/Charge", Side: "client",
			Rejected: 71, Shed: 72, Cached: 73, CacheMisses: 74, Fallbacks: 75, FallbackFailures: 76, Recorded: 77,
		}},
		Fleet: client.FleetStats{
			Mode: client.GossipRelayed, Members: 101, Instances: 102, Doubts: true, Published: 103, Received: 104,
			Refused: map[string]uint64{"forged": 105, "unknown signer": 106}, Heeded: 107, Advised: 108, Postponed: 109, Recovered: 110,
			SentPackets: 111, SentBytes: 112, ReceivedPackets: 113, ReceivedBytes: 114,
			Relay: client.RelayStats{Heads: 115, Changes: 116, Documents: 117, Served: 118, Refused: map[string]uint64{"forged": 119, "poisoned": 120}},
		},
		Replies:  client.ReplyStats{Entries: 81, Bytes: 82, Hits: 83, Misses: 84, Evicted: 85, TooLarge: 86},
		Revision: 91, Connected: true, Age: 92 * time.Second, Resyncs: 93, Reconnects: 94, EventsLost: 95, ViewChanges: 96,
	}
	return stats, client.Status{
		Service: "checkout", InstanceID: "checkout-1", Namespace: "default", Source: client.FromServer, Problems: []string{"a", "b"},
		OverriddenBy: "/etc/local.json", CacheError: "full",
	}
}

// TestEveryFigureHasItsPlace pins each series and its value.
func TestEveryFigureHasItsPlace(t *testing.T) {
	want, err := os.Open("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if err := testutil.CollectAndCompare(made(figures()), want); err != nil {
		t.Error(err)
	}
}

// TestConventions holds names, types and help to those of Prometheus.
func TestConventions(t *testing.T) {
	problems, err := testutil.CollectAndLint(made(figures()))
	if err != nil {
		t.Fatal(err)
	}
	if len(problems) > 0 {
		t.Error(slices.Collect(func(yield func(promlint.Problem) bool) {
			for _, p := range problems {
				yield(p)
			}
		}))
	}
}

// TestDocumentation compares the table of docs/sdk-metrics.md with what is collected.
func TestDocumentation(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(made(figures()))
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range gathered {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		slices.Sort(labels)
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, " "), f.GetHelp()))
	}
	if len(want) != int(families) {
		t.Errorf("%d of %d families are collected", len(want), families)
	}
	text, err := os.ReadFile("../../../docs/sdk-metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile("(?m)^\\| `holdfast_client_\\w+` \\|.*$").FindAllString(string(text), -1)
	slices.Sort(got)
	for _, name := range regexp.MustCompile(`holdfast_client_\w+`).FindAllString(string(text), -1) {
		if !slices.ContainsFunc(want, func(row string) bool { return strings.HasPrefix(row, "| `"+name+"` ") }) {
			t.Errorf("docs/sdk-metrics.md speaks of %s, which does not exist", name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/sdk-metrics.md:\n%s\nIt should have:\n%s", diff, strings.Join(want, "\n"))
	}
}

// TestAnInstance collects what a client counts while it works.
func TestAnInstance(t *testing.T) {
	plane := clienttest.New(t)
	plane.SetPolicy("search", `{"circuit_breaker": {"failure_threshold": 2}, "retry_policy": {"max_attempts": 1}}`)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(plane.Client()))
	down := errors.New("down")
	call := func(err error) error {
		_, err = client.Do(t.Context(), plane.Client(), "search", func(context.Context) (int, error) { return 0, err },
			client.Operation("index"), client.Classify(func(error) client.Outcome { return client.Failure }))
		return err
	}
	for _, err := range []error{nil, down, down} {
		if got := call(err); !errors.Is(got, err) {
			t.Fatalf("got %v, want %v", got, err)
		}
	}
	if err := call(nil); !errors.Is(err, client.BreakerOpen) {
		t.Fatal(err)
	}
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for series, want := range map[string]float64{
		"calls_total dependency=search method=index":                                    4,
		"attempts_total class=failure dependency=search method=index":                   2,
		"attempts_total class=success dependency=search method=index":                   1,
		"rejections_total dependency=search method=index reason=breaker_open":           1,
		"breaker_state dependency=search method=index state=open":                       1,
		"breaker_state dependency=search method=index state=closed":                     0,
		"breaker_transitions_total dependency=search method=index state=open":           1,
		"enforced dependency=search":                                                    1,
		"info namespace=default service_instance_id=test-1 service_name=test":           1,
		"view_source source=test":                                                       1,
		"view_revision":                                                                 1,
		"degraded_calls_total action=reject dependency=search method=index side=client": 0,
	} {
		if got, ok := valueOf(gathered, series); !ok || got != want {
			t.Errorf("%s: got %v %v, want %v", series, got, ok, want)
		}
	}
	if _, ok := valueOf(gathered, "view_age_seconds"); ok {
		t.Error("no server ever said anything, but there is an age")
	}
}

func valueOf(gathered []*dto.MetricFamily, series string) (float64, bool) {
	for _, f := range gathered {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), namespace)
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			if name == series {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

// TestNamesOfAnyKind has a method and an operation of one name, and one that is not
// UTF-8: Prometheus would refuse the whole scrape.
func TestNamesOfAnyKind(t *testing.T) {
	open := breaker.Snapshot{State: breaker.Open}
	c := made(client.Stats{Stats: guard.Stats{Dependencies: []guard.DependencyStats{{Name: "a\xff", Targets: []guard.TargetStats{
		{Name: "/s/M", Calls: 1, Breaker: open}, {Name: "s/M", Calls: 2, Breaker: open}, {Name: "\xfe", Calls: 3},
	}}}}}, client.Status{Service: "\xff"})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for series, want := range map[string]float64{
		"calls_total dependency=a\ufffd method=s/M":              3,
		"calls_total dependency=a\ufffd method=\ufffd":           3,
		"breaker_state dependency=a\ufffd method=s/M state=open": 1,
	} {
		if got, ok := valueOf(gathered, series); !ok || got != want {
			t.Errorf("%s: got %v %v, want %v", series, got, ok, want)
		}
	}
}

// TestSeriesAreBounded calls more operations than a dependency has names for.
func TestSeriesAreBounded(t *testing.T) {
	plane := clienttest.New(t)
	for i := range 1000 {
		_, _ = client.Do(t.Context(), plane.Client(), "search", func(context.Context) (int, error) { return 0, nil }, client.Operation(fmt.Sprint("op-", i)))
	}
	if n := testutil.CollectAndCount(NewCollector(plane.Client()), namespace+"calls_total"); n < 100 || n > 513 {
		t.Errorf("1000 operations make %d series", n)
	}
	if n := testutil.CollectAndCount(NewCollector(plane.Client()), namespace+"degraded_calls_total"); n > 4*513 {
		t.Errorf("1000 operations make %d series", n)
	}
}

func BenchmarkCollect(b *testing.B) {
	plane := clienttest.New(b)
	for i := range 50 {
		_, _ = client.Do(b.Context(), plane.Client(), "search", func(context.Context) (int, error) { return 0, nil }, client.Operation(fmt.Sprint("op-", i)))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCollector(plane.Client()))
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
