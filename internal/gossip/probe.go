package gossip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/internal/pace"
)

// The kinds of a probe's messages: a nonce, and what follows. Each has its own
// workers, so that answers never wait behind questions. The library's own ping is of
// no use: it carries who is a member.
const (
	probePing   = "!ping"   // if you have this name, answer this address by a packet
	probeAsk    = "!ask"    // if you have this name, answer this address by a stream
	probeOther  = "!other"  // probe this name at this address, and tell me
	probeAnswer = "!answer" // a verdict
)

// Bits of a verdict.
const (
	verdictNoPing byte = 1 << iota
	verdictNoStream
	verdictRefused
)

const (
	// probePings is how many packets are sent before an address counts as not
	// reached, pingWait apart.
	probePings = 3
	pingWait   = time.Second
	// probeTime bounds a probe by way of another member, which takes its own.
	probeTime = 10 * time.Second
	// probeLimit bounds the probes under way, and probeSends those of them that
	// write, and answers to others' probes. More wait, as long as their context.
	probeLimit = 256
	probeSends = 8
	// askRate and askBurst are how often, a second and at once, one member may have
	// others probed here; askLimit bounds the members that have asked so lately that
	// it counts, and so how many may ask. The rest are refused and counted.
	askRate  = 2
	askBurst = 10
	askLimit = 16
)

// What a probe found out.
var (
	ErrNoPing   = errors.New("no answer to packets (UDP)")
	ErrNoStream = errors.New("no answer to streams (TCP)")
	ErrNoProbe  = errors.New("the member did not probe")
)

// Probe tells whether the pool of the given name is reached at addr, an IP address
// and port, and reaches this one: by packets, and by a stream each way. The other
// runs with the same label and keys, but need not be a member. Without a deadline
// it takes at most some ten seconds.
func (p *Pool) Probe(ctx context.Context, addr, name string) error {
	to := address{name: name, addr: addr}
	if _, err := to.node(); err != nil || len(name) > nameLimit {
		return fmt.Errorf("probe %q at %q: no name and address of a pool", name, addr)
	}
	pinged := make(chan error, 1)
	if !p.goWorker(func() { pinged <- p.ping(ctx, to) }) {
		return fmt.Errorf("probe %s: %w", addr, ErrClosed)
	}
	_, streamed := p.question(ctx, to, probeAsk, append(appendName(nil, name), p.Addr()...), 2*streamTimeout)
	if streamed != nil {
		streamed = fmt.Errorf("%w: %w", ErrNoStream, streamed)
	}
	var err error
	select {
	case err = <-pinged:
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrNoPing, ctx.Err())
	}
	if err := errors.Join(err, streamed); err != nil {
		return fmt.Errorf("probe %s: %w", addr, err)
	}
	return nil
}

// ProbeThrough has another member do what Probe does, and tells what it found.
// ErrNoProbe says that it found nothing: it could not be asked, or would not, as
// one member asks another ten times at once and then twice a second at most.
func (p *Pool) ProbeThrough(ctx context.Context, via, addr, name string) error {
	through, ok := p.lookup(via)
	if !ok {
		return fmt.Errorf("probe %s through %s: %w", addr, via, ErrUnknownMember)
	}
	to := address{name: name, addr: addr}
	if _, err := to.node(); err != nil || len(name) > nameLimit {
		return fmt.Errorf("probe %q at %q through %s: no name and address of a pool", name, addr, via)
	}
	body := append(appendName(nil, name), addr...)
	verdict, err := p.question(ctx, through, probeOther, body, probeTime+2*streamTimeout)
	if err != nil {
		return fmt.Errorf("probe %s through %s: %w: %w", addr, via, ErrNoProbe, err)
	}
	var found []error
	for bit, err := range map[byte]error{verdictNoPing: ErrNoPing, verdictNoStream: ErrNoStream, verdictRefused: ErrNoProbe} {
		if verdict&bit != 0 {
			found = append(found, err)
		}
	}
	if err := errors.Join(found...); err != nil {
		return fmt.Errorf("probe %s through %s: %w", addr, via, err)
	}
	return nil
}

func (p *Pool) ping(ctx context.Context, to address) error {
	var lost error
	for range probePings {
		if _, lost = p.question(ctx, to, probePing, append(appendName(nil, to.name), p.Addr()...), pingWait); lost == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: %w", ErrNoPing, lost)
}

// question sends a question and waits for the answer.
func (p *Pool) question(ctx context.Context, to address, kind string, body []byte, wait time.Duration) (verdict byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // crypto/rand never returns an error
	answer := make(chan byte, 1)
	p.mu.Lock()
	if len(p.probes) >= probeLimit {
		p.mu.Unlock()
		return 0, ErrBusy
	}
	p.probes[nonce] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.probes, nonce)
		p.mu.Unlock()
	}()
	if err := p.sendProbe(ctx, to, kind, append(nonce[:], body...)); err != nil {
		return 0, err
	}
	select {
	case verdict := <-answer:
		return verdict, nil
	case <-ctx.Done():
		return 0, ctx.Err() //nolint:wrapcheck // the callers wrap it
	case <-p.ctx.Done():
		return 0, ErrClosed
	}
}

// handleProbes answers questions, and takes in the answers to one's own.
func (p *Pool) handleProbes() {
	for _, kind := range []string{probePing, probeAsk} {
		p.handle(kind, func(ctx context.Context, from address, b []byte) {
			nonce, body, ok := p.cutNonce(b)
			if name, addr, whole := cutName(body); ok && whole && name == p.name {
				from.addr = string(addr)
				p.sendVerdict(ctx, from, kind == probePing, nonce, 0)
			}
		})
	}
	p.handle(probeOther, func(ctx context.Context, from address, b []byte) {
		if nonce, body, ok := p.cutNonce(b); ok {
			p.probeFor(ctx, from.name, nonce, body)
		}
	})
	p.handle(probeAnswer, func(_ context.Context, _ address, b []byte) {
		nonce, body, ok := p.cutNonce(b)
		p.mu.Lock()
		defer p.mu.Unlock()
		if answer := p.probes[nonce]; ok && answer != nil {
			answer <- body[0]
			delete(p.probes, nonce)
		}
	})
}

func (p *Pool) cutNonce(b []byte) (nonce [8]byte, body []byte, ok bool) {
	if len(b) <= len(nonce) {
		p.malformed.Add(1)
		return nonce, nil, false
	}
	return [8]byte(b), b[len(nonce):], true
}

// probeFor probes in the name of another member.
func (p *Pool) probeFor(ctx context.Context, asker string, nonce [8]byte, body []byte) {
	from, known := p.lookup(asker)
	name, addr, ok := cutName(body)
	switch {
	case !known || !ok || len(name) > nameLimit:
		p.dropped.Add(1)
		return
	case !p.mayAsk(asker, time.Now()):
		p.dropped.Add(1)
		p.sendVerdict(ctx, from, false, nonce, verdictRefused)
		return
	}
	within, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := p.Probe(within, string(addr), name)
	verdict := byte(0)
	if errors.Is(err, ErrNoPing) {
		verdict |= verdictNoPing
	}
	if errors.Is(err, ErrNoStream) {
		verdict |= verdictNoStream
	}
	if err != nil && verdict == 0 {
		verdict = verdictRefused
	}
	p.sendVerdict(ctx, from, false, nonce, verdict)
}

func (p *Pool) mayAsk(name string, now time.Time) bool {
	limit := pace.Limit{Rate: askRate, Burst: askBurst}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked[name] == nil {
		for asker, b := range p.asked {
			if b.Wait(now.UnixNano(), askBurst, limit) == 0 {
				delete(p.asked, asker)
			}
		}
		if len(p.asked) >= askLimit {
			return false
		}
		p.asked[name] = new(pace.Bucket)
	}
	return p.asked[name].Take(now.UnixNano(), 1, limit)
}

func (p *Pool) sendVerdict(ctx context.Context, to address, packet bool, nonce [8]byte, verdict byte) {
	body := append(nonce[:], verdict)
	if packet {
		p.sendPacket(to, p.newKind(probeAnswer, body))
		return
	}
	if err := p.sendProbe(ctx, to, probeAnswer, body); err != nil {
		p.log.Debug("cannot answer a probe", "addr", to.addr, "error", err)
	}
}

// sendProbe sends by a packet what asks for a packet, and all else by a stream.
func (p *Pool) sendProbe(ctx context.Context, to address, kind string, body []byte) error {
	if kind == probePing {
		p.sendPacket(to, p.newKind(kind, body))
		return nil
	}
	select {
	case p.probeSends <- struct{}{}:
		return p.sendTo(ctx, p.probeSends, to, kind, body)
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the callers wrap it
	}
}
