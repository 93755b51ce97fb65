package fleet

import "time"

// pace lets so many events pass in a second, and a burst of them at once. Its zero
// value has not begun: the first call finds the burst.
type pace struct {
	tokens float64
	at     int64
	begun  bool
}

// ready tells whether an event may pass now.
func (p *pace) ready(now int64, rate, burst float64) bool {
	if !p.begun {
		p.tokens, p.at, p.begun = burst, now, true
	}
	p.tokens = min(burst, p.tokens+rate*time.Duration(now-p.at).Seconds())
	p.at = now
	return p.tokens >= 1
}

// spend takes one, after ready.
func (p *pace) spend() { p.tokens-- }

// wait returns how long it takes until one may pass, after ready.
func (p *pace) wait(rate float64) time.Duration {
	return max(0, time.Duration((1-p.tokens)/rate*float64(time.Second)))
}
