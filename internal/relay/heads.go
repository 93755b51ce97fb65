package relay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/gossip"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	"github.com/holdfast-dev/holdfast/internal/pace"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

var _ gossip.Records = (*Relay)(nil)

// Keys implements gossip.Records.
func (r *Relay) Keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []string
	if r.newest != nil {
		keys = append(keys, headKey)
	}
	if r.stamp != nil {
		keys = append(keys, timeKey)
	}
	if r.signers != nil {
		keys = append(keys, signersKey)
	}
	return keys
}

// Encode implements gossip.Records.
func (r *Relay) Encode(key string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case key == headKey && r.newest != nil:
		return r.newest.encode()
	case key == timeKey && r.stamp != nil:
		return appendSigned([]byte{timeType}, r.stamp)
	case key == signersKey && r.signers != nil:
		return append([]byte{signersType}, r.signers.Bytes()...)
	default:
		return nil
	}
}

// Digest implements gossip.Records. Who has signed, and what comes with a head, makes
// no difference.
func (r *Relay) Digest(key string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case key == headKey && r.newest != nil:
		h := &r.newest.head
		return digest(headType, h.Epoch, h.Revision, h.Root[:])
	case key == timeKey && r.stamp != nil:
		t := &r.stampTime
		return digest(timeType, t.Epoch, t.Revision, binary.BigEndian.AppendUint64(nil, uint64(t.StateTime)))
	case key == signersKey && r.signers != nil:
		return digest(signersType, r.signers.Epoch(), r.signers.Version(), nil)
	default:
		return 0
	}
}

func digest(kind byte, e document.Epoch, n uint64, more []byte) uint64 {
	b := append([]byte{kind}, e.Lineage[:]...)
	for _, n := range [...]uint64{e.Counter, e.Nonce, n} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	h := fnv.New64a()
	_, _ = h.Write(append(b, more...))
	return max(1, h.Sum64())
}

// Merge implements gossip.Records. What is not believed is not news.
func (r *Relay) Merge(b []byte) (key string, news bool) {
	var err error
	switch {
	case len(b) == 0:
		err = errMalformed
	case b[0] == headType:
		key = headKey
		news, err = r.mergeHead(b)
	case b[0] == timeType:
		key = timeKey
		news, err = r.mergeTime(b)
	case b[0] == signersType:
		key = signersKey
		news, err = r.mergeSigners(b[1:])
	default:
		err = errMalformed
	}
	switch {
	case err == nil, errors.Is(err, trust.ErrStale):
	case errors.Is(err, errOverloaded):
		r.counts.overloaded.Add(1)
	case errors.Is(err, errMalformed), errors.Is(err, trust.ErrMalformed):
		r.counts.malformed.Add(1)
	default: // a wrong signature, an unknown signer, another namespace
		r.counts.forged.Add(1)
	}
	return key, news
}

func (r *Relay) mergeHead(b []byte) (news bool, err error) {
	h, err := decodeHead(b)
	if err != nil {
		return false, err
	}
	if h.head, err = verified(r, h.signed, &r.gossiped, (*trust.Signers).Head); err != nil {
		if errors.Is(err, trust.ErrUnknownSigner) {
			r.remember(b)
		}
		return false, err
	}
	if r.behind(&h.head) {
		return false, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.adopt(h), nil
}

func (r *Relay) mergeTime(b []byte) (news bool, err error) {
	rd, _ := open(b, timeType)
	s := rd.signed()
	if err := rd.end(); err != nil {
		return false, err
	}
	return r.takeTime(s, &r.gossiped)
}

func (r *Relay) mergeSigners(b []byte) (news bool, err error) {
	r.mu.Lock()
	have := r.signers
	r.mu.Unlock()
	if have == nil || bytes.Equal(have.Bytes(), b) {
		return false, nil
	}
	if !mayVerify(&r.gossiped, signersCost) {
		return false, errOverloaded
	}
	next, err := have.Accept(b)
	if err != nil {
		return false, err //nolint:wrapcheck // counted
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.signers != have {
		return false, nil // the server was faster
	}
	r.log.Info("other servers sign from now on", "version", next.Version())
	r.replaceSigners(next)
	return true, nil
}

// replaceSigners has others sign. The caller holds mu.
func (r *Relay) replaceSigners(next *trust.Signers) {
	r.signers = next
	r.known = nil
	r.spread(signersKey)
	r.look()
}

// remember keeps a head of an unknown signer: the set that has it may be on its way.
func (r *Relay) remember(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unknown = bytes.Clone(b)
}

// reconsider looks again at a head whose signer was not known, after the signers have
// changed.
func (r *Relay) reconsider() {
	r.mu.Lock()
	b := r.unknown
	r.unknown = nil
	r.mu.Unlock()
	if b == nil {
		return
	}
	if key, news := r.Merge(b); news {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.spread(key)
	}
}

// behind tells of a head that what is held must not go to: before the mark, of
// another lineage, or of a forked epoch. One that says what is held already is none.
func (r *Relay) behind(h *trust.Head) bool {
	held := r.held()
	if held == nil {
		return false
	}
	if held.Position().Epoch == h.Epoch && held.Root() == h.Root {
		return false
	}
	return held.Floor().Admits(positionOf(h)) != nil
}

// adopt makes a head that was verified the newest, if it is, or adds to the newest, and
// tells whether it is to be passed on. The caller holds mu.
func (r *Relay) adopt(h *signedHead) bool {
	if known := r.newest; known != nil {
		at, to := positionOf(&known.head), positionOf(&h.head)
		if at == to {
			return r.enrich(h)
		}
		if at.Admits(to) != nil {
			return false
		}
		if at.Epoch == to.Epoch && known.head.Root == h.head.Root && time.Since(r.adopted) < spacing {
			return false
		}
	}
	r.newest, r.adopted = h, time.Now()
	r.counts.heads.Add(1)
	r.look()
	return true
}

// enrich adds what comes with a head to the same one that came without: a change, or the
// name of a member that has the document. A server's own has neither. It tells whether
// there was something to add. The caller holds mu.
func (r *Relay) enrich(h *signedHead) bool {
	known := r.newest
	delta := known.delta == nil && len(h.delta) > 0 && r.spoiled != positionOf(&h.head)
	holder := known.holder == "" && h.holder != ""
	if h.head.Root != known.head.Root || !delta && !holder {
		return false
	}
	next := *known
	if delta {
		next.from, next.base, next.delta = h.from, h.base, h.delta
	}
	if next.holder == "" {
		next.holder = h.holder
	}
	r.newest = &next
	r.look()
	return true
}

// takeTime takes a timestamp, whoever brought it, and tells whether it is to be passed
// on.
func (r *Relay) takeTime(s *holdfastv1.SignedHead, b *pace.Bucket) (news bool, err error) {
	t, err := verified(r, s, b, func(by *trust.Signers, _ string, s *holdfastv1.SignedHead) (trust.Timestamp, error) {
		return by.Timestamp(s)
	})
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.Epoch.Lineage != r.signers.Epoch().Lineage {
		return false, nil
	}
	if later(t, r.newestTime, 1) {
		r.newestTime = t
		r.look()
	}
	if r.stamp != nil && !later(t, r.stampTime, spacing.Milliseconds()) {
		return false, nil
	}
	r.stamp, r.stampTime = s, t
	return true, nil
}

// later tells whether one timestamp is of a later epoch than another, or by so many
// milliseconds later.
func later(t, than trust.Timestamp, by int64) bool {
	if t.Epoch.Counter != than.Epoch.Counter {
		return t.Epoch.Counter > than.Epoch.Counter
	}
	return t.StateTime-than.StateTime >= by
}

// freshen notes whether what is held was the newest when a server last said what was.
// The caller holds mu.
func (r *Relay) freshen(at mirror.Position) {
	if t := r.newestTime; at.Set() && t.Epoch == at.Epoch && t.Revision <= at.Revision {
		r.freshAt, r.freshEpoch = t.StateTime, t.Epoch
	}
}

// Head takes what a server told of: a head, after what it vouches for was installed,
// and a timestamp. Either may be nil.
func (r *Relay) Head(head, timestamp *holdfastv1.SignedHead) {
	if head != nil {
		if told, err := verified(r, head, nil, (*trust.Signers).Head); err != nil {
			r.log.Warn("a head of the server is not believed", "error", err)
		} else {
			r.vouch(&signedHead{signed: head, head: told})
		}
	}
	if timestamp != nil {
		if news, err := r.takeTime(timestamp, nil); err != nil {
			r.log.Warn("a timestamp of the server is not believed", "error", err)
		} else if news {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.spread(timeKey)
		}
	}
}

// vouch passes a head of a server on, with the change that leads to it if that is
// small.
func (r *Relay) vouch(h *signedHead) {
	held := r.held()
	if held != nil {
		if at := held.Position(); at.Epoch != h.head.Epoch || held.Root() != h.head.Root {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if held != nil {
		r.freshen(held.Position())
		r.source = ""
		if r.newest != nil && r.newest.head.Epoch.Lineage != h.head.Epoch.Lineage { // the session follows another cluster
			r.newest, r.stamp, r.newestTime, r.kept = nil, nil, trust.Timestamp{}, nil
		}
		r.attachDelta(h, held)
		r.keep(held)
	}
	if r.adopt(h) {
		r.spread(headKey)
	}
}

// attachDelta adds the change from the oldest document of before from which it fits
// into a packet: it leads there from every document since. The caller holds mu.
func (r *Relay) attachDelta(h *signedHead, held *mirror.Mirror) {
	if r.pool == nil {
		return
	}
	h.holder = r.pool.name
	for _, old := range r.kept {
		u := held.Since(old)
		if u.Replace || old.Root() == held.Root() || sizeOf(u) > r.pool.budget {
			continue
		}
		delta, err := proto.Marshal(mirror.NewSheaf(u, sheafBytes).Message(0))
		if err != nil {
			return
		}
		with := *h
		with.from, with.base, with.delta = old.Position().Revision, old.Root(), delta
		if len(with.encode()) <= r.pool.budget {
			*h = with
			return
		}
	}
}

// sizeOf is no more than the bytes of an update.
func sizeOf(u mirror.Update) (n int) {
	for _, r := range u.Delta.Puts {
		n += len(r.Spec)
	}
	return n
}

// keep keeps a document, so that changes from it can be told. The caller holds mu.
func (r *Relay) keep(m *mirror.Mirror) {
	if n := len(r.kept); !m.Position().Set() || n > 0 && r.kept[n-1].Root() == m.Root() && r.kept[n-1].Position().Epoch == m.Position().Epoch {
		return
	}
	if r.kept = append(r.kept, m); len(r.kept) > keptMirrors {
		r.kept = append([]*mirror.Mirror(nil), r.kept[1:]...)
	}
}

// verified reads what is signed and checks that one of the signers has done so, within
// the bounds of a bucket; nil is without. What was verified before costs nothing.
func verified[T any](r *Relay, s *holdfastv1.SignedHead, within *pace.Bucket, verify func(*trust.Signers, string, *holdfastv1.SignedHead) (T, error)) (T, error) {
	sum := sha256.Sum256(appendSigned(nil, s))
	r.mu.Lock()
	signers := r.signers
	known, ok := r.known[sum].(T)
	r.mu.Unlock()
	var none T
	switch {
	case ok:
		return known, nil
	case within != nil && !mayVerify(within, 1):
		return none, errOverloaded
	}
	value, err := verify(signers, r.config.Namespace, s)
	if err != nil {
		return none, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.signers != signers {
		return value, nil
	}
	if r.known == nil || len(r.known) >= recalled {
		r.known = make(map[[sha256.Size]byte]any, recalled)
	}
	r.known[sum] = value
	return value, nil
}

const (
	// verifyRate is how many signatures are verified in a second, of those that come by
	// gossip, and as many again of those under questions; verifyBurst how many at once.
	// That is one or two percent of a core. Further ones are dropped; gossip brings what
	// counts again and again, from each member that has it.
	verifyRate  = 200
	verifyBurst = 400
	// signersCost is what a set of signers costs, which has several.
	signersCost = 8
	// recalled is how many verified heads and timestamps are known again.
	recalled = 64
)

var errOverloaded = errors.New("too much to verify")

// mayVerify tells whether so many signatures may be verified now, within the bounds of a
// bucket.
func mayVerify(within *pace.Bucket, n float64) bool {
	return within.Take(time.Now().UnixNano(), n, pace.Limit{Rate: verifyRate, Burst: verifyBurst})
}
