package gossip

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/holdfast-dev/holdfast/internal/pace"
)

const (
	// eagerFanout is how many members are told of news at once. Five reach all
	// but e^-5 of the members within a few hops.
	eagerFanout = 5
	// eagerRate and eagerBurst bound the messages pushed, each to eagerFanout
	// members. What is beyond them goes round by the queue only.
	eagerRate  = 100
	eagerBurst = 100
	// bulkyLimit bounds the records that wait for a stream. Further ones wait for
	// the periodic exchange.
	bulkyLimit = 64
)

// batch is a message that holds messages, each behind its length; its own name is
// empty.
type batch struct {
	bytes   []byte
	entries []entry
	last    []byte
}

func newBatch() batch { return batch{bytes: []byte{0}} }

func (b *batch) add(e entry, message []byte) {
	b.bytes, b.entries, b.last = appendBlock(b.bytes, message), append(b.entries, e), message
}

// room is how long one more message may be.
func (b *batch) room(budget int) int { return budget - len(b.bytes) - (batchOverhead - 1) }

// message is what to send: a message that is alone needs no batch round it.
func (b *batch) message() []byte {
	if len(b.entries) == 1 {
		return b.last
	}
	return b.bytes
}

// pushEager sends the records that wait for it to a few members at once, several
// in a packet where they fit.
func (p *Pool) pushEager() {
	waiting := p.queue.takePush()
	if len(waiting) == 0 {
		return
	}
	b := newBatch()
	for _, it := range waiting {
		message := it.channel.news(it)
		switch {
		case message == nil:
		case batchOverhead+len(message) > p.budget:
			p.queue.drop(it.entry, false)
			p.pushBulky(it)
		default:
			if len(message) > b.room(p.budget) {
				p.push(&b)
				b = newBatch()
			}
			b.add(it.entry, message)
		}
	}
	p.push(&b)
}

func (p *Pool) push(b *batch) {
	if len(b.entries) == 0 {
		return
	}
	if !p.pushes.Take(time.Now().UnixNano(), 1, pace.Limit{Rate: eagerRate, Burst: eagerBurst}) {
		p.eagerSkipped.Add(1)
		return
	}
	targets := p.someMembers(eagerFanout)
	for _, to := range targets {
		p.eagerSent.Add(1)
		p.sendPacket(to, b.message())
	}
	for _, e := range b.entries {
		p.queue.credit(e, len(targets))
	}
}

// gossip sends a packet of what was sent least often to a few members. The library
// would do so, after its own messages: while many members come and go it would send
// nothing else.
func (p *Pool) gossip() {
	b := newBatch()
	var sent []*item
	for missed := 0; missed < misfits; {
		it, now := p.queue.take(b.room(p.budget))
		if it == nil {
			break
		}
		message := it.channel.news(now)
		switch {
		case message == nil:
			p.queue.drop(it.entry, true)
		case batchOverhead+len(message) > p.budget:
			p.queue.drop(it.entry, true)
			p.pushBulky(now)
		case len(message) > b.room(p.budget):
			p.queue.giveBack(it, len(message), 0)
			missed++
		default:
			b.add(it.entry, message)
			sent = append(sent, it)
		}
	}
	if len(sent) == 0 {
		return
	}
	targets := p.someMembers(p.fanout)
	for _, to := range targets {
		p.sendPacket(to, b.message())
	}
	for _, it := range sent {
		p.queue.giveBack(it, 0, max(1, len(targets)))
	}
}

// sendPacket sends to one member, once. What is lost is lost.
func (p *Pool) sendPacket(to address, message []byte) {
	_ = p.list.SendToAddress(memberlist.Address{Addr: to.addr, Name: to.name}, message)
}

// pushBulky sends a record that fits no packet to a few members by streams, in
// the background, one record at a time.
func (p *Pool) pushBulky(it item) {
	p.oversize.Add(1)
	if it.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bulky == nil {
		p.bulky = make(map[entry]item)
	}
	if _, waiting := p.bulky[it.entry]; !waiting && len(p.bulky) >= bulkyLimit {
		return
	}
	p.bulky[it.entry] = it
	if !p.bulkyBusy && p.goLocked(p.sendBulky) {
		p.bulkyBusy = true
	}
}

func (p *Pool) sendBulky() {
	for {
		p.mu.Lock()
		var next item
		for _, it := range p.bulky {
			next = it
			break
		}
		if next.channel == nil || p.ended {
			p.bulkyBusy = false
			p.mu.Unlock()
			return
		}
		delete(p.bulky, next.entry)
		p.mu.Unlock()
		p.sendStreams(next)
	}
}

func (p *Pool) sendStreams(it item) {
	message := it.channel.news(it)
	if message == nil || len(message) > recordLimit {
		return
	}
	var streams sync.WaitGroup
	for _, to := range p.someMembers(eagerFanout) {
		streams.Go(func() {
			if err := p.sendStream(to, message); err != nil {
				p.log.Debug("cannot send a long record", "member", to.name, "error", err)
			}
		})
	}
	streams.Wait()
}

// sendStream sends over a stream of its own, within the timeout of streams.
func (p *Pool) sendStream(to address, message []byte) error {
	node, err := to.node()
	if err != nil {
		return err
	}
	return p.list.SendReliable(node, message) //nolint:wrapcheck // the callers say what was sent
}

// address is where a member is.
type address struct{ name, addr string }

func (a address) node() (*memberlist.Node, error) {
	at, err := netip.ParseAddrPort(a.addr)
	if err != nil {
		return nil, err //nolint:wrapcheck // names the address
	}
	return &memberlist.Node{Name: a.name, Addr: net.IP(at.Addr().AsSlice()), Port: at.Port()}, nil
}

// someMembers returns up to n other members, chosen at random.
func (p *Pool) someMembers(n int) []address {
	p.mu.Lock()
	defer p.mu.Unlock()
	chosen := make([]address, 0, n)
	if len(p.others) <= 2*n {
		for _, i := range rand.Perm(len(p.others))[:min(n, len(p.others))] {
			chosen = append(chosen, p.others[i])
		}
		return chosen
	}
	seen := make([]int, 0, n)
	for len(chosen) < n {
		i := rand.IntN(len(p.others))
		if !slices.Contains(seen, i) {
			seen, chosen = append(seen, i), append(chosen, p.others[i])
		}
	}
	return chosen
}

func shuffled[T any](s []T) []T {
	rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}
