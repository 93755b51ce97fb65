package document

import (
	"fmt"
	"strconv"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// ChangeType says what happened to one resource. The numbers are those of the
// wire contract.
type ChangeType uint8

// What can happen to a resource.
const (
	Created   = ChangeType(holdfastv1.ChangeType_CHANGE_TYPE_CREATED)
	Updated   = ChangeType(holdfastv1.ChangeType_CHANGE_TYPE_UPDATED)
	Unchanged = ChangeType(holdfastv1.ChangeType_CHANGE_TYPE_UNCHANGED)
	Deleted   = ChangeType(holdfastv1.ChangeType_CHANGE_TYPE_DELETED)
	Absent    = ChangeType(holdfastv1.ChangeType_CHANGE_TYPE_ABSENT)
	Ended     = ChangeType(holdfastv1.ChangeType_CHANGE_TYPE_ENDED)
)

// String returns the name in lower case, such as "created".
func (c ChangeType) String() string {
	switch c {
	case Created:
		return "created"
	case Updated:
		return "updated"
	case Unchanged:
		return "unchanged"
	case Deleted:
		return "deleted"
	case Absent:
		return "absent"
	case Ended:
		return "ended"
	default:
		return "change(" + strconv.Itoa(int(c)) + ")"
	}
}

// Proto returns the wire form.
func (c ChangeType) Proto() holdfastv1.ChangeType { return holdfastv1.ChangeType(c) }

// Tombstone tells that a resource is gone.
type Tombstone struct {
	Key
	// Revision is the one that removed the resource.
	Revision uint64
	// Ended is true when an override reached its end, false when somebody
	// deleted the resource.
	Ended bool
}

// Proto returns the tombstone's wire form.
func (t Tombstone) Proto(namespace string) *holdfastv1.Tombstone {
	kind := Deleted
	if t.Ended {
		kind = Ended
	}
	return &holdfastv1.Tombstone{Key: t.Key.Proto(namespace), Revision: t.Revision, Type: kind.Proto()}
}

// TombstoneFromProto reads a tombstone from its wire form. An empty namespace is
// returned as DefaultNamespace.
func TombstoneFromProto(p *holdfastv1.Tombstone) (namespace string, t Tombstone, err error) {
	namespace, key, err := KeyFromProto(p.GetKey())
	if err != nil {
		return "", Tombstone{}, fmt.Errorf("read tombstone: %w", err)
	}
	switch p.GetType() {
	case Deleted.Proto(), Ended.Proto():
	default:
		return "", Tombstone{}, fmt.Errorf("read tombstone of %s: it is neither deleted nor ended but %d", key, p.GetType())
	}
	return namespace, Tombstone{Key: key, Revision: p.GetRevision(), Ended: p.GetType() == Ended.Proto()}, nil
}

// Delta is the difference of a namespace between two revisions: (From, To]. It
// is coalesced: a resource occurs once, as it is at To.
type Delta struct {
	Namespace string
	From, To  uint64
	// Root is the Merkle root of the whole namespace at To.
	Root    Root
	Puts    []*Resource
	Deletes []Tombstone
}
