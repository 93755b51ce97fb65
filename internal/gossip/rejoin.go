package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

const (
	// seedLimit bounds the seeds; the oldest is forgotten first.
	seedLimit = 64
	// rejoinBatch bounds the lost members asked in one round, and the seeds tried while
	// nobody is known; seedBatch bounds the seeds tried in company.
	rejoinBatch = 8
	seedBatch   = 2
	// doubtRounds is in how many rounds, on average, a member that does not reach others
	// well exchanges its state with one that it knows.
	doubtRounds = 3
	// knockWait is how long lost members have to answer.
	knockWait = time.Second
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
		if !seam.Bug(seam.NoRejoin) || p.alive.Load() <= 1 {
			p.rejoin(ctx)
		}
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

// rejoin tries some seeds and lost members, all at once: a silent address costs its
// timeout, and must not keep the others waiting.
//
// Lost members are asked by a packet each, and the state is exchanged with one of those
// that answer: it has news of the others. When a partition heals everybody finds
// everybody at the same moment, and an exchange is as long as the pool is large.
//
// A partition may also end before anybody counts as dead. Then many are suspected who
// have not heard of it, and would be lost for a moment when that ends, long after the
// partition: the library's exchanges leave suspects out. So a member that has reason to
// doubt itself exchanges its state with any other now and then.
func (p *Pool) rejoin(ctx context.Context) {
	seeds := shuffled(p.absent(p.resolveSeeds(ctx)))
	limit := seedBatch
	if p.alive.Load() <= 1 {
		limit = rejoinBatch
	}
	targets := seeds[:min(len(seeds), limit)]
	if p.list.GetHealthScore() > 0 && rand.N(doubtRounds) == 0 {
		for _, m := range p.someMembers(1) {
			targets = append(targets, m.addr)
		}
	}
	var attempts sync.WaitGroup
	for _, addr := range targets {
		attempts.Go(func() { p.exchange(addr, 1) })
	}
	if lost := p.lostDue(time.Now(), rejoinBatch); len(lost) > 0 {
		// In a first exchange each side learns that the other holds it dead, and
		// takes it back; the second tells.
		if addr := p.knock(ctx, lost); ctx.Err() == nil {
			p.exchange(addr, 2)
		}
	}
	attempts.Wait()
}

// exchange exchanges the state with whoever is at an address.
func (p *Pool) exchange(addr string, times int) {
	for range times {
		p.rejoins.Add(1)
		if _, err := p.list.Join([]string{addr}); err != nil {
			p.log.Debug("no answer from peer", "addr", addr, "error", err)
			return
		}
	}
}

// knock asks members for an answer by a packet, and returns the address of the first
// that gives one. It asks for names, which are those of one run of a process: one that
// has started anew does not answer. If none answers, the address is that of the first
// that was asked, for a stream that asks for no name: there may be another process by
// now, or packets do not get through.
func (p *Pool) knock(ctx context.Context, lost []address) string {
	ctx, cancel := context.WithTimeout(ctx, knockWait)
	defer cancel()
	answers := make(chan string, len(lost))
	var asked sync.WaitGroup
	for _, to := range lost {
		asked.Go(func() {
			if _, err := p.question(ctx, to, probePing, append(appendName(nil, to.name), p.Addr()...), knockWait); err == nil {
				answers <- to.addr
				cancel()
			}
		})
	}
	asked.Wait()
	select {
	case addr := <-answers:
		return addr
	default:
		return lost[0].addr
	}
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
