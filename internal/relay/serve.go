package relay

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/mirror"
)

const (
	// maxUploads is how many members get the document from this one at a time. Others
	// are told who has got it already.
	maxUploads = 2
	// idleUpload is how long a member has that place after its last question, and
	// transferTime the longest that a transfer may take.
	idleUpload   = 5 * time.Second
	transferTime = time.Minute
	// sheafBytes is the size of a chunk, but for the last and for large resources, and
	// sliceBytes the most of a chunk that one answer has.
	sheafBytes = 128 << 10
	sliceBytes = 192 << 10
	// keptServed is how many members are kept that got a document.
	keptServed = 32
	// signingContext is what questions are signed in.
	signingContext = "relay question 1"
)

// lease is a member's place among those that get the document.
type lease struct {
	asker       string
	root        document.Root
	sheaf       mirror.Sheaf
	began, used time.Time
	chunk       int // which one is in bytes; -1 for none
	bytes       []byte
}

// customer is a member that got a document whole.
type customer struct {
	name string
	root document.Root
}

// serve answers a question.
func (r *Relay) serve(ctx context.Context, from gossip.Member, b []byte) {
	q, err := decodeQuestion(b)
	if err != nil {
		r.counts.malformed.Add(1)
		return
	}
	r.mu.Lock()
	pool, h := r.pool, r.holder
	r.mu.Unlock()
	if pool == nil {
		return
	}
	a, last := r.respond(h, from.Name, pool.name, q)
	if a == nil || pool.send(ctx, from.Name, tellKind, a.encode()) != nil || !last {
		return
	}
	r.counts.served.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leases, q.id)
	r.served = append(r.served, customer{from.Name, q.root})
	r.served = r.served[max(0, len(r.served)-keptServed):]
}

// respond returns the answer to a question, nil for none, and whether it is the last
// one of a transfer.
func (r *Relay) respond(h Holder, asker, own string, q question) (a *answer, last bool) {
	now := time.Now()
	var held *mirror.Mirror
	if h != nil {
		held = h.Mirror()
		if t := h.StateTime(); t > 0 {
			now = time.UnixMilli(t)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if held != nil {
		r.keep(held)
	}
	r.expireLeases()
	l := r.leases[q.id]
	if l == nil || l.asker != asker || l.root != q.root {
		if a := r.decline(asker, q); a != nil {
			return a, false
		}
		if !r.entitled(asker, own, q, now) {
			r.counts.refused.Add(1)
			return nil, false
		}
		l = r.lease(asker, q)
	}
	return l.slice(q)
}

// expireLeases ends those of members that have stopped asking, or ask for too long.
// The caller holds mu.
func (r *Relay) expireLeases() {
	for id, l := range r.leases {
		if time.Since(l.used) > idleUpload || time.Since(l.began) > transferTime {
			delete(r.leases, id)
		}
	}
}

// decline returns the answer to a question for a document that is not there, or that
// there is no time for; nil if neither is so. The caller holds mu.
func (r *Relay) decline(asker string, q question) *answer {
	a := &answer{kind: noneType, id: q.id}
	if r.newest != nil && r.newest.holder != "" {
		a.members = append(a.members, r.newest.holder)
	}
	if r.document(q.epoch, q.root) != nil && q.chunk == 0 && q.offset == 0 {
		others := 0
		for _, l := range r.leases {
			if l.asker != asker { // who begins anew loses the old place
				others++
			}
		}
		if others < maxUploads {
			return nil
		}
		a.kind, a.members = busyType, nil
		r.counts.busy.Add(1)
	}
	for _, i := range rand.Perm(len(r.served)) {
		if c := r.served[i]; c.root == q.root && c.name != asker && len(a.members) < maxNames {
			a.members = append(a.members, c.name)
		}
	}
	return a
}

// document returns a document that is kept; nil if it is not. The caller holds mu.
func (r *Relay) document(epoch document.Epoch, root document.Root) *mirror.Mirror {
	for _, m := range r.kept {
		if m.Position().Epoch == epoch && m.Root() == root {
			return m
		}
	}
	return nil
}

// entitled tells whether a question is signed by an instance of the namespace whose
// certificate has not ended. The caller holds mu.
func (r *Relay) entitled(asker, own string, q question, now time.Time) bool {
	if !mayVerify(&r.questions, 2) {
		return false
	}
	certificate, err := r.signers.Certificate(r.config.Namespace, q.certificate, now)
	return err == nil && certificate.Verify(signingContext, q.statement(asker, own), q.signature)
}

// lease gives a member a place. The caller holds mu.
func (r *Relay) lease(asker string, q question) *lease {
	for id, l := range r.leases {
		if l.asker == asker {
			delete(r.leases, id)
		}
	}
	m := r.document(q.epoch, q.root)
	u := m.Whole()
	if base := r.document(q.epoch, q.base); base != nil {
		u = m.Since(base)
	}
	l := &lease{asker: asker, root: q.root, sheaf: mirror.NewSheaf(u, sheafBytes), began: time.Now(), chunk: -1}
	r.leases[q.id] = l
	return l
}

// slice returns what a question asks for; nil if there is no such thing.
func (l *lease) slice(q question) (a *answer, last bool) {
	if int64(q.chunk) >= int64(l.sheaf.Len()) {
		return nil, false
	}
	l.used = time.Now()
	if chunk := int(q.chunk); chunk != l.chunk {
		b, err := proto.Marshal(l.sheaf.Message(chunk))
		if err != nil {
			return nil, false
		}
		l.chunk, l.bytes = chunk, b
	}
	if int64(q.offset) > int64(len(l.bytes)) {
		return nil, false
	}
	part := l.bytes[q.offset:]
	part = part[:min(len(part), sliceBytes)]
	a = &answer{kind: partType, id: q.id, chunk: q.chunk, offset: q.offset, size: uint32(len(l.bytes)), part: part}
	return a, l.chunk == l.sheaf.Len()-1 && int(q.offset)+len(part) == len(l.bytes)
}
