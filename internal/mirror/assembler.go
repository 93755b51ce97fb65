package mirror

import (
	"errors"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// ErrMalformed refuses messages that make no sense: a chunk that does not follow
// the one before it, a resource of another namespace, or what cannot be read.
var ErrMalformed = errors.New("the server's answer makes no sense")

// Message is what WatchResponse and ConnectResponse have in common.
type Message interface {
	GetEpoch() *holdfastv1.Epoch
	GetSnapshot() *holdfastv1.Snapshot
	GetDelta() *holdfastv1.Delta
	GetProgress() *holdfastv1.Progress
}

// Assembler puts the chunks of a stream together. One goroutine may use it, for one
// stream; an error ends the stream.
type Assembler struct {
	namespace string
	limit     int

	open  bool   // a chunk was taken and the last one was not
	chunk uint32 // the number of the next one
	bytes int
	done  Update
}

// NewAssembler returns an assembler for the messages about a namespace. It holds at
// most MaxBytes: ErrTooLarge.
func NewAssembler(namespace string) *Assembler {
	return &Assembler{namespace: namespace, limit: MaxBytes}
}

// Take takes in a message. It returns an update, and true, once the last chunk of
// one is there; a message that tells of nothing is passed over. The errors are
// ErrMalformed and ErrTooLarge.
func (a *Assembler) Take(m Message) (Update, bool, error) {
	part, ok := partOf(m)
	if !ok {
		return Update{}, false, nil
	}
	if err := a.begin(m, part); err != nil {
		return Update{}, false, err
	}
	if err := a.fill(part); err != nil {
		return Update{}, false, err
	}
	if !part.last {
		return Update{}, false, nil
	}
	done := a.done
	*a = Assembler{namespace: a.namespace, limit: a.limit}
	return done, true, nil
}

// part is a chunk, whatever it is of. Progress is a difference of nothing, that may
// begin anywhere: whether something was missed, the root tells.
type part struct {
	replace  bool
	from, to uint64
	root     []byte
	chunk    uint32
	last     bool
	puts     []*holdfastv1.Resource
	deletes  []*holdfastv1.Tombstone
}

func partOf(m Message) (part, bool) {
	if s := m.GetSnapshot(); s != nil {
		return part{
			replace: true, to: s.GetRevision(), root: s.GetRoot(), chunk: s.GetChunk(), last: s.GetLast(), puts: s.GetResources(),
		}, true
	}
	if d := m.GetDelta(); d != nil {
		return part{
			from: d.GetFrom(), to: d.GetTo(), root: d.GetRoot(), chunk: d.GetChunk(), last: d.GetLast(), puts: d.GetPuts(), deletes: d.GetDeletes(),
		}, true
	}
	if p := m.GetProgress(); p != nil {
		return part{to: p.GetRevision(), root: p.GetRoot(), last: true}, true
	}
	return part{}, false
}

// begin checks that a part goes with those before it.
func (a *Assembler) begin(m Message, p part) error {
	epoch, err := document.EpochFromProto(m.GetEpoch())
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case len(p.root) != len(document.Root{}):
		return fmt.Errorf("%w: a root of %d bytes", ErrMalformed, len(p.root))
	case p.from > p.to:
		return fmt.Errorf("%w: a change from revision %d back to %d", ErrMalformed, p.from, p.to)
	case p.chunk != a.chunk:
		return fmt.Errorf("%w: chunk %d where chunk %d is due", ErrMalformed, p.chunk, a.chunk)
	}
	head := Update{Epoch: epoch, Replace: p.replace, Delta: document.Delta{
		Namespace: a.namespace, From: p.from, To: p.to, Root: document.Root(p.root),
	}}
	if !a.open {
		a.open, a.done = true, head
	}
	if have := &a.done; have.Epoch != epoch || have.Replace != p.replace ||
		have.Delta.From != p.from || have.Delta.To != p.to || have.Delta.Root != head.Delta.Root {
		return fmt.Errorf("%w: chunk %d is not of the same change as those before it", ErrMalformed, p.chunk)
	}
	a.chunk++
	return nil
}

// tombstoneOverhead is what a tombstone counts beside its name.
const tombstoneOverhead = 64

// fill takes in the resources of a part.
func (a *Assembler) fill(p part) error {
	d := &a.done.Delta
	for _, wire := range p.puts {
		namespace, r, err := document.FromProto(wire)
		if err := a.check(namespace, err); err != nil {
			return err
		}
		a.bytes += r.Size()
		d.Puts = append(d.Puts, r)
	}
	for _, wire := range p.deletes {
		namespace, t, err := document.TombstoneFromProto(wire)
		if err := a.check(namespace, err); err != nil {
			return err
		}
		a.bytes += tombstoneOverhead + len(t.Name)
		d.Deletes = append(d.Deletes, t)
	}
	if a.bytes > a.limit {
		return fmt.Errorf("%w: the change to revision %d has more than %d bytes", ErrTooLarge, d.To, a.limit)
	}
	return nil
}

func (a *Assembler) check(namespace string, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case namespace != a.namespace:
		return fmt.Errorf("%w: a resource of the namespace %q, not %q", ErrMalformed, namespace, a.namespace)
	}
	return nil
}
