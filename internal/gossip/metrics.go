package gossip

import (
	"sync/atomic"
	"time"
)

// Metrics is a snapshot of the pool's counters.
type Metrics struct {
	// Members is the number of processes alive, this one included.
	Members int
	// Left counts members that went after a farewell.
	Left uint64
	// Silence is how long ago anything came in; from the start if nothing did.
	Silence time.Duration
	// Received and Dropped count user messages taken in, and refused because too
	// many waited or because the sender is unknown.
	Received, Dropped uint64
	// Malformed counts messages and states that could not be read.
	Malformed uint64
	// Oversize counts records and meta data too large for a packet.
	Oversize uint64
	// Rejoins counts attempts to reach a lost peer or a seed.
	Rejoins uint64
	// Merged counts records taken in, and News those of them that were news.
	Merged, News uint64
	// Queued is the number of records that wait to be sent.
	Queued int
	// EagerSent counts packets pushed with news, and EagerSkipped messages that
	// went by the queue only because too many were pushed.
	EagerSent, EagerSkipped uint64
	// Repairs counts digests that differed.
	Repairs uint64
	// SentPackets and SentBytes count packets, those of the library included, and
	// their bytes with those of streams that this process opened.
	SentPackets, SentBytes uint64
	// ReceivedPackets and ReceivedBytes count what came in, with the bytes of
	// streams that others opened. They stay 0 on a network in memory.
	ReceivedPackets, ReceivedBytes uint64
	// FirstSight counts how old news was when it was first seen: element i counts
	// ages below 2^i milliseconds that no earlier one counts, the last all others.
	// Ages are summed over the processes that news waited in, without the time on
	// the network.
	FirstSight [sightBuckets]uint64
	// Health is the library's doubt about this process; 0 is well.
	Health int
}

type counters struct {
	alive, heard                           atomic.Int64 // heard: Unix nanoseconds
	received, dropped, malformed, oversize atomic.Uint64
	rejoins, left, merged, news            atomic.Uint64
	eagerSent, eagerSkipped, repairs       atomic.Uint64
	sentPackets, sentBytes                 atomic.Uint64
	firstSight                             [sightBuckets]atomic.Uint64
}

// receiver is a transport that counts.
type receiver interface {
	received() (packets, bytes uint64)
}

// intake counts what a transport receives.
type intake struct{ packets, bytes atomic.Uint64 }

func (i *intake) received() (packets, bytes uint64) { return i.packets.Load(), i.bytes.Load() }

func (i *intake) take(packet []byte) {
	i.packets.Add(1)
	i.bytes.Add(uint64(len(packet)))
}

func (c *counters) hear() { c.heard.Store(time.Now().UnixNano()) }

// Metrics returns the counters.
func (p *Pool) Metrics() Metrics {
	m := Metrics{
		Members:      int(p.alive.Load()),
		Left:         p.left.Load(),
		Received:     p.received.Load(),
		Dropped:      p.dropped.Load(),
		Malformed:    p.malformed.Load(),
		Oversize:     p.oversize.Load(),
		Rejoins:      p.rejoins.Load(),
		Merged:       p.merged.Load(),
		News:         p.news.Load(),
		Queued:       p.queue.len(),
		EagerSent:    p.eagerSent.Load(),
		EagerSkipped: p.eagerSkipped.Load(),
		Repairs:      p.repairs.Load(),
		SentPackets:  p.sentPackets.Load(),
		SentBytes:    p.sentBytes.Load(),
	}
	if t, ok := p.transport.(receiver); ok {
		m.ReceivedPackets, m.ReceivedBytes = t.received()
	}
	for i := range m.FirstSight {
		m.FirstSight[i] = p.firstSight[i].Load()
	}
	if p.list != nil {
		m.Health = p.list.GetHealthScore()
		m.Silence = max(0, time.Duration(time.Now().UnixNano()-p.heard.Load()))
	}
	return m
}
