package mirror

import (
	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Since returns the update that makes another mirror of the namespace this one, in
// the time of what differs where the one came from the other. It is the whole of m
// if old is of another epoch or later, or if there is more to tell of the
// difference.
func (m *Mirror) Since(old *Mirror) Update {
	if old.at.Epoch != m.at.Epoch || old.at.Revision > m.at.Revision {
		return m.Whole()
	}
	d := document.Delta{Namespace: m.namespace, From: old.at.Revision, To: m.at.Revision, Root: m.Root()}
	same := func(was, is *document.Resource) bool { return was == is || was.Hash() == is.Hash() }
	for k, c := range m.resources.Diff(&old.resources, same) {
		if c.HasIs {
			d.Puts = append(d.Puts, c.Is)
		} else {
			d.Deletes = append(d.Deletes, document.Tombstone{Key: k, Revision: m.at.Revision})
		}
		if len(d.Puts)+len(d.Deletes) > m.Len() {
			return m.Whole()
		}
	}
	return Update{Epoch: m.at.Epoch, Delta: d}
}

// Sheaf is an update as messages that an Assembler makes the same update of. It is
// immutable.
type Sheaf struct {
	update Update
	ends   []int // of each chunk, in the puts and then the deletes
}

// NewSheaf cuts an update into chunks. Each but the last has at least so many bytes,
// and less than one resource more.
func NewSheaf(u Update, bytes int) Sheaf {
	s, size := Sheaf{update: u}, 0
	items := len(u.Delta.Puts) + len(u.Delta.Deletes)
	for i := range items {
		if puts := u.Delta.Puts; i < len(puts) {
			size += puts[i].Size()
		} else {
			size += tombstoneOverhead + len(u.Delta.Deletes[i-len(puts)].Name)
		}
		if size >= bytes && i+1 < items {
			s.ends, size = append(s.ends, i+1), 0
		}
	}
	s.ends = append(s.ends, items)
	return s
}

// Len returns the number of messages, at least 1.
func (s Sheaf) Len() int { return len(s.ends) }

// Message returns one of the messages, from 0 on.
func (s Sheaf) Message(i int) *holdfastv1.ConnectResponse {
	begin, end := 0, s.ends[i]
	if i > 0 {
		begin = s.ends[i-1]
	}
	d := &s.update.Delta
	n, last := len(d.Puts), i == len(s.ends)-1
	m := &holdfastv1.ConnectResponse{Epoch: s.update.Epoch.Proto()}
	var puts []*holdfastv1.Resource
	for _, r := range d.Puts[min(begin, n):min(end, n)] {
		puts = append(puts, r.Proto(d.Namespace))
	}
	if s.update.Replace {
		m.Event = &holdfastv1.ConnectResponse_Snapshot{Snapshot: &holdfastv1.Snapshot{
			Revision: d.To, Root: d.Root[:], Chunk: uint32(i), Last: last, Resources: puts,
		}}
		return m
	}
	told := &holdfastv1.Delta{From: d.From, To: d.To, Root: d.Root[:], Chunk: uint32(i), Last: last, Puts: puts}
	for _, t := range d.Deletes[max(begin-n, 0):max(end-n, 0)] {
		told.Deletes = append(told.Deletes, t.Proto(d.Namespace))
	}
	m.Event = &holdfastv1.ConnectResponse_Delta{Delta: told}
	return m
}
