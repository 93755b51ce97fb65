package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what the library calls. Its event methods run under the library's
// node lock: they copy and return, and never call the library.
type delegate struct{ p *Pool }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.AliveDelegate = delegate{}
)

// NodeMeta implements memberlist.Delegate. The library panics when it is given
// more than the limit.
func (d delegate) NodeMeta(limit int) []byte {
	if d.p.config.Meta == nil {
		return nil
	}
	meta := d.p.config.Meta()
	if len(meta) > limit {
		d.p.oversize.Add(1)
		d.p.log.Error("meta data too large, not sent", "bytes", len(meta), "limit", limit)
		return nil
	}
	return meta
}

// NotifyMsg implements memberlist.Delegate. The library reuses the bytes, and
// packets wait while it runs.
func (d delegate) NotifyMsg(message []byte) {
	select {
	case d.p.inbox <- bytes.Clone(message):
		d.p.received.Add(1)
	default:
		d.p.dropped.Add(1)
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.p.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(bool) []byte { return encodeStates(d.p.states) }

// MergeRemoteState implements memberlist.Delegate. It runs on the goroutine of
// one stream. What was learned is passed on, so that an exchange between the two
// sides of a healed partition reaches everybody.
func (d delegate) MergeRemoteState(buf []byte, _ bool) {
	err := decodeStates(buf, func(name string, body []byte) {
		if state := d.p.states[name]; state != nil && state.Merge(body) {
			d.p.spread(name, state)
		}
	})
	if err != nil {
		d.p.malformed.Add(1)
		d.p.log.Warn("unreadable state from a peer", "error", err)
	}
}

// NotifyAlive implements memberlist.AliveDelegate. One member with odd versions
// would stop the exchange for everybody that accepted it.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	const version = memberlist.ProtocolVersion2Compatible
	if n.PMin > version || n.PMax < version || n.PCur < n.PMin || n.PCur > n.PMax {
		return fmt.Errorf("protocol %d of [%d, %d] is not spoken here", n.PCur, n.PMin, n.PMax)
	}
	if n.DMin != 0 || n.DMax != 0 || n.DCur != 0 {
		return errors.New("foreign delegate protocol")
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	p := d.p
	m := Member{Name: n.Name, Addr: nodeAddr(n), Meta: bytes.Clone(n.Meta), Since: time.Now()}
	p.mu.Lock()
	p.members[m.Name] = m
	delete(p.lost, m.Addr)
	if m.Name == p.name {
		p.self = m.Addr
	}
	p.alive.Store(int64(len(p.members)))
	p.mu.Unlock()
	poke(p.changed)
}

// NotifyLeave implements memberlist.EventDelegate. The library does not tell
// whether a member left or died; both are tried again for a while.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	p := d.p
	p.mu.Lock()
	delete(p.members, n.Name)
	if n.Name != p.name {
		p.lose(nodeAddr(n), time.Now())
	}
	p.alive.Store(int64(len(p.members)))
	p.mu.Unlock()
	poke(p.changed)
}

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) {
	p := d.p
	p.mu.Lock()
	if m, ok := p.members[n.Name]; ok {
		m.Addr, m.Meta = nodeAddr(n), bytes.Clone(n.Meta)
		p.members[n.Name] = m
	}
	p.mu.Unlock()
	poke(p.changed)
}

func nodeAddr(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// broadcast is a queued state; a newer one of the same name takes its place
// without a scan of the queue.
type broadcast struct {
	name    string
	message []byte
}

var _ memberlist.NamedBroadcast = (*broadcast)(nil)

// Name implements memberlist.NamedBroadcast.
func (b *broadcast) Name() string { return b.name }

// Invalidates implements memberlist.Broadcast.
func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	named, ok := other.(memberlist.NamedBroadcast)
	return ok && named.Name() == b.name
}

// Message implements memberlist.Broadcast.
func (b *broadcast) Message() []byte { return b.message }

// Finished implements memberlist.Broadcast.
func (b *broadcast) Finished() {}
