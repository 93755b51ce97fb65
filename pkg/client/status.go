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
	// Age is how long ago a server last said something; 0 if none ever did.
	Age time.Duration
	// Connected tells that a session is up, Server and ServerID with which.
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
}

// Status returns how the instance is now.
func (c *Client) Status() Status {
	now := c.holder.current.Load()
	s := Status{
		InstanceID: c.config.InstanceID, Service: c.config.Service, Namespace: c.config.Namespace,
		Source: now.source, Revision: revisionOf(now.view), OverriddenBy: now.by, Disabled: now.disabled, Problems: c.holder.problems(now),
	}
	if c.session == nil {
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
	return s
}

// Stats returns what was counted, for metrics.
func (c *Client) Stats() Stats {
	status := c.Status()
	return Stats{
		Stats: c.calls.guard.Stats(), Degradations: c.calls.degradations(), Replies: c.calls.replyStats(),
		Revision: status.Revision, Connected: status.Connected, Age: status.Age, Resyncs: status.Resyncs, Reconnects: status.Reconnects,
		EventsLost: c.events.lost.Load(), ViewChanges: c.holder.changes.Load(),
	}
}

// Event is something that happened.
type Event struct {
	Time time.Time
	// One of the following is set.
	View       *ViewChanged
	Breaker    *BreakerChanged
	Connection *ConnectionChanged
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
	From, To           string
	Reason             string
	// By is the override that forced it.
	By string
	// Calls, Failures and Slow are what the state that ended saw.
	Calls, Failures, Slow uint64
	OpenFor               time.Duration
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
	// View changes, problems.
	Revision    uint64
	Connected   bool
	Age         time.Duration
	Resyncs     uint64
	Reconnects  uint64
	EventsLost  uint64
	ViewChanges uint64
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
