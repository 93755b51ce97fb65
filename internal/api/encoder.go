package api

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// encoder makes the messages of watches. What is the same for all watches is
// encoded once and shared: the event of a delta, the resources of a chunk of a
// snapshot. Each message gets its own small head, so that its state time is that
// of its sending also when its body was encoded long before.
type encoder struct {
	metrics *metrics
	slots   chan struct{} // limits how many chunks are encoded at once
	epoch   atomic.Pointer[encodedEpoch]

	mu     sync.Mutex
	chunks map[chunkKey]*chunk
	order  []chunkKey // of chunks, oldest first
	limit  int        // of chunks
}

// chunkKey identifies the bytes of a chunk of a snapshot: they are a function of
// the namespace's content, which its root stands for, and of where they begin.
type chunkKey struct {
	namespace string
	root      document.Root
	after     document.Key
}

// chunk is a part of a snapshot.
type chunk struct {
	ready chan struct{} // closed when the rest is set
	// body holds the resources as the field of a Snapshot.
	body []byte
	// end is the last resource, where the next chunk begins; last is true when
	// there is none.
	end  document.Key
	last bool
	err  error
}

func newEncoder(m *metrics) *encoder {
	return &encoder{
		metrics: m,
		slots:   make(chan struct{}, MaxConcurrentEncodes),
		chunks:  make(map[chunkKey]*chunk),
		limit:   MaxCachedChunks,
	}
}

// encodedEpoch is an epoch as the field of a WatchResponse.
type encodedEpoch struct {
	epoch document.Epoch
	bytes []byte
}

// head encodes what every message begins with: the epoch, which hardly ever changes,
// and the time.
func (e *encoder) head(epoch document.Epoch, now time.Time) ([]byte, error) {
	known := e.epoch.Load()
	if known == nil || known.epoch != epoch {
		b, err := proto.Marshal(&holdfastv1.WatchResponse{Epoch: epoch.Proto()})
		if err != nil {
			return nil, fmt.Errorf("encode head: %w", err)
		}
		known = &encodedEpoch{epoch, b}
		e.epoch.Store(known)
	}
	const seconds, nanos protowire.Number = 1, 2         // of a Timestamp
	s, n := uint64(now.Unix()), uint64(now.Nanosecond()) //nolint:gosec // as int64 and int32 are encoded
	size := protowire.SizeTag(seconds) + protowire.SizeVarint(s) + protowire.SizeTag(nanos) + protowire.SizeVarint(n)
	b := make([]byte, 0, len(known.bytes)+protowire.SizeTag(stateTimeField)+protowire.SizeBytes(size))
	b = protowire.AppendTag(append(b, known.bytes...), stateTimeField, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size)) //nolint:gosec // small
	b = protowire.AppendVarint(protowire.AppendTag(b, seconds, protowire.VarintType), s)
	return protowire.AppendVarint(protowire.AppendTag(b, nanos, protowire.VarintType), n), nil
}

// snapshotFrame returns the message of a chunk. The event's small fields go into
// the head: a nested message is its length and then its fields in any order.
func snapshotFrame(head []byte, small *holdfastv1.Snapshot, body []byte) (*frame, error) {
	fields, err := proto.Marshal(small)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	head = protowire.AppendTag(head, snapshotField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(fields)+len(body)))
	return &frame{head: append(head, fields...), body: body}, nil
}

// stateTimeField and snapshotField are the numbers of fields of a WatchResponse.
const (
	stateTimeField protowire.Number = 2
	snapshotField  protowire.Number = 3
)

// chunk returns the chunk of a namespace that begins after a resource. Callers
// that want the same one share it, also while it is being encoded. Nobody here
// waits for a stream, so a slow one delays nobody.
func (e *encoder) chunk(n *state.Namespace, after document.Key) (*chunk, error) {
	key := chunkKey{n.Name(), n.Root(), after}
	e.mu.Lock()
	c, ok := e.chunks[key]
	if !ok {
		c = &chunk{ready: make(chan struct{})}
		e.keep(key, c)
	}
	e.mu.Unlock()
	if !ok {
		e.fill(key, c, n)
	}
	<-c.ready
	return c, c.err
}

// fill encodes a chunk, a few at a time. One that did not work out is not kept.
func (e *encoder) fill(key chunkKey, c *chunk, n *state.Namespace) {
	e.slots <- struct{}{}
	defer func() {
		<-e.slots
		close(c.ready)
		if c.err != nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			delete(e.chunks, key)
			e.order = slices.DeleteFunc(e.order, func(k chunkKey) bool { return k == key })
		}
	}()
	c.encode(n, key.after)
	e.metrics.encodes.WithLabelValues("snapshot").Inc()
}

// keep stores a chunk and drops the oldest one when there are too many; streams
// that use it still have it. The caller holds the lock.
func (e *encoder) keep(key chunkKey, c *chunk) {
	e.chunks[key] = c
	e.order = append(e.order, key)
	if len(e.order) > e.limit {
		delete(e.chunks, e.order[0])
		e.order = e.order[1:]
	}
}

// encode fills in the chunk.
func (c *chunk) encode(n *state.Namespace, after document.Key) {
	c.err = fmt.Errorf("encode chunk of namespace %q after %s: interrupted", n.Name(), after) // until the end is reached
	c.end = after
	size := 0
	var part holdfastv1.Snapshot
	full := false
	for _, kind := range document.Kinds() {
		if kind < after.Kind || full {
			continue
		}
		name := ""
		if kind == after.Kind {
			name = after.Name
		}
		n.Ascend(kind, "", name, func(r *document.Resource) bool {
			p := r.Proto(n.Name())
			grown := size + proto.Size(p)
			if full = len(part.GetResources()) > 0 && grown > ChunkBytes; full {
				return false
			}
			part.Resources, size, c.end = append(part.Resources, p), grown, r.Key
			return true
		})
	}
	c.last = !full
	c.body, c.err = proto.Marshal(&part)
}

// delta encodes the chunks of a delta, each as the field of a WatchResponse. It
// returns none when that is impossible, which takes text that is no UTF-8 and
// thus is kept out by validation.
func (e *encoder) delta(d document.Delta) [][]byte {
	var bodies [][]byte
	parts := splitDelta(d)
	for i, part := range parts {
		part.From, part.To, part.Root = d.From, d.To, d.Root[:]
		part.Chunk, part.Last = uint32(i), i == len(parts)-1 //nolint:gosec // a document has few chunks
		body, err := proto.Marshal(&holdfastv1.WatchResponse{Event: &holdfastv1.WatchResponse_Delta{Delta: part}})
		if err != nil {
			return nil
		}
		bodies = append(bodies, body)
	}
	e.metrics.encodes.WithLabelValues("delta").Add(float64(len(parts)))
	return bodies
}

// splitDelta cuts a delta into parts of about ChunkBytes, at least one.
func splitDelta(d document.Delta) []*holdfastv1.Delta {
	parts, size := []*holdfastv1.Delta{{}}, 0
	part := func(n int) *holdfastv1.Delta {
		if size > 0 && size+n > ChunkBytes {
			parts, size = append(parts, &holdfastv1.Delta{}), 0
		}
		size += n
		return parts[len(parts)-1]
	}
	for _, r := range d.Puts {
		p := r.Proto(d.Namespace)
		to := part(proto.Size(p))
		to.Puts = append(to.Puts, p)
	}
	for _, t := range d.Deletes {
		p := t.Proto(d.Namespace)
		to := part(proto.Size(p))
		to.Deletes = append(to.Deletes, p)
	}
	return parts
}
