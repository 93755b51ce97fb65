package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// answerTime is how long a member has for an answer.
	answerTime = 3 * time.Second
	// jitterEach and jitterMost are the bounds of the pause before the first question
	// after a new head: for each member, and in all.
	jitterEach = 5 * time.Millisecond
	jitterMost = 2 * time.Second
	// firstPause doubles with each member that could not help, to longestPause.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// avoidAbsent, avoidSilent and avoidLiar are how long a member is not asked that does
	// not have the document, did not answer, or told something wrong. One that has no time
	// is not asked next.
	avoidAbsent = 2 * time.Second
	avoidSilent = 30 * time.Second
	avoidLiar   = 10 * time.Minute
	// keptAvoided is how many members are avoided at most; the others are forgotten.
	keptAvoided = 256
	// maxChunkBytes is the largest chunk that is taken from a member.
	maxChunkBytes = 2 << 20
)

var (
	errSilent = errors.New("the member does not answer")
	errBusy   = errors.New("the member has no time")
	errAbsent = errors.New("the member does not have the document")
	// errPoisoned tells that what a member has sent is not what the servers have signed.
	errPoisoned = errors.New("the document is not the one that the servers have signed")
)

// seeker goes after newer documents than what is held. One goroutine uses it.
type seeker struct {
	target   *signedHead // nil while nobody is to be asked
	next     time.Time   // and nobody before
	failures int
	last     string   // the member that was asked last
	hints    []string // members that are said to have the document
	avoided  map[string]time.Time
}

// follow brings what is held to the newest head, if that is due, and returns in how
// long to look again.
func (s *seeker) follow(ctx context.Context, r *Relay) time.Duration {
	held := r.held()
	if held == nil {
		return never
	}
	target, wait := r.target(held)
	if target == nil || wait > 0 {
		s.target = nil
		return wait
	}
	if u, ok := r.enclosed(target, held); ok {
		if err := r.settle(target, target.holder, u); err == nil {
			r.counts.deltas.Add(1)
		} else if poisons(err) {
			r.spoil(target)
		}
		return s.pause(0)
	}
	members := r.others()
	if len(members) == 0 {
		return never
	}
	now := time.Now()
	if s.target != target { // another head, or something was added to it
		next := now.Add(rand.N(min(jitterMost, time.Duration(len(members))*jitterEach)))
		if s.target != nil && s.next.Before(next) {
			next = s.next
		}
		s.target, s.next, s.failures = target, next, 0
	}
	if wait := s.next.Sub(now); wait > 0 {
		return wait
	}
	peer := s.choose(members, target.holder)
	if peer == "" {
		return s.pause(s.failures + 1)
	}
	err := s.ask(ctx, r, peer, target, held)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errBusy) && len(s.hints) > 0:
		return s.pause(0)
	default:
		return s.pause(s.failures + 1)
	}
}

// ask gets the document from a member and installs it.
func (s *seeker) ask(ctx context.Context, r *Relay, peer string, target *signedHead, held *mirror.Mirror) error {
	s.last = peer
	u, names, err := r.fetch(ctx, peer, target, held)
	s.hints = append(s.hints, names...)
	s.hints = s.hints[max(0, len(s.hints)-2*maxNames):]
	if err == nil {
		err = r.settle(target, peer, u)
	}
	switch {
	case err == nil:
		r.counts.documents.Add(1)
		s.target = nil
	case poisons(err):
		r.counts.poisoned.Add(1)
		r.log.Warn("a member has sent what the servers have not signed; it is not asked any more", "member", peer, "error", err)
		s.avoid(peer, avoidLiar)
	case errors.Is(err, errSilent):
		r.counts.silent.Add(1)
		s.avoid(peer, avoidSilent)
	case errors.Is(err, errAbsent):
		s.avoid(peer, avoidAbsent)
	}
	return err
}

// poisons tells of errors that an honest member does not cause.
func poisons(err error) bool {
	for _, e := range []error{errPoisoned, mirror.ErrRoot, mirror.ErrGap, mirror.ErrMalformed, mirror.ErrTooLarge} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// pause sets when to look again after so many failures.
func (s *seeker) pause(failures int) time.Duration {
	s.failures = failures
	wait := rand.N(min(longestPause, firstPause<<min(failures, 10)))
	s.next = time.Now().Add(wait)
	return wait
}

// choose returns the member to ask: one that was named, the one that passed the head
// on first, or any; not the one that was asked last, if there is another, so that one
// that is always busy does not keep others from being asked.
func (s *seeker) choose(members []string, holder string) string {
	usable := func(name string) bool {
		until, ok := s.avoided[name]
		return name != s.last && slices.Contains(members, name) && (!ok || time.Now().After(until))
	}
	for len(s.hints) > 0 {
		i := rand.IntN(len(s.hints))
		name := s.hints[i]
		s.hints = slices.Delete(s.hints, i, i+1)
		if usable(name) {
			return name
		}
	}
	if usable(holder) {
		return holder
	}
	members = slices.DeleteFunc(members, func(name string) bool { return !usable(name) })
	if len(members) == 0 {
		s.last = "" // which may be asked again
		return ""
	}
	return members[rand.IntN(len(members))]
}

// avoid has a member not asked for a while.
func (s *seeker) avoid(peer string, d time.Duration) {
	if s.avoided == nil || len(s.avoided) >= keptAvoided {
		s.avoided = map[string]time.Time{}
	}
	s.avoided[peer] = time.Now().Add(d)
}

// target returns the head to go to, nil for none, and how long to wait before.
func (r *Relay) target(held *mirror.Mirror) (*signedHead, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.connected || r.newest == nil {
		return nil, never
	}
	to := positionOf(&r.newest.head)
	if to == held.Position() || held.Floor().Admits(to) != nil {
		return nil, never
	}
	return r.newest, max(0, time.Until(r.patience))
}

// others returns the other members, if there is a pool and the right to ask them.
func (r *Relay) others() []string {
	r.mu.Lock()
	pool, able := r.pool, r.config.Key != nil && len(r.certificate) > 0
	r.mu.Unlock()
	if pool == nil || !able {
		return nil
	}
	var names []string
	for _, m := range pool.members() {
		if m.Name != pool.name {
			names = append(names, m.Name)
		}
	}
	return names
}

// enclosed returns the update to a head that came with it, or that changes nothing but
// the revision; false if there is none, or if it goes onto something else.
func (r *Relay) enclosed(target *signedHead, held *mirror.Mirror) (mirror.Update, bool) {
	at := held.Position()
	switch {
	case at.Epoch != target.head.Epoch:
		return mirror.Update{}, false
	case held.Root() == target.head.Root:
		return mirror.Update{Epoch: at.Epoch, Delta: document.Delta{
			Namespace: r.config.Namespace, From: at.Revision, To: target.head.Revision, Root: target.head.Root,
		}}, true
	case len(target.delta) == 0 || at.Revision < target.from && held.Root() != target.base:
		return mirror.Update{}, false
	}
	u, done, err := assemble(mirror.NewAssembler(r.config.Namespace), target.delta)
	if err == nil && done {
		err = fit(&u, target, held, target.base)
	}
	if err != nil || !done {
		r.spoil(target)
		return mirror.Update{}, false
	}
	return u, true
}

// assemble takes in the bytes of a chunk.
func assemble(a *mirror.Assembler, b []byte) (mirror.Update, bool, error) {
	m := new(holdfastv1.ConnectResponse)
	if err := proto.Unmarshal(b, m); err != nil {
		return mirror.Update{}, false, fmt.Errorf("%w: %w", errPoisoned, err)
	}
	if m.GetSnapshot() == nil && m.GetDelta() == nil {
		return mirror.Update{}, false, fmt.Errorf("%w: it tells nothing", errPoisoned)
	}
	return a.Take(m) //nolint:wrapcheck // says everything
}

// fit checks that an update leads to a head, and lets it lead to the head's revision
// from that of what is held, where only those differ: the root decides.
func fit(u *mirror.Update, target *signedHead, held *mirror.Mirror, base document.Root) error {
	if u.Epoch != target.head.Epoch || u.Delta.Root != target.head.Root {
		return fmt.Errorf("%w: it has the root %x at %s", errPoisoned, u.Delta.Root, u.Position())
	}
	if !u.Replace && held.Root() == base {
		u.Delta.From = min(u.Delta.From, held.Position().Revision)
	}
	u.Delta.To = target.head.Revision
	return nil
}

// settle installs an update that leads to a head.
func (r *Relay) settle(target *signedHead, peer string, u mirror.Update) error {
	h := r.holding()
	if err := h.Offer(u, target.head.StateTime); err != nil {
		return err //nolint:wrapcheck // the caller looks at it
	}
	held := h.Mirror()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.source = peer
	r.keep(held)
	r.freshen(held.Position())
	return nil
}

// spoil drops what came with a head and does not lead to it.
func (r *Relay) spoil(h *signedHead) {
	r.counts.poisoned.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest == h {
		r.newest = &signedHead{signed: h.signed, head: h.head, holder: h.holder}
		r.spoiled = positionOf(&h.head)
	}
}

// fetch gets the document of a head from a member, as an update of what is held, or
// the names of others to ask. The errors are errSilent, errBusy, errAbsent and those of
// poisons.
func (r *Relay) fetch(ctx context.Context, peer string, target *signedHead, held *mirror.Mirror) (u mirror.Update, names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	defer cancel()
	pool, q, ok := r.begin(cancel, peer, target, held)
	if !ok {
		return u, nil, errSilent
	}
	assembler := mirror.NewAssembler(r.config.Namespace)
	var chunk []byte
	for {
		a, err := r.exchange(ctx, pool, peer, q)
		switch {
		case err != nil:
			return u, nil, err
		case a.kind == busyType:
			return u, a.members, errBusy
		case a.kind == noneType:
			return u, a.members, errAbsent
		case a.size > maxChunkBytes || len(chunk)+len(a.part) > int(a.size) || len(a.part) == 0:
			return u, nil, fmt.Errorf("%w: a chunk of %d bytes", errPoisoned, a.size)
		}
		chunk = append(chunk, a.part...)
		q.certificate, q.signature = nil, nil
		if q.offset = uint32(len(chunk)); q.offset < a.size {
			continue
		}
		u, done, err := assemble(assembler, chunk)
		if err != nil {
			return u, nil, err
		}
		if done {
			return u, nil, fit(&u, target, held, q.base)
		}
		chunk, q.offset = chunk[:0], 0
		q.chunk++
	}
}

// begin makes the first question of a transfer, unless a server has come back.
func (r *Relay) begin(cancel context.CancelFunc, peer string, target *signedHead, held *mirror.Mirror) (*link, question, bool) {
	q := question{id: rand.Uint64(), epoch: target.head.Epoch, root: target.head.Root}
	if held.Position().Epoch == q.epoch {
		q.base = held.Root()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	certificate, err := trust.ReadCertificate(r.certificate)
	if r.connected || r.pool == nil || err != nil {
		return nil, q, false
	}
	r.giveUp = cancel
	q.certificate = r.certificate
	q.signature = certificate.Sign(r.config.Key, signingContext, q.statement(r.pool.name, peer))
	return r.pool, q, true
}

// exchange asks a question and waits for the answer.
func (r *Relay) exchange(ctx context.Context, pool *link, peer string, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r.mu.Lock()
	r.asked, r.askedOf = q, peer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.askedOf = ""
		select {
		case <-r.answers: // too late
		default:
		}
	}()
	if err := pool.send(ctx, peer, askKind, q.encode()); err != nil {
		return answer{}, fmt.Errorf("%w: %w", errSilent, err)
	}
	select {
	case a := <-r.answers:
		return a, nil
	case <-ctx.Done():
		return answer{}, errSilent
	}
}

// take takes an answer, if it is the one to the question under way. Nothing else is
// kept, whoever sends it.
func (r *Relay) take(_ context.Context, from gossip.Member, b []byte) {
	a, err := decodeAnswer(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	q := &r.asked
	if err != nil || r.askedOf == "" || r.askedOf != from.Name || a.id != q.id || a.chunk != q.chunk || a.offset != q.offset {
		r.counts.malformed.Add(1)
		return
	}
	r.askedOf = ""
	a.part = bytes.Clone(a.part) // the pool's
	r.answers <- a               // never waits: one is taken for each question, and this one is the first
}
