package relay

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// The channel of the records, the kinds of the messages, and the keys of the records.
const (
	channel  = "heads"
	askKind  = "relay.ask"
	tellKind = "relay.tell"

	headKey    = "head"
	timeKey    = "time"
	signersKey = "signers"
)

// What a record or a message begins with. Another encoding gets another letter, which
// members of before count as malformed and drop.
const (
	headType     = 'h'
	timeType     = 't'
	signersType  = 's'
	questionType = 'q'
	partType     = 'p'
	busyType     = 'b'
	noneType     = 'n'
)

var errMalformed = errors.New("malformed")

// signedHead is what goes into one packet of gossip: a head with what helps to follow
// it, which nobody has signed.
type signedHead struct {
	signed *holdfastv1.SignedHead
	head   trust.Head // read from it and verified; not encoded
	// holder is the member that passed it on first, and has the document.
	holder string
	// delta is the change from revision from on, where the root was base, to the head, as
	// a ConnectResponse; nil if it is too large.
	from  uint64
	base  document.Root
	delta []byte
}

func (h *signedHead) encode() []byte {
	b := appendSigned([]byte{headType}, h.signed)
	b = binary.BigEndian.AppendUint64(appendField(b, []byte(h.holder)), h.from)
	return appendField(append(b, h.base[:]...), h.delta)
}

func decodeHead(b []byte) (*signedHead, error) {
	r, _ := open(b, headType)
	h := &signedHead{signed: r.signed(), holder: string(r.field()), from: r.uint64()}
	copy(h.base[:], r.take(uint64(len(h.base))))
	h.delta = append([]byte(nil), r.field()...)
	return h, r.end()
}

// question asks for one slice of the document with a root.
type question struct {
	id uint64 // of the transfer, drawn by who asks
	// chunk is the number of a message of a mirror.Sheaf, and offset where in its bytes
	// the slice begins.
	chunk, offset uint32

	epoch document.Epoch
	root  document.Root
	base  document.Root // what who asks holds of that epoch; zero for nothing
	// certificate and signature, over the rest and both names, come with the first slice.
	certificate, signature []byte
}

// body is what the signature covers, beside the names.
func (q *question) body() []byte {
	b := binary.BigEndian.AppendUint64([]byte{questionType}, q.id)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, q.chunk), q.offset)
	b = append(b, q.epoch.Lineage[:]...)
	b = binary.BigEndian.AppendUint64(b, q.epoch.Counter)
	b = binary.BigEndian.AppendUint64(b, q.epoch.Nonce)
	return append(append(b, q.root[:]...), q.base[:]...)
}

// statement is what who asks signs.
func (q *question) statement(from, to string) []byte {
	return appendField(appendField(q.body(), []byte(from)), []byte(to))
}

func (q *question) encode() []byte {
	return appendField(appendField(q.body(), q.certificate), q.signature)
}

func decodeQuestion(b []byte) (question, error) {
	r, _ := open(b, questionType)
	q := question{id: r.uint64(), chunk: r.uint32(), offset: r.uint32()}
	copy(q.epoch.Lineage[:], r.take(uint64(len(q.epoch.Lineage))))
	q.epoch.Counter, q.epoch.Nonce = r.uint64(), r.uint64()
	copy(q.root[:], r.take(uint64(len(q.root))))
	copy(q.base[:], r.take(uint64(len(q.base))))
	q.certificate, q.signature = r.field(), r.field()
	return q, r.end()
}

// answer is what a question gets: a slice, or the names of members to ask instead.
type answer struct {
	kind          byte // partType, busyType or noneType
	id            uint64
	chunk, offset uint32
	size          uint32   // of the chunk: a ConnectResponse
	part          []byte   // of it, from offset on
	members       []string // at most maxNames
}

// maxNames is how many other members an answer names; further ones are not read.
const maxNames = 8

func (a *answer) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{a.kind}, a.id)
	for _, n := range [...]uint32{a.chunk, a.offset, a.size} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = appendField(b, a.part)
	for _, name := range a.members {
		b = appendField(b, []byte(name))
	}
	return b
}

// decodeAnswer reads an answer, whose part shares the memory of b.
func decodeAnswer(b []byte) (answer, error) {
	r, kind := open(b, partType, busyType, noneType)
	a := answer{kind: kind, id: r.uint64(), chunk: r.uint32(), offset: r.uint32(), size: r.uint32(), part: r.field()}
	for len(r.b) > 0 && !r.bad && len(a.members) < maxNames {
		a.members = append(a.members, string(r.field()))
	}
	return a, r.end()
}

func appendField(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

func appendSigned(b []byte, s *holdfastv1.SignedHead) []byte {
	return appendField(appendField(appendField(b, s.GetHead()), s.GetSignature()), []byte(s.GetKeyId()))
}

// reader takes fields off bytes; after the first that is missing it returns zero
// values.
type reader struct {
	b   []byte
	bad bool
}

// open begins to read what has to be of one of some types.
func open(b []byte, types ...byte) (r reader, kind byte) {
	if len(b) == 0 || !slices.Contains(types, b[0]) {
		return reader{bad: true}, 0
	}
	return reader{b: b[1:]}, b[0]
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *reader) field() []byte {
	length, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return nil
	}
	r.b = r.b[n:]
	return r.take(length)
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// signed copies: the pool takes its bytes back.
func (r *reader) signed() *holdfastv1.SignedHead {
	return &holdfastv1.SignedHead{
		Head: append([]byte(nil), r.field()...), Signature: append([]byte(nil), r.field()...), KeyId: string(r.field()),
	}
}

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return errMalformed
	}
	return nil
}
