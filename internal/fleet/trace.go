package fleet

import (
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

// trace records that a record is held from now on.
func trace(id string, r *health.Record) {
	said := make(map[string]string, len(r.Reports))
	for i := range r.Reports {
		said[r.Reports[i].Dependency] = r.Reports[i].Opinion.String()
	}
	seam.Event("evidence", "origin", id, "incarnation", r.Incarnation, "sequence", r.Sequence, "said", said)
}
