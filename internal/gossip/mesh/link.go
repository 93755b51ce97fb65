package mesh

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Link is how packets travel from one transport to another. The zero Link delivers at
// once.
type Link struct {
	// Latency is the median of the delays. Spread is how much they vary: the standard
	// deviation of their natural logarithm, since delays in networks are about
	// log-normal. With 0.5 one in a hundred takes three times as long as the median.
	Latency time.Duration
	Spread  float64
	// Loss is the share of packets that get lost. Streams do not lose anything, but
	// with a loss of 1 none is opened.
	Loss float64
}

func (l Link) delay(random *rand.Rand) time.Duration {
	if l.Latency <= 0 || l.Spread <= 0 {
		return l.Latency
	}
	return time.Duration(float64(l.Latency) * math.Exp(l.Spread*random.NormFloat64()))
}

// calendar delivers packets when they are due, a tick's at a time.
type calendar struct {
	mu    sync.Mutex
	start time.Time // the tick 0
	due   map[int64][]arrival
}

type arrival struct {
	to     *Transport
	packet packet
}

// add delivers a packet after a delay, rounded up to a tick.
func (c *calendar) add(now time.Time, delay time.Duration, a arrival) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due == nil {
		c.due, c.start = make(map[int64][]arrival), now
	}
	at := int64((now.Sub(c.start) + delay + tick - 1) / tick)
	if c.due[at] == nil {
		time.AfterFunc(c.start.Add(time.Duration(at)*tick).Sub(now), func() { c.deliver(at) })
	}
	c.due[at] = append(c.due[at], a)
}

func (c *calendar) deliver(at int64) {
	c.mu.Lock()
	arrivals := c.due[at]
	delete(c.due, at)
	c.mu.Unlock()
	for i := range arrivals {
		arrivals[i].to.flight.Add(-1)
		arrivals[i].to.deliver(arrivals[i].packet)
	}
}
