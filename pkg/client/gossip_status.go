package client

import (
	"maps"
	"time"

	"github.com/holdfast-dev/holdfast/internal/fleet"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

// status fills in how the instance takes part.
func (p *peers) status(s *Status) {
	s.Gossip.Mode = GossipOff
	if p == nil {
		return
	}
	granted := p.granted.Load()
	s.Gossip.Mode, s.Gossip.Why = granted.mode, granted.why
	if s.Gossip.Mode == "" {
		s.Gossip.Mode = GossipOff
	}
	if r := p.reached.Load(); r != nil {
		s.Gossip.Address, s.Gossip.Members = r.pool.Addr(), r.pool.Metrics().Members
	}
	s.Gossip.Instances = p.store.Metrics().Records
	s.Gossip.Doubt = p.member.Stats().Doubt.String()
	of := p.relay.Status()
	s.Gossip.Peer = of.Peer
	if now := p.stateTime(); of.FreshAt > 0 && !now.IsZero() {
		s.Gossip.Fresh = max(now.Sub(time.UnixMilli(of.FreshAt)), time.Millisecond)
	}
	if seam.Bug(seam.ServersVouch) && s.Connected {
		s.Gossip.Fresh = time.Millisecond
	}
	for _, v := range p.member.Verdicts() {
		s.Fleet = append(s.Fleet, verdictOf(&v))
	}
}

func verdictOf(v *fleet.Verdict) FleetVerdict {
	return FleetVerdict{
		Dependency: v.Dependency, Open: v.Open, Others: v.Others, Hearsay: v.Hearsay, Advised: v.Advised, Mode: string(v.Mode), Reason: v.Reason,
		Opinion: v.Opinion.String(), HostsOpen: v.Finding.HostsOpen, HostsNeeded: v.Finding.HostsNeeded, Hosts: v.Finding.Hosts,
	}
}

// fleetChanged tells of another verdict.
func (c *Client) fleetChanged(e fleet.Event) {
	c.events.tell(Event{Time: c.clock.Wall(), Fleet: &FleetChanged{verdictOf(&e.Verdict)}})
}

// stats counts.
func (p *peers) stats(s *Status) FleetStats {
	if p == nil {
		return FleetStats{Mode: GossipOff}
	}
	of, held := p.member.Stats(), p.store.Metrics()
	stats := FleetStats{
		Mode: s.Gossip.Mode, Members: s.Gossip.Members, Instances: held.Records, Doubts: of.Doubt != 0,
		Published: of.Published, Received: held.Merged, Refused: held.Refused(),
		Heeded: of.Heeded, Advised: of.Advised, Postponed: of.Postponed, Recovered: of.Recovered,
	}
	views := p.relay.Metrics()
	stats.Relay = RelayStats{
		Heads: views.Heads, Changes: views.Deltas, Documents: views.Documents, Served: views.Served,
		Refused: map[string]uint64{
			"busy": views.Busy, "question": views.Refused, "forged": views.Forged, "poisoned": views.Poisoned,
			"silent": views.Silent, "malformed": views.Malformed, "overloaded": views.Overloaded,
		},
	}
	maps.DeleteFunc(stats.Relay.Refused, func(_ string, n uint64) bool { return n == 0 })
	if r := p.reached.Load(); r != nil {
		m := r.pool.Metrics()
		stats.SentPackets, stats.SentBytes, stats.ReceivedPackets, stats.ReceivedBytes = m.SentPackets, m.SentBytes, m.ReceivedPackets, m.ReceivedBytes
	}
	return stats
}
