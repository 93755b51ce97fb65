package trust

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/document"
)

const (
	// MaxSigners is how many keys a set may have: as many as a cluster has servers.
	MaxSigners = 16
	// MaxSignatures is how many of them are kept that a set is signed with, the first
	// in the order of the servers' ids: so that a set fits into a packet.
	MaxSignatures = 6
	// MaxServerID is how many bytes the id of a server may have.
	MaxServerID = 64
)

// Server is a server with the key that it signs with.
type Server struct {
	ID  string
	Key ed25519.PublicKey
}

// Signers is the set of keys that servers sign with. It is immutable, and safe for
// concurrent use. A nil set knows nobody and verifies nothing.
//
// A set carries signatures of its own keys. Who holds a set takes another one from
// anybody if it is newer and a key of the set held has signed it: see [Signers.Accept].
// So a server may be replaced while an instance is cut off; an instance that has missed
// the replacement of all servers has to ask one of them.
type Signers struct {
	epoch   document.Epoch
	version uint64
	servers []Server // in the order of their ids
	ids     []KeyID  // of their keys
	// signatures are in the order of the servers; nil where one has not signed.
	signatures [][]byte
	encoded    []byte
}

// NewSigners makes a set at a version, signed with a server's key, which has to be
// among the servers'. Sets are ordered by the counter of the epoch, then by version.
func NewSigners(server *Key, epoch document.Epoch, version uint64, servers []Server) (*Signers, error) {
	s := &Signers{epoch: epoch, version: version}
	for _, member := range servers {
		s.servers = append(s.servers, Server{ID: member.ID, Key: bytes.Clone(member.Key)})
	}
	slices.SortFunc(s.servers, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	s.signatures = make([][]byte, len(s.servers))
	if err := s.index(); err != nil {
		return nil, fmt.Errorf("make signer set: %w", err)
	}
	signed := s.Countersign(server)
	if signed == s {
		return nil, fmt.Errorf("make signer set: %w: the server's own key is not among the keys", ErrMalformed)
	}
	return signed, nil
}

// index fills in the ids of the keys and refuses servers that are none, repeated or
// not in order.
func (s *Signers) index() error {
	if len(s.servers) == 0 || len(s.servers) > MaxSigners {
		return fmt.Errorf("%w: %d servers; a set has 1 to %d", ErrMalformed, len(s.servers), MaxSigners)
	}
	for i, server := range s.servers {
		id := IDOf(server.Key)
		switch {
		case server.ID == "" || len(server.ID) > MaxServerID:
			return fmt.Errorf("%w: the id of a server has %d bytes; it has 1 to %d", ErrMalformed, len(server.ID), MaxServerID)
		case len(server.Key) != ed25519.PublicKeySize:
			return fmt.Errorf("%w: a key has %d bytes instead of %d", ErrMalformed, len(server.Key), ed25519.PublicKeySize)
		case slices.Contains(s.ids, id):
			return fmt.Errorf("%w: two servers have one key", ErrMalformed)
		case i > 0 && s.servers[i-1].ID >= server.ID:
			return fmt.Errorf("%w: servers are repeated or out of order", ErrMalformed)
		}
		s.ids = append(s.ids, id)
	}
	return nil
}

// Countersign returns the set with one more signature; the same set where the key has
// signed already, is not of it, or where enough others have signed.
func (s *Signers) Countersign(server *Key) *Signers {
	i := slices.Index(s.ids, server.id)
	if i < 0 || s.signatures[i] != nil {
		return s
	}
	added := make([][]byte, len(s.servers))
	added[i] = server.sign(domainSigners, s.body())
	signed, _ := s.with(added)
	return signed
}

// Join returns the set with the signatures of both, and whether it has others now. It
// is for servers, which collect each other's: commutative, associative and idempotent.
// Sets with another content have nothing in common.
func (s *Signers) Join(other *Signers) (joined *Signers, changed bool) {
	if !bytes.Equal(s.body(), other.body()) {
		return s, false
	}
	return s.with(other.signatures)
}

// with returns the set with the first of both signatures.
func (s *Signers) with(added [][]byte) (signed *Signers, changed bool) {
	union, count := make([][]byte, len(s.servers)), 0
	for i, signature := range s.signatures {
		if signature == nil {
			signature = added[i]
		}
		if signature == nil || count == MaxSignatures {
			continue
		}
		union[i], count = signature, count+1
		changed = changed || s.signatures[i] == nil
	}
	if !changed {
		return s, false
	}
	copied := *s
	copied.signatures = union
	copied.encoded = copied.encode()
	return &copied, true
}

func (s *Signers) body() []byte {
	b := appendEpoch(make([]byte, 0, 64+len(s.servers)*(MaxServerID+ed25519.PublicKeySize)), s.epoch)
	b = binary.BigEndian.AppendUint64(b, s.version)
	b = append(b, byte(len(s.servers)))
	for _, server := range s.servers {
		b = append(appendText(b, server.ID), server.Key...)
	}
	return b
}

// encode is the body, then for each server one byte that tells whether its signature
// follows.
func (s *Signers) encode() []byte {
	b := s.body()
	for _, signature := range s.signatures {
		if signature == nil {
			b = append(b, 0)
			continue
		}
		b = append(append(b, 1), signature...)
	}
	return b
}

// DecodeSigners reads a set. It checks the set's own signatures, of which there is at
// least one, but not whether anybody has reason to believe it.
func DecodeSigners(b []byte) (*Signers, error) {
	r := reader{b: bytes.Clone(b)}
	s := &Signers{epoch: r.epoch(), version: r.uint64()}
	for range min(r.byte(), MaxSigners+1) {
		s.servers = append(s.servers, Server{ID: r.text(), Key: r.take(ed25519.PublicKeySize)})
	}
	for range s.servers {
		var signature []byte
		if r.byte() == 1 {
			signature = r.take(ed25519.SignatureSize)
		}
		s.signatures = append(s.signatures, signature)
	}
	if err := r.end("signer set"); err != nil {
		return nil, err
	}
	if err := s.index(); err != nil {
		return nil, fmt.Errorf("read signer set: %w", err)
	}
	if s.encoded = s.encode(); !bytes.Equal(s.encoded, b) {
		return nil, fmt.Errorf("read signer set: %w: not in its one encoding", ErrMalformed)
	}
	if err := s.checkSignatures(); err != nil {
		return nil, fmt.Errorf("read signer set: %w", err)
	}
	return s, nil
}

func (s *Signers) checkSignatures() error {
	count, body := 0, s.body()
	for i, signature := range s.signatures {
		if signature == nil {
			continue
		}
		if count++; count > MaxSignatures || !verify(s.servers[i].Key, domainSigners, body, signature) {
			return ErrSignature
		}
	}
	if count == 0 {
		return fmt.Errorf("%w: nobody has signed it", ErrSignature)
	}
	return nil
}

// Bytes returns the encoding, which nobody may change; nil of a nil set.
func (s *Signers) Bytes() []byte {
	if s == nil {
		return nil
	}
	return s.encoded
}

// Epoch returns the epoch in which the set was made.
func (s *Signers) Epoch() document.Epoch { return s.epoch }

// Version returns the version of the set within its epoch.
func (s *Signers) Version() uint64 { return s.version }

// Servers returns the servers in the order of their ids; nobody may change the keys.
func (s *Signers) Servers() []Server {
	if s == nil {
		return nil
	}
	return slices.Clone(s.servers)
}

// Has tells whether a key is in the set.
func (s *Signers) Has(id KeyID) bool { return s != nil && slices.Contains(s.ids, id) }

// Newer tells whether the set comes after another one of the same cluster.
func (s *Signers) Newer(than *Signers) bool {
	return s.epoch.Lineage == than.epoch.Lineage &&
		cmp.Or(cmp.Compare(s.epoch.Counter, than.epoch.Counter), cmp.Compare(s.version, than.version)) > 0
}

// Accept returns the set that somebody offers who need not be trusted, as another
// instance: it has to be of the same cluster, newer, and signed by a key of the set
// held. Otherwise it returns the set held, and ErrMalformed, ErrSignature, ErrStale or
// ErrUnknownSigner. A nil set accepts nothing.
func (s *Signers) Accept(offered []byte) (*Signers, error) {
	if s == nil {
		return nil, fmt.Errorf("accept signer set: %w", ErrUnknownSigner)
	}
	next, err := DecodeSigners(offered)
	if err != nil {
		return s, err
	}
	if !next.Newer(s) {
		return s, fmt.Errorf("accept signer set: %w", ErrStale)
	}
	for i, id := range next.ids {
		// The keys are compared as well: two keys with one id can be made.
		if j := slices.Index(s.ids, id); j >= 0 && next.signatures[i] != nil && s.servers[j].Key.Equal(next.servers[i].Key) {
			return next, nil
		}
	}
	return s, fmt.Errorf("accept signer set: %w", ErrUnknownSigner)
}

// Replace returns the set that a server gave over a connection on which it is
// trusted: whatever it is, but none that is older than the set held, from a server
// that lags behind.
func (s *Signers) Replace(given []byte) (*Signers, error) {
	next, err := DecodeSigners(given)
	if err != nil {
		return s, err
	}
	if s != nil && s.Newer(next) {
		return s, fmt.Errorf("take signer set: %w", ErrStale)
	}
	return next, nil
}

// verify checks a signature of a key of the set.
func (s *Signers) verify(by KeyID, domain string, body, signature []byte) error {
	if !s.Has(by) {
		return fmt.Errorf("%w %s", ErrUnknownSigner, by)
	}
	if !verify(s.servers[slices.Index(s.ids, by)].Key, domain, body, signature) {
		return ErrSignature
	}
	return nil
}
