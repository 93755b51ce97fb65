package document

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Label is one key of a resource with its value.
type Label struct {
	Key, Value string
}

// LabelsOf returns the labels of a map, sorted by key; nil when there are none.
func LabelsOf(m map[string]string) []Label {
	if len(m) == 0 {
		return nil
	}
	labels := make([]Label, 0, len(m))
	for k, v := range m {
		labels = append(labels, Label{Key: k, Value: v})
	}
	slices.SortFunc(labels, func(a, b Label) int { return cmp.Compare(a.Key, b.Key) })
	return labels
}

// Resource is one definition or override with its history counters. It is
// immutable once built: replicas, caches and subscribers share it.
type Resource struct {
	Key
	// Spec is the definition as canonical JSON.
	Spec []byte
	// Labels are sorted by key; each key occurs once.
	Labels []Label
	// CreateRevision and ModRevision are the revisions that created and last
	// changed the resource; Version counts its changes, the creation as 1.
	CreateRevision, ModRevision, Version uint64
	// CreateTime, UpdateTime and End are state time in milliseconds since 1970.
	// End is 0 where there is none; only overrides have one.
	CreateTime, UpdateTime, End int64
	// Actor is who changed the resource last, proven by a certificate or not.
	Actor         string
	ActorVerified bool
	// Reason is why.
	Reason string
}

// What a resource and a label count besides their texts: their structs, leaves in
// the indexes, and the framing of their record in a snapshot.
const (
	resourceOverhead = 256
	labelOverhead    = 40
)

// Size returns the bytes that the resource counts against limits: about what it
// takes in memory, and no less than its record in a snapshot.
func (r *Resource) Size() int {
	n := resourceOverhead + len(r.Name) + len(r.Spec) + len(r.Actor) + len(r.Reason) + len(r.Labels)*labelOverhead
	for _, l := range r.Labels {
		n += len(l.Key) + len(l.Value)
	}
	return n
}

// hashDomain begins what a resource's hash covers, so that no other hash of the
// system can be taken for one. A change of the encoding changes it.
const hashDomain = "holdfast/resource/1\x00"

// Hash returns the SHA-256 of a deterministic encoding of every field. Texts
// carry their length, so that no two resources have the same encoding.
func (r *Resource) Hash() [32]byte {
	var space [1024]byte
	b := append(space[:0], hashDomain...)
	b = append(b, byte(r.Kind))
	b = appendText(b, r.Name)
	b = binary.AppendUvarint(b, uint64(len(r.Labels)))
	for _, l := range r.Labels {
		b = appendText(appendText(b, l.Key), l.Value)
	}
	for _, n := range [...]uint64{
		r.CreateRevision, r.ModRevision, r.Version,
		uint64(r.CreateTime), uint64(r.UpdateTime), uint64(r.End),
	} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = appendText(b, r.Actor)
	verified := byte(0)
	if r.ActorVerified {
		verified = 1
	}
	b = appendText(append(b, verified), r.Reason)
	b = binary.AppendUvarint(b, uint64(len(r.Spec)))

	// The spec comes last and is not copied: it is most of the bytes.
	h := sha256.New()
	_, _ = h.Write(b)
	_, _ = h.Write(r.Spec)
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
