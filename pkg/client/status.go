package client

import (
	"time"

	"github.com/holdfast-dev/holdfast/internal/guard"
)

// Source is where the view comes from.
type Source string

// The sources.
const (
	FromDefaults Source = "defaults" // there is none: the code's defaults
	FromDisk     Source = "disk"
	FromServer   Source = "server"
	FromPeer     Source = "peer"
	FromTest     Source = "test" // package clienttest
)

// Status is how an instance is.
type Status struct {
	InstanceID, Service, Namespace string
	Source                         Source
	Revision                       uint64
	// Epoch is the history that the revision belongs to, empty without a view.
	Epoch string
	// Age is how long ago a server last said something, to this process or, by the wall
	// clock, to the one whose cache it began with; 0 if none ever did.
	Age time.Duration
	// Connected tells that a session is up and its server has not fallen silent, Server
	// and ServerID with which.
	Connected        bool
	Server, ServerID string
	// LastError is why the last session ended or could not begin.
	LastError string
	// OverriddenBy is what beats the control plane here: "HOLDFAST_DISABLE", the path
	// of a file; empty if nothing does.
	OverriddenBy string
	// Disabled tells that only the code decides.
	Disabled bool
	// Problems is what the instance cannot obey, and why what it obeys is hardly what
	// was meant: the namespace is empty, the servers are of another cluster, the file of
	// local overrides cannot be read.
	Problems []string
	// Resyncs counts how often the state was found to differ from the server's and
	// was fetched anew; Reconnects how often a session began after the first.
	Resyncs, Reconnects uint64
	// CacheError is why the view is not kept on disk; empty if it is or need not be.
	CacheError string
	// Gossip is how the instance takes part in what instances tell each other.
	Gossip GossipStatus
	// Fleet is what it makes of the dependencies that are not plainly well, here or
	// elsewhere, in the order of their names.
	Fleet []FleetVerdict
}

// GossipStatus is how an instance takes part in what instances tell each other.
type GossipStatus struct {
	// Mode is what is in force: GossipOff, GossipRelayed or GossipDirect, and Why what
	// keeps it from being what the configuration says; empty if nothing does.
	Mode, Why string
	// Address is where others reach it; empty without a socket. Members are those of
	// the pool that it knows, itself included; 0 without one.
	Address string
	Members int
	// Instances are those of which it holds evidence now.
	Instances int
	// Doubt is why it does not trust itself, so that others do not listen to it nor it
	// to them; empty if it does.
	Doubt string
	// Peer is the member that the view comes from; empty if it comes from none.
	Peer string
	// Fresh is how long ago the view was known to be the newest; 0 if that is not
	// known.
	Fresh time.Duration
}

// FleetVerdict is what an instance makes of a dependency because of others.
type FleetVerdict struct {
	Dependency string
	// Open tells that it is taken to be broken, Others that enough of the others find it
	// so. Hearsay tells that calls are held back only because of them, Advised that they
	// would be if the policy said so.
	Open, Others, Hearsay, Advised bool
	// Mode is what the policy says, Reason why the verdict is what it is.
	Mode, Reason string
	// Opinion is the instance's own: "open", "well" and so on; empty for none.
	Opinion string
	// HostsOpen of Hosts find it broken, without the instance's own; HostsNeeded are
	// needed.
	HostsOpen, HostsNeeded, Hosts int
}

// Status returns how the instance is now.
func (c *Client) Status() Status {
	now := c.holder.current.Load()
	s := Status{
		InstanceID: c.config.InstanceID, Service: c.config.Service, Namespace: c.config.Namespace,
		Source: now.source, Revision: revisionOf(now.view), OverriddenBy: now.by, Disabled: now.disabled, Problems: c.holder.problems(now),
	}
	if c.session == nil {
		if c.calls != nil {
			s.Fleet = c.fed()
		}
		return s
	}
	of := c.session.Status()
	if of.Position.Set() {
		s.Epoch = of.Position.Epoch.String()
	}
	s.Connected, s.Server, s.ServerID = of.Connected, of.Server.Addr, of.Server.ID
	if !of.Heard.IsZero() {
		s.Age = max(0, time.Since(of.Heard))
	}
	if of.Err != nil && !of.Connected {
		s.LastError = of.Err.Error()
	}
	if of.Foreign != nil {
		s.LastError = of.Foreign.Error()
		s.Problems = append(s.Problems, s.LastError)
	}
	if of.Disk != nil {
		s.CacheError = of.Disk.Error()
	}
	s.Resyncs, s.Reconnects = of.Resyncs, max(of.Connects, 1)-1
	c.peers.status(&s)
	return s
}

// Stats returns what was counted, for metrics.
func (c *Client) Stats() Stats {
	status := c.Status()
	return Stats{
		Stats: c.calls.guard.Stats(), Degradations: c.calls.degradations(), Replies: c.calls.replyStats(),
		Revision: status.Revision, Connected: status.Connected, Age: status.Age, Resyncs: status.Resyncs, Reconnects: status.Reconnects,
		EventsLost: c.events.lost.Load(), ViewChanges: c.holder.changes.Load(), Fleet: c.peers.stats(&status),
	}
}

// Event is something that happened.
type Event struct {
	Time time.Time
	// One of the following is set.
	View       *ViewChanged
	Breaker    *BreakerChanged
	Connection *ConnectionChanged
	Fleet      *FleetChanged
	// Missed is how many events before this one were dropped because the reader was
	// behind.
	Missed int
}

// ViewChanged tells that another view is obeyed.
type ViewChanged struct {
	Revision uint64
	Source   Source
	// Flags are the keys of the flags that changed, and Modes the modes whose level
	// did. Where the view was Replaced as a whole, any flag may have changed, and
	// Flags is empty.
	Flags, Modes []string
	Replaced     bool
	// Problems is what cannot be obeyed.
	Problems []string
}

// BreakerChanged tells that a breaker changed its state.
type BreakerChanged struct {
	Dependency, Target string
	// From and To are closed, forced closed, recovering, hearsay, half-open, open or
	// forced open.
	From, To string
	Reason   string
	// By names the override that forced it or, of hearsay, who finds the dependency
	// broken.
	By string
	// Calls, Failures and Slow are what the state that ended saw.
	Calls, Failures, Slow uint64
	OpenFor               time.Duration
}

// FleetChanged tells that others find a dependency broken, that calls are held back
// because of that, or would be, or that one of these is over.
type FleetChanged struct {
	FleetVerdict
}

// ConnectionChanged tells that a session began or ended.
type ConnectionChanged struct {
	Connected bool
	Server    string
	Err       error
}

// Stats are totals since the client was opened.
type Stats struct {
	guard.Stats
	// Fallbacks counts answers of fallbacks and Cached those from the cache, by
	// dependency and target.
	Degradations []DegradationStats
	// Replies is the cache of replies.
	Replies ReplyStats
	// Fleet is about what instances tell each other.
	Fleet FleetStats
	// View changes, problems.
	Revision    uint64
	Connected   bool
	Age         time.Duration
	Resyncs     uint64
	Reconnects  uint64
	EventsLost  uint64
	ViewChanges uint64
}

// FleetStats count what instances tell each other.
type FleetStats struct {
	// Mode is GossipOff, GossipRelayed or GossipDirect; Members are those of the pool,
	// Instances those of which evidence is held, both now.
	Mode               string
	Members, Instances int
	// Doubts tells that the instance does not trust itself now.
	Doubts bool
	// Published counts the instance's own records, Received those of others that were
	// news, and Refused those that were not let in, by why.
	Published, Received uint64
	Refused             map[string]uint64
	// Heeded counts how often calls to a dependency were held back because of others,
	// Advised how often they would have been; Postponed counts probes that were moved
	// because of others, Recovered recoveries that began because theirs went well.
	Heeded, Advised, Postponed, Recovered uint64
	// What went over the sockets of the pool, all of it; packets are those of UDP.
	SentPackets, SentBytes, ReceivedPackets, ReceivedBytes uint64
	// Relay is about views that come from members while no server can be reached.
	Relay RelayStats
}

// RelayStats count the views that members tell each other.
type RelayStats struct {
	// Heads counts signed heads that were newer than those before; Changes and Documents
	// count what was installed from members, with the head or after a question; Served
	// counts the documents that members got from this one whole.
	Heads, Changes, Documents, Served uint64
	// Refused counts what was not believed or came to nothing, by why: "forged",
	// "malformed", "overloaded", "poisoned" (not what the head vouches for) and "silent"
	// of others, "question" and "busy" of what they asked.
	Refused map[string]uint64
}

// DegradationStats count what levels of modes and fallbacks did for one target, on
// one side.
type DegradationStats struct {
	Dependency, Target string
	Side               string // "client" or "server"
	// Rejected and Shed calls were refused; Cached were answered from the cache,
	// CacheMisses could not be; Fallbacks were answered by a chain, FallbackFailures
	// by none of its functions.
	Rejected, Shed, Cached, CacheMisses, Fallbacks, FallbackFailures uint64
	// Recorded replies were kept for later.
	Recorded uint64
}

// ReplyStats are those of the cache of replies.
type ReplyStats struct {
	Entries               int
	Bytes                 int64
	Hits, Misses, Evicted uint64
	TooLarge              uint64
}
