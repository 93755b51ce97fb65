package api

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/pace"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// verifyTime is what a verification of an address may take, verifyPause the least
	// time between two of one session.
	verifyTime  = 15 * time.Second
	verifyPause = 5 * time.Second
	// verifyAgain and verifyLate bound the time, which doubles, until an address that
	// was not reached is tried again.
	verifyAgain = 5 * time.Second
	verifyLate  = 5 * time.Minute
)

// Why an instance is not granted what it wants.
const (
	poolFull     = "the pool has as many members as it takes"
	noAddress    = "it has told no address yet"
	notYetProven = "its address is being verified"
)

// proof is whether an instance can be reached where it says. It is guarded by the
// mutex of participant.
type proof struct {
	address, member string
	began           time.Time // the last attempt, whatever its address
	again           time.Time // when the next one is due
	failures        int
	running, ok     bool
	why             string // the last attempt failed
}

// verify tells why the instance may not join the pool, and begins to find out whether
// it can be reached when that is due; empty when it may.
func (p *participant) verify(now time.Time, wants *holdfastv1.GossipState) (why string) {
	address, member := wants.GetAddress(), wants.GetMember()
	if address == "" || member == "" {
		return noAddress
	}
	if why := checkGossipAddress(address, member, p.who.Host); why != "" {
		return why
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proof.address != address || p.proof.member != member {
		p.proof = proof{address: address, member: member, began: p.proof.began, running: p.proof.running}
	}
	switch {
	case p.proof.ok:
		return ""
	case p.proof.running:
		return notYetProven
	}
	due := p.proof.again
	if earliest := p.proof.began.Add(verifyPause); earliest.After(due) {
		due = earliest
	}
	switch {
	case now.Before(due):
		p.within(due.Sub(now))
	case !p.of.checks.take():
		p.within(time.Second)
	default:
		p.proof.running, p.proof.began, p.proof.why = true, now, ""
		p.checking.Go(func() { p.check(address, member) })
	}
	if p.proof.why != "" {
		return p.proof.why
	}
	return notYetProven
}

// check finds out whether the instance can be reached.
func (p *participant) check(address, member string) {
	defer p.wake()
	defer p.of.checks.release()
	ctx, cancel := context.WithTimeout(p.ctx, verifyTime)
	defer cancel()
	err := p.space.pool.Verify(ctx, address, member)
	p.of.metrics.verified(err == nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	is := &p.proof
	is.running = false
	switch {
	case is.address != address || is.member != member: // it has moved meanwhile
	case err == nil:
		is.ok = true
	default:
		is.why = fmt.Sprintf("it cannot be reached at %s: %v", address, err)
		is.again = is.began.Add(min(verifyAgain<<min(is.failures, 10), verifyLate))
		is.failures++
	}
}

// checkGossipAddress says what is wrong with where an instance wants to be reached.
// A name would be looked up, and loopback is somebody else seen from here.
func checkGossipAddress(address, member, observed string) (why string) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return "its address " + quoted(address) + " is no IP address with a port"
	}
	ip := at.Addr().Unmap()
	seen, _ := netip.ParseAddr(observed)
	switch {
	case at.Port() == 0 || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "its address " + quoted(address) + " is none that others can reach"
	case ip.IsLoopback() && !seen.IsLoopback():
		return "its address " + quoted(address) + " is its own host's only"
	}
	if err := document.CheckName(member); err != nil {
		return "its name in the pool cannot be one: " + err.Error()
	}
	return ""
}

// quoted shows what somebody said, bounded and printable.
func quoted(text string) string { return strconv.Quote(cut(text, 64)) }

// says takes how the instance takes part now.
func (p *participant) says(state *holdfastv1.GossipState) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.wants = state
	p.proof.again = time.Time{} // it asks anew
	p.mu.Unlock()
	p.wake()
}

// hands takes what the instance observed. What comes too fast, is too large, or before
// it was granted is dropped; what is not its own is refused.
func (p *participant) hands(record []byte) {
	if p == nil {
		return
	}
	p.mu.Lock()
	space, granted := p.space, p.mode == modeRelayed || p.mode == modeDirect
	p.mu.Unlock()
	result := "taken"
	switch {
	case !granted || len(record) > MaxEvidenceBytes || !p.evidence.Take(time.Now().UnixNano(), 1, pace.Limit{Rate: MaxEvidenceRate, Burst: MaxEvidenceBurst}):
		result = "dropped"
	default:
		if err := space.pool.Take(record, p.who.ID); err != nil {
			result = "refused"
			if !p.warned {
				p.warned = true
				p.logger.Warn("an instance hands in what is not its own record", "namespace", p.namespace, "instance", p.who.ID, "host", p.who.Host, "cause", err)
			}
		}
	}
	p.of.metrics.evidence.WithLabelValues(result).Inc()
}
