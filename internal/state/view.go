package state

import (
	"iter"
	"math"
	"sort"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
)

// usage is how much of a share of the state is taken.
type usage struct{ count, bytes int }

// View is the state after a command. It is immutable, and any number of
// goroutines may use it.
type View struct {
	limits   *Limits
	epoch    document.Epoch
	revision uint64
	now      int64 // state time, Unix milliseconds
	// lived is the clock of the outcomes, in milliseconds: state time without
	// what it jumps by between one leader and the next. See Machine.
	lived int64
	// horizon is the lived time of the newest outcome that is no longer kept.
	horizon int64
	term    uint64 // of the last command
	index   uint64 // of the last command
	// history is the running hash over the outcomes and audit records that were
	// ever appended.
	history [32]byte

	namespaces btree.Map[btree.Text, *content]
	ends       btree.Map[queued, struct{}] // overrides by end
	graves     btree.Map[queued, struct{}] // tombstones by revision
	declared   usage                       // flags, modes and policies
	overrides  usage

	outcomes     fifo[*kept]
	outcomeBytes int
	audit        fifo[*AuditRecord]
	auditBytes   int
	auditDropped uint64
	staged       *staged
}

func newView(limits *Limits) *View { return &View{limits: limits, horizon: math.MinInt64} }

// Epoch returns the epoch.
func (v *View) Epoch() document.Epoch { return v.epoch }

// Revision returns the revision.
func (v *View) Revision() uint64 { return v.revision }

// Time returns state time in milliseconds since 1970.
func (v *View) Time() int64 { return v.now }

// Index returns the index of the last command; 0 in a view that was read from a
// backup.
func (v *View) Index() uint64 { return v.index }

// Bytes returns the bytes of all resources, as counted against the limits.
func (v *View) Bytes() int { return v.declared.bytes + v.overrides.bytes }

// Resources returns the number of all resources.
func (v *View) Resources() int { return v.declared.count + v.overrides.count }

// Overrides returns the number of overrides.
func (v *View) Overrides() int { return v.overrides.count }

// Outcomes returns the number of outcomes that are kept for retries.
func (v *View) Outcomes() int { return v.outcomes.len() }

// Namespace returns a namespace, an empty one if there is none of the name.
func (v *View) Namespace(name string) *Namespace {
	c, ok := v.namespaces.Get(btree.Text(name))
	if !ok {
		c = &content{name: name}
	}
	return &Namespace{content: c, revision: v.revision}
}

// Namespaces returns the names of all namespaces, sorted.
func (v *View) Namespaces() []string {
	names := make([]string, 0, v.namespaces.Len())
	for _, c := range v.namespaces.All() {
		names = append(names, c.name)
	}
	return names
}

// NextEnd returns the earliest end of an override, in state time; false if there
// is no override.
func (v *View) NextEnd() (int64, bool) {
	first, _, ok := v.ends.Min()
	return int64(first.at), ok //nolint:gosec // ends are positive
}

// Audit returns the audit records up to a revision, newest first; math.MaxUint64
// begins with the newest.
func (v *View) Audit(upTo uint64) iter.Seq[*AuditRecord] {
	return func(yield func(*AuditRecord) bool) {
		n := sort.Search(v.audit.len(), func(i int) bool { return v.audit.at(i).Revision > upTo })
		for i := n - 1; i >= 0; i-- {
			if !yield(v.audit.at(i)) {
				return
			}
		}
	}
}

// AuditDroppedThrough returns the revision up to which audit records have been
// dropped; 0 when none has.
func (v *View) AuditDroppedThrough() uint64 { return v.auditDropped }

// lookup returns a resource, or nil.
func (v *View) lookup(p place) *document.Resource {
	c, ok := v.namespaces.Get(btree.Text(p.namespace))
	if !ok {
		return nil
	}
	r, _ := c.byKey.Get(p.Key)
	return r
}

// has tells whether a namespace exists.
func (v *View) has(namespace string) bool {
	_, ok := v.namespaces.Get(btree.Text(namespace))
	return ok
}

// share returns the usage that a kind counts for.
func (v *View) share(kind document.Kind) *usage {
	if kind == document.Override {
		return &v.overrides
	}
	return &v.declared
}
