package metrics

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/pkg/client"
)

// NewCollector returns the figures of a client. The methods of one dependency are
// bounded, as are the dependencies, so the number of series is; those beyond share
// the name "(others)".
func NewCollector(c *client.Client) prometheus.Collector {
	return &collector{
		stats: c.Stats, status: c.Status,
		table: table(), descs: descriptions(),
	}
}

type collector struct {
	stats  func() client.Stats
	status func() client.Status
	table  [families]family
	descs  [families]*prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := scrape{series: map[string]int{}}
	status, stats := c.status(), c.stats()
	s.instance(&status, &stats)
	s.gossip(&stats.Fleet)
	for i := range stats.Dependencies {
		s.dependency(&stats.Dependencies[i])
	}
	for i := range stats.Degradations {
		s.degradation(&stats.Degradations[i])
	}
	s.replies(&stats.Replies)
	for i := range s.samples {
		to <- c.metric(&s.samples[i])
	}
}

// metric returns a sample as Prometheus wants it.
func (c *collector) metric(s *sample) prometheus.Metric {
	desc := c.descs[s.of]
	switch c.table[s.of].kind {
	case summary:
		return prometheus.MustNewConstSummary(desc, s.count, s.value, nil, s.labels...)
	case counter:
		return prometheus.MustNewConstMetric(desc, prometheus.CounterValue, s.value, s.labels...)
	default:
		return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, s.value, s.labels...)
	}
}

// sample is one value of a family.
type sample struct {
	of     metric
	labels []string
	value  float64
	count  uint64 // of a summary
}

// scrape collects samples. A method and an operation can have one name, and names
// may be any text; Prometheus takes each series once, and UTF-8 only.
type scrape struct {
	samples []sample
	series  map[string]int
}

// at returns the sample of a series, which begins at 0.
func (s *scrape) at(of metric, labels []string) *sample {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\ufffd")
	}
	key := strconv.Itoa(int(of)) + "\x00" + strings.Join(labels, "\x00")
	i, ok := s.series[key]
	if !ok {
		i = len(s.samples)
		s.series[key] = i
		s.samples = append(s.samples, sample{of: of, labels: labels})
	}
	return &s.samples[i]
}

func (s *scrape) add(of metric, value float64, labels ...string) { s.at(of, labels).value += value }

// tell makes a sample 1 or leaves it at 0.
func (s *scrape) tell(of metric, is bool, labels ...string) {
	if found := s.at(of, labels); is {
		found.value = 1
	}
}

// durations adds a sum of durations and how many they are.
func (s *scrape) durations(of metric, sum time.Duration, count uint64, labels ...string) {
	found := s.at(of, labels)
	found.value += sum.Seconds()
	found.count += count
}

func (s *scrape) instance(status *client.Status, stats *client.Stats) {
	s.add(info, 1, status.Service, status.InstanceID, status.Namespace)
	s.tell(connected, stats.Connected)
	for _, source := range []client.Source{client.FromDefaults, client.FromDisk, client.FromServer, client.FromPeer, client.FromTest} {
		s.tell(viewSource, status.Source == source, string(source))
	}
	s.add(viewRevision, float64(stats.Revision))
	if stats.Age > 0 {
		s.add(viewAge, stats.Age.Seconds())
	}
	s.add(viewChanges, float64(stats.ViewChanges))
	s.add(problems, float64(len(status.Problems)))
	s.tell(overridden, status.OverriddenBy != "")
	s.tell(disabled, status.Disabled)
	s.tell(cacheFailed, status.CacheError != "")
	s.add(reconnects, float64(stats.Reconnects))
	s.add(resyncs, float64(stats.Resyncs))
	s.add(eventsLost, float64(stats.EventsLost))
}

// gossip adds what instances tell each other.
func (s *scrape) gossip(f *client.FleetStats) {
	for _, mode := range []string{client.GossipOff, client.GossipRelayed, client.GossipDirect} {
		s.tell(gossipMode, f.Mode == mode, mode)
	}
	s.add(gossipMembers, float64(f.Members))
	s.add(gossipInstances, float64(f.Instances))
	s.tell(gossipDoubt, f.Doubts)
	s.add(gossipPublished, float64(f.Published))
	s.add(gossipReceived, float64(f.Received))
	for reason, n := range f.Refused {
		s.add(gossipRefused, float64(n), strings.ReplaceAll(reason, " ", "_"))
	}
	s.add(gossipPackets, float64(f.SentPackets), "sent")
	s.add(gossipPackets, float64(f.ReceivedPackets), "received")
	s.add(gossipBytes, float64(f.SentBytes), "sent")
	s.add(gossipBytes, float64(f.ReceivedBytes), "received")
	s.add(fleetHeeded, float64(f.Heeded))
	s.add(fleetAdvised, float64(f.Advised))
	s.add(probesPostponed, float64(f.Postponed))
	s.add(fleetRecoveries, float64(f.Recovered))
	s.add(relayHeads, float64(f.Relay.Heads))
	s.add(relayInstalled, float64(f.Relay.Changes), "change")
	s.add(relayInstalled, float64(f.Relay.Documents), "document")
	s.add(relayServed, float64(f.Relay.Served))
	for reason, n := range f.Relay.Refused {
		s.add(relayRefused, float64(n), reason)
	}
}

// serverSide begins the name of the dependency that stands for the service itself,
// for what it handles.
const serverSide = "server:"

func (s *scrape) dependency(d *guard.DependencyStats) {
	s.tell(enforced, d.Enforce, d.Name)
	s.add(bulkheadLimit, float64(d.Limit), d.Name)
	s.add(bulkheadInUse, float64(d.InUse), d.Name)
	s.add(bulkheadQueued, float64(d.Queued), d.Name)
	calledByUs := !strings.HasPrefix(d.Name, serverSide)
	if calledByUs {
		s.add(retryBudget, d.RetryTokens, d.Name)
		for _, mode := range []policy.FleetMode{policy.FleetAdvise, policy.FleetEnforce} {
			s.tell(fleetVerdict, d.Fleet.Mode == mode, d.Name, string(mode))
		}
	}
	for i := range d.Targets {
		t := &d.Targets[i]
		method := methodOf(t.Name)
		s.admission(d.Name, method, t)
		if calledByUs {
			s.breaker(d.Name, method, t)
			s.repetition(d.Name, method, t)
		}
	}
}

// admission adds what there is of calls on both sides.
func (s *scrape) admission(dependency, method string, t *guard.TargetStats) {
	s.add(calls, float64(t.Calls), dependency, method)
	for class, name := range [...]string{
		breaker.Success: "success", breaker.Failure: "failure", breaker.Slow: "slow", breaker.Neutral: "neutral", breaker.Overload: "overload",
	} {
		s.add(attempts, float64(t.Results[class]), dependency, method, name)
	}
	for _, reason := range []guard.Reason{guard.BreakerOpen, guard.BulkheadFull, guard.BulkheadTimeout, guard.DeadlineTooNear} {
		name := strings.ToLower(string(reason))
		s.add(rejections, float64(t.Rejected[reason]), dependency, method, name)
		s.add(observed, float64(t.Observed[reason]), dependency, method, name)
	}
	s.durations(timeouts, t.TimeoutTime, t.Timeouts, dependency, method)
	s.durations(bulkheadWaits, t.WaitTime, t.Waits, dependency, method)
}

func (s *scrape) breaker(dependency, method string, t *guard.TargetStats) {
	s.add(hearsayRejections, float64(t.Hearsay), dependency, method)
	s.add(advisedCalls, float64(t.Advised), dependency, method)
	for state, n := range t.Transitions {
		name := stateName(breaker.State(state))
		s.tell(breakerState, t.Breaker.State == breaker.State(state), dependency, method, name)
		s.add(breakerTransitions, float64(n), dependency, method, name)
	}
}

// repetition adds what was tried more than once.
func (s *scrape) repetition(dependency, method string, t *guard.TargetStats) {
	s.add(retries, float64(t.Retries), dependency, method)
	s.add(retriesRefused, float64(t.RetriesRefusedBudget), dependency, method, "budget")
	s.add(retriesRefused, float64(t.RetriesRefusedDeadline), dependency, method, "deadline")
	s.add(retriesRefused, float64(t.RetriesRejected), dependency, method, "rejected")
	s.add(retrySuccesses, float64(t.RetrySuccesses), dependency, method)
	s.add(hedges, float64(t.Hedges), dependency, method)
	s.add(hedgeWins, float64(t.HedgeWins), dependency, method)
}

func (s *scrape) degradation(d *client.DegradationStats) {
	method := methodOf(d.Target)
	for action, n := range map[string]uint64{"reject": d.Rejected, "shed": d.Shed, "cache": d.Cached, "fallback": d.Fallbacks} {
		s.add(degraded, float64(n), d.Dependency, method, d.Side, action)
	}
	s.add(cacheMisses, float64(d.CacheMisses), d.Dependency, method, d.Side)
	s.add(fallbackFailures, float64(d.FallbackFailures), d.Dependency, method, d.Side)
	s.add(repliesRecorded, float64(d.Recorded), d.Dependency, method, d.Side)
}

func (s *scrape) replies(r *client.ReplyStats) {
	s.add(replyEntries, float64(r.Entries))
	s.add(replyBytes, float64(r.Bytes))
	s.add(replyLookups, float64(r.Hits), "hit")
	s.add(replyLookups, float64(r.Misses), "miss")
	s.add(replyEvictions, float64(r.Evicted))
	s.add(repliesRefused, float64(r.TooLarge))
}

// methodOf returns the name of a gRPC method as OpenTelemetry's rpc.method has it,
// and that of an operation as it is.
func methodOf(target string) string { return strings.TrimPrefix(target, "/") }

// stateName returns a state as the value of a label, such as "half_open".
func stateName(s breaker.State) string {
	return strings.NewReplacer("-", "_", " ", "_").Replace(s.String())
}
