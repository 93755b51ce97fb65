package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// seedLimit bounds the seeds; the oldest is forgotten first.
	seedLimit = 64
	// rejoinBatch bounds the lost addresses tried in one round, and the seeds.
	rejoinBatch = 8
)

// Join adds seeds (host:port) and tries them at once.
func (p *Pool) Join(addrs ...string) {
	p.mu.Lock()
	for _, addr := range addrs {
		p.seeds = append(slices.DeleteFunc(p.seeds, func(known string) bool { return known == addr }), addr)
	}
	p.seeds = p.seeds[max(0, len(p.seeds)-seedLimit):]
	p.mu.Unlock()
	poke(p.rejoinNow)
}

func (p *Pool) knownSeeds() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seeds)
}

// rejoinLoop reaches out to seeds and lost members for as long as the pool runs.
// The library itself gives up on a dead member for good after about a minute.
func (p *Pool) rejoinLoop(ctx context.Context) {
	for {
		p.rejoin(ctx)
		wait := rejoinInterval
		if p.alive.Load() <= 1 && len(p.knownSeeds()) > 0 {
			wait = lonelyInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-p.rejoinNow:
		case <-time.After(wait + rand.N(wait/4)):
		}
	}
}

// rejoin tries one batch, all at once: a silent address costs its timeout, and
// must not keep the others waiting.
func (p *Pool) rejoin(ctx context.Context) {
	seeds := shuffled(p.absent(p.resolveSeeds(ctx)))
	targets := p.absent(append(p.lostDue(time.Now(), rejoinBatch), seeds[:min(len(seeds), rejoinBatch)]...))
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

// resolveSeeds resolves names anew in every round: the addresses behind a name
// change when servers are moved.
func (p *Pool) resolveSeeds(ctx context.Context) []string {
	var addrs []string
	for _, seed := range p.knownSeeds() {
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
