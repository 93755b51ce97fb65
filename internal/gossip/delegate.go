package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// delegate is what the library calls. Its event methods, and NotifyAlive, run under
// the library's node lock: they copy and return, and never call the library.
type delegate struct{ p *Pool }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.AliveDelegate = delegate{}
	_ memberlist.PingDelegate  = delegate{}
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
	p := d.p
	p.hear()
	if len(message) > MaxMessage+2*(1+nameLimit) {
		p.dropped.Add(1)
		return
	}
	name, _, ok := cutName(message)
	handler := p.handlers[name]
	if !ok || handler == nil && len(message) > recordLimit { // nobody sends records like that
		p.malformed.Add(1)
		return
	}
	message = bytes.Clone(message)
	if handler != nil {
		p.received.Add(1)
		handler.deliver(message[1+len(name):])
		return
	}
	select {
	case p.inbox <- message:
		p.received.Add(1)
	default:
		p.dropped.Add(1)
	}
}

// GetBroadcasts implements memberlist.Delegate. The pool sends its news itself.
func (delegate) GetBroadcasts(_, _ int) [][]byte { return nil }

// AckPayload implements memberlist.PingDelegate.
func (d delegate) AckPayload() (digests []byte) {
	d.p.hear()
	d.p.contained(func() { digests = d.p.digests() })
	return digests
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, payload []byte) {
	d.p.hear()
	if from, ok := d.p.lookup(n.Name); ok {
		d.p.contained(func() { d.p.compare(from, payload) })
	}
}

// LocalState implements memberlist.Delegate: a message of each channel.
func (d delegate) LocalState(bool) []byte {
	var state []byte
	for _, c := range d.p.channels {
		d.p.contained(func() {
			if message := c.exchange(); message != nil {
				state = appendBlock(state, message)
			}
		})
	}
	return state
}

// MergeRemoteState implements memberlist.Delegate. It runs on the goroutine of
// one stream. What was learned is passed on, so that an exchange between the two
// sides of a healed partition reaches everybody.
func (d delegate) MergeRemoteState(state []byte, _ bool) {
	d.p.hear()
	err := errTruncated
	if len(state) <= stateLimit {
		err = eachBlock(state, d.p.receiveOne)
	}
	if err != nil {
		d.p.malformed.Add(1)
		d.p.log.Warn("unreadable state from a peer", "bytes", len(state), "error", err)
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
	if len(n.Name) > nameLimit {
		return errors.New("name too long")
	}
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	if d.p.members[n.Name] == nil && len(d.p.members) >= memberLimit {
		return fmt.Errorf("the pool has %d members already", memberLimit)
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	seam.Event("member", "pool", d.p.config.Label, "name", n.Name, "here", true)
	d.p.arrive(Member{Name: n.Name, Addr: nodeAddr(n), Meta: bytes.Clone(n.Meta), Since: time.Now()})
	poke(d.p.changed)
}

// NotifyLeave implements memberlist.EventDelegate. The library does not tell
// whether a member left or died.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	seam.Event("member", "pool", d.p.config.Label, "name", n.Name, "here", false)
	d.p.depart(n.Name, nodeAddr(n), time.Now())
	poke(d.p.changed)
}

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) {
	p := d.p
	p.mu.Lock()
	if m := p.members[n.Name]; m != nil {
		m.Addr, m.Meta = nodeAddr(n), bytes.Clone(n.Meta)
		if m.at >= 0 {
			p.others[m.at].addr = m.Addr
		}
	}
	p.mu.Unlock()
	poke(p.changed)
}

func nodeAddr(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}
