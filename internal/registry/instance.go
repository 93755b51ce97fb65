package registry

import (
	"bytes"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Instance is what is known of an instance. It is a value that nobody changes; what
// it points to is not changed either.
type Instance struct {
	Namespace string
	// Identity is what the instance says that it is.
	Identity *holdfastv1.Identity
	// Address is where it comes from, AuthenticatedAs the identity of its certificate,
	// empty without one.
	Address, AuthenticatedAs string
	// Source is where it had its view from when it connected.
	Source holdfastv1.Source
	// Since is when its session began. LastSeen is when it ended; zero while the
	// session lasts.
	Since, LastSeen time.Time
	// Ack is what it obeys; nil until it has told.
	Ack *holdfastv1.Ack
}

// Connected tells whether the instance has a session.
func (i *Instance) Connected() bool { return i.LastSeen.IsZero() }

// Obeys tells whether the instance obeys what is demanded.
func (i *Instance) Obeys(d Demand) bool { return d.MetBy(i.Ack.GetEpoch(), i.Ack.GetRevision()) }

// Demand is what instances have to obey: a revision of an epoch, or a later one.
type Demand struct {
	Epoch    *holdfastv1.Epoch
	Revision uint64
}

// MetBy tells whether obeying a revision of an epoch is enough; a nil epoch is that
// of an instance that has told nothing. A cluster that goes on with the backup of
// another one is of that one's lineage, and what was obeyed before says nothing,
// however high its numbers.
func (d Demand) MetBy(epoch *holdfastv1.Epoch, revision uint64) bool {
	return epoch != nil && bytes.Equal(epoch.GetLineage(), d.Epoch.GetLineage()) &&
		epoch.GetCounter() >= d.Epoch.GetCounter() && revision >= d.Revision
}

// Impaired tells whether the instance cannot obey all of its revision, or is
// overridden where it runs.
func (i *Instance) Impaired() bool {
	return i.Ack.GetProblemCount() > 0 || i.Ack.GetOverriddenBy() != ""
}

// Proto returns the instance's wire form at a time, as the server tells it.
func (i *Instance) Proto(server string, now time.Time) *holdfastv1.Instance {
	p := &holdfastv1.Instance{
		Namespace: i.Namespace, Identity: i.Identity, Connected: i.Connected(), ServerId: server,
		Address: i.Address, AuthenticatedAs: i.AuthenticatedAs, ConnectedSince: timestamppb.New(i.Since),
		LastSeen: timestamppb.New(i.LastSeen), Source: i.Source,
		Epoch: i.Ack.GetEpoch(), Revision: i.Ack.GetRevision(), Problems: i.Ack.GetProblems(),
		ProblemCount: i.Ack.GetProblemCount(), OverriddenBy: i.Ack.GetOverriddenBy(),
	}
	if i.Connected() {
		p.LastSeen = timestamppb.New(now)
	}
	return p
}

// key is the place of an instance among those of its namespace.
type key struct{ service, id string }

func (i *Instance) key() key { return key{i.Identity.GetService(), i.Identity.GetId()} }

// Compare orders by service, then by id.
func (k key) Compare(other key) int {
	if c := strings.Compare(k.service, other.service); c != 0 {
		return c
	}
	return strings.Compare(k.id, other.id)
}
