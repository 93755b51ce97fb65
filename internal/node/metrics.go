package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-dev/holdfast/internal/consensus"
)

// collector turns the plain figures of the packages into metrics when they are
// asked for.
type collector struct {
	n       *Node
	gauges  []figure
	rates   []figure
	spreads []spread
	peers   []peerFigure
	refused *prometheus.Desc // records of evidence, by why
}

type figure struct {
	desc  *prometheus.Desc
	value func(s *sample) float64
}

type spread struct {
	desc  *prometheus.Desc
	value func(m *consensus.Metrics) consensus.Histogram
}

type peerFigure struct {
	desc  *prometheus.Desc
	value func(p consensus.PeerMetrics) uint64
}

// sample is one look at everything.
type sample struct {
	n      *Node
	status consensus.Status
	raft   consensus.Metrics
	fleet  poolTotals
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("holdfast_"+name, help, labels, nil)
}

func newCollector(n *Node) *collector {
	c := &collector{n: n}
	c.raftFigures()
	c.stateFigures()
	c.poolFigures()
	c.fleetFigures()
	return c
}

func (c *collector) gauge(name, help string, value func(s *sample) float64) {
	c.gauges = append(c.gauges, figure{desc(name, help), value})
}

func (c *collector) counter(name, help string, value func(s *sample) uint64) {
	c.rates = append(c.rates, figure{desc(name, help), func(s *sample) float64 { return float64(value(s)) }})
}

func (c *collector) histogram(name, help string, value func(m *consensus.Metrics) consensus.Histogram) {
	c.spreads = append(c.spreads, spread{desc(name, help), value})
}

func (c *collector) peer(name, help string, value func(p consensus.PeerMetrics) uint64) {
	c.peers = append(c.peers, peerFigure{desc(name, help, "peer"), value})
}

func (c *collector) raftFigures() {
	c.gauge("raft_leader", "1 while this server leads.", func(s *sample) float64 { return truth(s.status.Role == consensus.Leader) })
	c.gauge("raft_leader_known", "1 while this server knows a leader.", func(s *sample) float64 { return truth(s.status.LeaderID != "") })
	c.gauge("raft_term", "The Raft term.", func(s *sample) float64 { return float64(s.status.Term) })
	c.gauge("raft_commit_index", "The highest index known to be committed.", func(s *sample) float64 { return float64(s.status.Commit) })
	c.gauge("raft_applied_index", "The highest index applied.", func(s *sample) float64 { return float64(s.status.Applied) })
	c.gauge("raft_last_index", "The highest index in the log.", func(s *sample) float64 { return float64(s.status.LastIndex) })
	c.gauge("raft_last_contact_seconds", "Time since the leader was last heard.", func(s *sample) float64 { return s.status.LastContact.Seconds() })
	c.gauge("raft_members", "Servers of the cluster.", func(s *sample) float64 { return float64(len(s.status.Members)) })
	c.gauge("raft_voters", "Servers of the cluster that vote.", func(s *sample) float64 { return float64(voters(s.status.Members, "")) })
	c.counter("raft_entries_total", "Entries written to the log.", func(s *sample) uint64 { return s.raft.Entries })
	c.counter("raft_leader_changes_total", "Changes of the leader seen.", func(s *sample) uint64 { return s.raft.LeaderChanges })
	c.counter("raft_snapshots_total", "Snapshots taken.", func(s *sample) uint64 { return s.raft.SnapshotsTaken })
	c.counter("raft_snapshot_failures_total", "Snapshots that failed.", func(s *sample) uint64 { return s.raft.SnapshotFailures })
	c.counter("raft_snapshots_installed_total", "Snapshots received from a leader.", func(s *sample) uint64 { return s.raft.SnapshotsInstalled })
	c.gauge("raft_snapshot_bytes", "Size of the newest snapshot.", func(s *sample) float64 { return float64(s.raft.SnapshotBytes) })
	c.counter("raft_stalls_total", "Writes to disk that hung long enough to silence this server.", func(s *sample) uint64 { return s.raft.Stalls })
	c.histogram("raft_store_seconds", "Time to write entries durably.", func(m *consensus.Metrics) consensus.Histogram { return m.StoreLogs })
	c.histogram("raft_propose_seconds", "Time from a proposal to its result.", func(m *consensus.Metrics) consensus.Histogram { return m.Propose })
	c.histogram("raft_apply_seconds", "Time to apply a batch.", func(m *consensus.Metrics) consensus.Histogram { return m.Apply })
	c.peer("raft_peer_append_failures_total", "Messages to another server that failed.", func(p consensus.PeerMetrics) uint64 { return p.AppendFailures })
	c.peer("raft_peer_stranger_answers_total", "Answers, not used, of another server at the address of a member: it lost its disk, or the address is another's now.", func(p consensus.PeerMetrics) uint64 { return p.Strangers })
	c.peer("raft_peer_nudges_total", "Commit nudges sent to another server.", func(p consensus.PeerMetrics) uint64 { return p.NudgesSent })
}

func (c *collector) stateFigures() {
	c.gauge("state_revision", "The revision of the state.", func(s *sample) float64 { return float64(s.n.View().Revision()) })
	c.gauge("state_epoch_counter", "The counter of the epoch.", func(s *sample) float64 { return float64(s.n.View().Epoch().Counter) })
	c.gauge("state_time_seconds", "State time.", func(s *sample) float64 { return float64(s.n.View().Time()) / 1000 })
	c.gauge("state_bytes", "Bytes of resources, as counted against the limit.", func(s *sample) float64 { return float64(s.n.View().Bytes()) })
	c.gauge("state_resources", "Resources in the state.", func(s *sample) float64 { return float64(s.n.View().Resources()) })
	c.gauge("state_overrides", "Overrides in the state.", func(s *sample) float64 { return float64(s.n.View().Overrides()) })
	c.gauge("state_namespaces", "Namespaces in the state.", func(s *sample) float64 { return float64(len(s.n.View().Namespaces())) })
	c.gauge("state_outcomes", "Outcomes kept for retries.", func(s *sample) float64 { return float64(s.n.View().Outcomes()) })
	c.gauge("fenced", "1 when this server differs from the majority and is fenced off.", func(s *sample) float64 { return truth(s.n.fenced.Load() != nil) })
	c.gauge("diverged_index", "The highest index at which another server's state differed; 0 is well.", func(s *sample) float64 { return float64(s.n.hashes.diverged()) })
	c.gauge("watch_subscriptions", "Open subscriptions.", func(s *sample) float64 { return float64(s.n.hub.Metrics().Watchers) })
	c.counter("watch_published_total", "Views shown to subscribers.", func(s *sample) uint64 { return s.n.hub.Metrics().Published })
	c.counter("watch_snapshots_total", "Snapshots given to subscribers.", func(s *sample) uint64 { return s.n.hub.Metrics().Snapshots })
	c.counter("watch_deltas_total", "Deltas given to subscribers.", func(s *sample) uint64 { return s.n.hub.Metrics().Deltas })
	c.counter("watch_encoded_total", "Deltas encoded; fewer than given where subscribers share them.", func(s *sample) uint64 { return s.n.hub.Metrics().Encoded })
	c.counter("watch_forked_total", "Cursors refused because their epoch forked.", func(s *sample) uint64 { return s.n.hub.Metrics().Forked })
	c.counter("watch_foreign_total", "Cursors refused because they are of another cluster.", func(s *sample) uint64 { return s.n.hub.Metrics().Foreign })
}

func (c *collector) poolFigures() {
	c.gauge("pool_members", "Servers alive in the pool.", func(s *sample) float64 { return float64(s.n.pool.Metrics().Members) })
	c.gauge("pool_health", "The pool's doubt about this server; 0 is well.", func(s *sample) float64 { return float64(s.n.pool.Metrics().Health) })
	c.counter("pool_received_total", "Messages received.", func(s *sample) uint64 { return s.n.pool.Metrics().Received })
	c.counter("pool_dropped_total", "Messages dropped because too many waited.", func(s *sample) uint64 { return s.n.pool.Metrics().Dropped })
	c.counter("pool_malformed_total", "Messages that could not be read.", func(s *sample) uint64 { return s.n.pool.Metrics().Malformed })
	c.counter("pool_oversize_total", "Broadcasts too large for a packet.", func(s *sample) uint64 { return s.n.pool.Metrics().Oversize })
	c.counter("pool_rejoins_total", "Attempts to reach lost servers and seeds.", func(s *sample) uint64 { return s.n.pool.Metrics().Rejoins })
}

func (c *collector) fleetFigures() {
	c.gauge("fleet_pools", "Pools of instances that this server is in.", func(s *sample) float64 { return float64(s.fleet.pools) })
	c.gauge("fleet_members", "Members of these pools, servers included.", func(s *sample) float64 { return float64(s.fleet.members) })
	c.gauge("fleet_records", "Instances of which evidence is held.", func(s *sample) float64 { return float64(s.fleet.records) })
	c.gauge("fleet_signing_servers", "Servers whose signatures count.", func(s *sample) float64 { return float64(len(s.n.charter.Signers().Servers())) })
	c.gauge("fleet_signs", "1 while this server's signatures count.", func(s *sample) float64 { return truth(s.n.charter.Signers().Has(s.n.key.ID())) })
	c.counter("fleet_records_total", "Records of evidence taken in.", func(s *sample) uint64 { return s.fleet.merged })
	c.counter("fleet_dropped_total", "Messages of instances dropped because too many waited, or the sender is unknown.", func(s *sample) uint64 { return s.fleet.dropped })
	c.counter("fleet_malformed_total", "Messages of instances that could not be read.", func(s *sample) uint64 { return s.fleet.malformed })
	c.counter("fleet_oversize_total", "Records too large for a packet.", func(s *sample) uint64 { return s.fleet.oversize })
	c.counter("gossip_unclaimed_total", "Packets and streams on the gossip port for no pool of this server.", func(s *sample) uint64 { return s.n.pools.listener.Dropped() })
	c.refused = desc("fleet_records_refused_total", "Records of evidence refused, by why.", "reason")
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range append(c.gauges, c.rates...) {
		ch <- f.desc
	}
	for _, s := range c.spreads {
		ch <- s.desc
	}
	for _, p := range c.peers {
		ch <- p.desc
	}
	ch <- c.refused
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	select {
	case <-c.n.started:
	default:
		return // nothing is there yet
	}
	s := &sample{n: c.n, status: c.n.raft.Status(), raft: c.n.raft.Metrics(), fleet: c.n.pools.totals()}
	for _, f := range c.gauges {
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, f.value(s))
	}
	for _, f := range c.rates {
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, f.value(s))
	}
	for _, f := range c.spreads {
		h := f.value(&s.raft)
		ch <- prometheus.MustNewConstHistogram(f.desc, h.Count, h.Sum, cumulative(h))
	}
	for why, n := range s.fleet.refused {
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(n), why)
	}
	for peer, figures := range s.raft.Peers {
		for _, f := range c.peers {
			ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, float64(f.value(figures)), peer)
		}
	}
}

// cumulative counts what is at or below each bound.
func cumulative(h consensus.Histogram) map[float64]uint64 {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var sum uint64
	for i, bound := range h.Bounds {
		if i < len(h.Counts) {
			sum += h.Counts[i]
		}
		buckets[bound] = sum
	}
	return buckets
}
