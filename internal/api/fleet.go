package api

import (
	"context"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/health"
	"github.com/holdfast-dev/holdfast/internal/policy"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Fleet is this server's part in what the instances tell each other by gossip. Its
// methods are called concurrently, and none but RotateKey waits for anything.
//
// Its errors are those of Replica.
type Fleet interface {
	// Pool returns the server's part in the pool of a namespace, which it joins if it
	// has not, and keeps it until release is called, and for a while after. An error
	// says why there is none.
	Pool(namespace string) (pool FleetPool, release func(), err error)
	// Signers returns who signs heads and certificates, as a signer set of package
	// trust. The bytes are never changed.
	Signers() []byte
	// SignHead signs that a namespace had a root at a revision.
	SignHead(namespace string, epoch document.Epoch, revision uint64, root document.Root) (*holdfastv1.SignedHead, error)
	// Timestamp returns the newest word of a leader on what was the newest revision;
	// nil before there is one. The same message is returned until there is a newer one.
	Timestamp() *holdfastv1.SignedHead
	// Keys shows the keys of a namespace's pool, the one that encrypts first; none
	// where the pool is plaintext.
	Keys(namespace string) []*holdfastv1.GossipKey
	// RotateKey takes a step of a rotation and returns the keys after it. Only the
	// leader can. The request is well formed and names its namespace. It refuses with
	// an Error of ReasonGossipKeyNotFound or ReasonGossipKeyRefused.
	RotateKey(ctx context.Context, step *holdfastv1.RotateGossipKeyRequest) ([]*holdfastv1.GossipKey, error)
}

// FleetPool is this server's part in the pool of a namespace. Its methods are called
// concurrently, and none but Verify waits for anything.
type FleetPool interface {
	// Settings returns what every instance that joins the pool has to know: seeds,
	// label, keys. The message is shared and never changed; there is another one once
	// something is another.
	Settings() *holdfastv1.GossipSettings
	// Certify certifies the key of an instance. From renew on it should be certified
	// anew.
	Certify(p Participant) (certificate []byte, renew time.Time, err error)
	// Verify returns nil once this server, and a member beside it where there is one,
	// have reached the member of that name at the address, by UDP and by TCP.
	Verify(ctx context.Context, address, member string) error
	// Members returns how many members the pool has, servers included.
	Members() int
	// Directs returns the ids of the instances that are among them. Whoever asks for
	// one after the other asks once.
	Directs() map[string]bool

	// Take takes in what the session of an instance hands in, and spreads news. It
	// refuses, with an error for the log, what is malformed, forged, expired, or
	// certified to another instance than the one named.
	Take(record []byte, id string) error
	// Changes returns at most so many of the records that changed after the cursor,
	// which is 0 at first, with their ages of now, and the next cursor.
	Changes(since uint64, most int) (records [][]byte, next uint64)
	// Changed returns a channel that is closed at the next change. It has to be asked
	// for before Changes.
	Changed() <-chan struct{}
	// SetPopulation tells where the instances are, by service.
	SetPopulation(population map[string]health.Population)
	// Picture shows what is said of a dependency, or of all if it is empty, and what
	// follows from it under the policies. It fills in instances, hosts and
	// dependencies. How an instance takes part is told by mode.
	Picture(dependency string, policies func(string) policy.Policy, mode func(id string) string) *holdfastv1.Fleet
}

// Participant is an instance that takes part in gossip.
type Participant struct {
	// ID, Service and Zone are what it says of itself; Host is where its session comes
	// from.
	ID, Service, Host, Zone string
	// PublicKey is its Ed25519 key.
	PublicKey []byte
}
