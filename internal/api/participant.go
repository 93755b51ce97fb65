package api

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-dev/holdfast/internal/pace"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// certifyPause is the time until a certificate that could not be had is asked for
// again, or a pool that could not be joined.
const certifyPause = 5 * time.Second

// participant is the part of a session that has to do with gossip. Nothing that is
// wrong with it ends the session: what was decided does not depend on what is
// observed.
type participant struct {
	of        *fleetSpaces
	heads     *signedHeads
	encoder   *encoder
	replica   Replica
	logger    *slog.Logger
	namespace string
	who       Participant // its key is that of wants
	// woken makes the handler look whether there is something to tell. It holds one.
	woken chan struct{}
	timer *time.Timer // wakes
	// checking is the verification that runs. It ends with ctx.
	checking sync.WaitGroup
	ctx      context.Context //nolint:containedctx // ends what leave waits for
	cancel   context.CancelFunc

	// What follows belongs to the goroutine that reads.
	evidence pace.Bucket
	warned   bool // a record was refused

	mu    sync.Mutex
	space *fleetSpace // nil while there is none
	wants *holdfastv1.GossipState
	proof proof
	mode  string // granted

	// What follows belongs to the handler's goroutine.
	retry     time.Time // when to ask for the pool again
	why       string    // why there is no pool
	cert      certificate
	told      terms
	counted   bool          // among those who may join the pool
	next      time.Duration // when to look again; 0 for no time
	cursor    uint64        // in the records of the pool
	relayedAt time.Time     // when records were sent last
	timestamp *holdfastv1.SignedHead
}

// certificate is the key of an instance, certified.
type certificate struct {
	of    string // the key
	bytes []byte
	renew time.Time
}

// terms is all that settings are made of, to see whether they have become others.
type terms struct {
	grant grant
	all   *fleetTerms
	cert  *byte // the first one of the certificate
}

// grant is how an instance may take part.
type grant struct {
	mode string
	why  string // not more
	// joins is true where the instance is to know how to join the pool: it cannot be
	// verified before it has a socket.
	joins bool
}

// participate begins the gossip of a session; nil where there is none. The caller calls
// leave when it is over.
func (s *sessionService) participate(ctx context.Context, h *hello) *participant {
	if s.spaces.fleet == nil || h.gossip == nil {
		return nil
	}
	p := &participant{
		of: s.spaces, heads: s.heads, encoder: s.encoder, replica: s.replica, logger: s.logger,
		namespace: h.namespace, wants: h.gossip, woken: make(chan struct{}, 1),
		who: Participant{ID: h.identity.GetId(), Service: h.identity.GetService(), Zone: h.identity.GetLabels()[zoneLabel]},
	}
	if from, ok := peer.FromContext(ctx); ok {
		p.who.Host = hostOf(from.Addr.String())
	}
	p.timer = time.AfterFunc(certifyPause, p.wake)
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// leave ends the gossip of a session.
func (p *participant) leave() {
	if p == nil {
		return
	}
	p.cancel()
	p.timer.Stop()
	p.checking.Wait()
	p.count(false)
	p.of.metrics.participates(p.mode, "")
	if p.space != nil {
		p.space.dismiss(p)
		p.space.leave()
	}
}

// wake has the handler look whether there is something to tell. It never blocks.
func (p *participant) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// within has the handler look again after a while.
func (p *participant) within(d time.Duration) {
	if d = max(d, time.Millisecond); p.next == 0 || d < p.next {
		p.next = d
	}
}

// step tells the instance whatever there is to tell, beside what was decided.
func (p *participant) step(ctx context.Context, stream grpc.ServerStream) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	p.next = 0
	p.enter(now)
	g := p.grant(now)
	if err := p.settle(stream, g); err != nil {
		return err
	}
	if g.mode == modeRelayed {
		if err := p.relay(stream, now); err != nil {
			return err
		}
	}
	if p.next > 0 {
		p.timer.Reset(p.next)
	}
	return nil
}

// enter joins the pool, unless that has been done.
func (p *participant) enter(now time.Time) {
	if p.space != nil {
		return
	}
	if now.Before(p.retry) {
		p.within(p.retry.Sub(now))
		return
	}
	space, err := p.of.enter(p.namespace)
	if err != nil {
		p.why, p.retry = "this server is not in the pool: "+err.Error(), now.Add(certifyPause)
		p.within(certifyPause)
		return
	}
	p.mu.Lock()
	p.space = space
	p.mu.Unlock()
	space.enlist(p)
}

// grant decides how the instance may take part.
func (p *participant) grant(now time.Time) grant {
	p.mu.Lock()
	wants := p.wants
	p.mu.Unlock()
	mode := wants.GetMode()
	switch {
	case mode == "" || mode == modeOff:
		return grant{mode: modeOff}
	case mode != modeRelayed && mode != modeDirect:
		return grant{mode: modeOff, why: "this server does not know the mode " + quoted(mode)}
	case len(wants.GetPublicKey()) != ed25519.PublicKeySize:
		return grant{mode: modeOff, why: "the public key is none of Ed25519"}
	case p.space == nil:
		return grant{mode: modeOff, why: p.why}
	}
	if why := p.certify(now, wants.GetPublicKey()); why != "" {
		return grant{mode: modeOff, why: why}
	}
	switch {
	case mode == modeRelayed:
		return grant{mode: modeRelayed}
	case !p.counted && p.space.full(p.who.ID):
		return grant{mode: modeRelayed, why: poolFull}
	}
	if why := p.verify(now, wants); why != "" {
		return grant{mode: modeRelayed, why: why, joins: true}
	}
	return grant{mode: modeDirect, joins: true}
}

// certify sees to it that the instance has a certificate, or says why not.
func (p *participant) certify(now time.Time, key []byte) (why string) {
	same := p.cert.bytes != nil && p.cert.of == string(key)
	if same && now.Before(p.cert.renew) {
		return ""
	}
	who := p.who
	who.PublicKey = key
	b, renew, err := p.space.pool.Certify(who)
	switch {
	case err == nil:
		p.cert = certificate{of: string(key), bytes: b, renew: renew}
	case same: // what it has is valid for a while yet
		p.within(certifyPause)
	default:
		p.within(certifyPause)
		return "its key is not certified: " + err.Error()
	}
	return ""
}

// settle tells the instance its settings, if they are not those that it has.
func (p *participant) settle(stream grpc.ServerStream, g grant) error {
	is := terms{grant: g}
	if p.space != nil {
		is.all = p.space.terms.Load()
	}
	if g.mode != modeOff {
		is.cert = &p.cert.bytes[0]
	}
	if is == p.told {
		return nil
	}
	p.mu.Lock()
	was := p.mode
	p.mode = g.mode
	p.mu.Unlock()
	p.of.metrics.participates(was, g.mode)
	p.count(g.mode == modeDirect)
	settings := &holdfastv1.GossipSettings{Mode: g.mode, Why: g.why}
	if is.all != nil {
		settings.Signers = is.all.signers
	}
	if g.mode != modeOff {
		settings.Certificate = p.cert.bytes
		settings.Population = is.all.told(p.who.Service)
	}
	if g.joins {
		settings.Seeds, settings.Label, settings.Keys = is.all.settings.GetSeeds(), is.all.settings.GetLabel(), is.all.settings.GetKeys()
	}
	p.told = is
	p.encoder.metrics.messages.WithLabelValues("gossip").Inc()
	return stream.SendMsg(&holdfastv1.ConnectResponse{
		Epoch: p.replica.View().Epoch().Proto(), StateTime: timestamppb.New(p.replica.StateTime()), Gossip: settings,
	})
}

// count counts the instance among those that may join the pool, or not any more.
func (p *participant) count(direct bool) {
	if p.counted == direct {
		return
	}
	p.counted = direct
	if direct {
		p.space.joins(1)
	} else {
		p.space.joins(-1)
	}
}

// relay sends what others have observed, at most every evidencePause.
func (p *participant) relay(stream grpc.ServerStream, now time.Time) error {
	if early := evidencePause - now.Sub(p.relayedAt); early > 0 {
		p.within(early)
		return nil
	}
	message, cursor := p.space.evidence(p.cursor)
	if p.cursor = cursor; cursor != p.space.batch.Load().to {
		p.within(evidencePause)
	}
	if message == nil {
		return nil
	}
	head, err := p.encoder.head(p.replica.View().Epoch(), p.replica.StateTime())
	if err != nil {
		return err
	}
	p.relayedAt = now
	p.encoder.metrics.messages.WithLabelValues("evidence").Inc()
	return stream.SendMsg(&frame{head: head, body: message.body})
}

// proofs returns the fields that go with an event: the signed head, and the timestamp
// when it is a new one. They may be appended to any message of the session.
func (p *participant) proofs(key headKey) []byte {
	if p == nil {
		return nil
	}
	b := p.heads.of(key)
	if t := p.of.fleet.Timestamp(); t != nil && t != p.timestamp {
		encoded, err := proto.Marshal(&holdfastv1.ConnectResponse{Timestamp: t})
		if err == nil {
			p.timestamp = t
			b = append(slices.Clip(b), encoded...)
		}
	}
	return b
}
