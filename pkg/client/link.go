package client

import (
	"github.com/holdfast-dev/holdfast/internal/session"
)

// link is a Client as its session sees it.
type link Client

// Install implements session.Handler.
func (l *link) Install(change session.Change) {
	l.holder.setTime(change.StateTime, change.Replace)
	l.holder.install(change.Delta, change.Replace, Source(change.Source.String()))
}

// Report implements session.Handler.
func (l *link) Report() session.Report {
	now := l.holder.current.Load()
	report := session.Report{OverriddenBy: now.told()}
	for _, p := range now.reported {
		report.Problems = append(report.Problems, session.Problem(p))
	}
	return report
}

// StateTime implements session.Handler.
func (l *link) StateTime(now int64) {
	l.holder.setTime(now, false)
	(*Client)(l).look()
}

// Connected implements session.Handler.
func (l *link) Connected(server session.Server) {
	l.peers.connected(true)
	(*Client)(l).tellConnection(ConnectionChanged{Connected: true, Server: server.Addr})
}

// Disconnected implements session.Handler. Of the attempts that fail one after the
// other only the first is told.
func (l *link) Disconnected(addr string, err error) {
	l.peers.connected(false)
	(*Client)(l).tellConnection(ConnectionChanged{Server: addr, Err: err})
}

func (c *Client) tellConnection(now ConnectionChanged) {
	if was := c.connection.Swap(&now); was == nil || was.Connected || now.Connected {
		c.events.tell(Event{Time: c.clock.Wall(), Connection: &now})
	}
}
