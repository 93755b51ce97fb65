package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const (
	// lostLimit and lostFor bound the memory of members that went. The oldest
	// is forgotten first; seeds are never forgotten.
	lostLimit = 128
	lostFor   = 72 * time.Hour
	// rejoinBatch bounds the addresses tried in one round, chosen at random.
	rejoinBatch = 8
)

// lose remembers an address to try again. The caller holds p.mu.
func (p *Pool) lose(addr string, now time.Time) {
	p.lost[addr] = now
	if len(p.lost) <= lostLimit {
		return
	}
	oldest := addr
	for a, since := range p.lost {
		if since.Before(p.lost[oldest]) {
			oldest = a
		}
	}
	delete(p.lost, oldest)
}

// rejoinLoop reaches out to seeds and lost members for as long as the pool runs.
// The library itself gives up on a dead member for good after about a minute.
func (p *Pool) rejoinLoop(ctx context.Context) {
	for {
		p.rejoin(ctx)
		wait := rejoinInterval
		if len(p.config.Join) > 0 && p.alive.Load() <= 1 {
			wait = lonelyInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait + rand.N(wait/4)):
		}
	}
}

// rejoin tries one batch, all at once: a silent address costs its timeout, and
// must not keep the others waiting.
func (p *Pool) rejoin(ctx context.Context) {
	targets := p.absent(append(p.lostAddrs(time.Now()), p.resolveSeeds(ctx)...))
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	targets = targets[:min(len(targets), rejoinBatch)]
	var attempts sync.WaitGroup
	for _, addr := range targets {
		attempts.Go(func() {
			p.rejoins.Add(1)
			if _, err := p.list.Join([]string{addr}); err != nil {
				p.log.Debug("no answer from peer", "addr", addr, "error", err)
			}
		})
	}
	attempts.Wait()
}

func (p *Pool) lostAddrs(now time.Time) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var addrs []string
	for addr, since := range p.lost {
		if now.Sub(since) > lostFor {
			delete(p.lost, addr)
			continue
		}
		addrs = append(addrs, addr)
	}
	return addrs
}

// resolveSeeds resolves names anew in every round: the addresses behind a name
// change when servers are moved.
func (p *Pool) resolveSeeds(ctx context.Context) []string {
	var addrs []string
	for _, seed := range p.config.Join {
		host, port, err := net.SplitHostPort(seed)
		if err != nil {
			p.log.Warn("seed is not host:port", "seed", seed)
			continue
		}
		if net.ParseIP(host) != nil {
			addrs = append(addrs, seed)
			continue
		}
		lookup, cancel := context.WithTimeout(ctx, streamTimeout)
		ips, err := net.DefaultResolver.LookupHost(lookup, host)
		cancel()
		if err != nil {
			p.log.Warn("cannot resolve seed", "seed", seed, "error", err)
			continue
		}
		for _, ip := range ips {
			addrs = append(addrs, net.JoinHostPort(ip, port))
		}
	}
	return addrs
}

// absent drops duplicates, this process and everybody who is here.
func (p *Pool) absent(addrs []string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[string]bool{p.self: true}
	for _, m := range p.members {
		seen[m.Addr] = true
	}
	var missing []string
	for _, addr := range addrs {
		if !seen[addr] {
			seen[addr] = true
			missing = append(missing, addr)
		}
	}
	return missing
}
