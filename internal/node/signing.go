package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/charter"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/trust"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// maxPrivateBytes bounds the files of keys that are read.
const maxPrivateBytes = 4 << 20

// signingKey returns the key that this server signs with, drawn at the first use of
// the directory. It belongs to the data, as the server's id does.
func (d *dataDir) signingKey() (*trust.Key, error) {
	seed, err := d.readPrivate(fileSigningKey)
	switch {
	case err != nil:
		return nil, err
	case seed != nil:
		key, err := trust.ParseKey(seed)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w; delete it to draw another one, which the leader makes known", ErrDamaged, d.file(fileSigningKey), err)
		}
		return key, nil
	}
	key, err := trust.NewKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("draw the server's signing key: %w", err)
	}
	return key, d.write(fileSigningKey, key.Seed())
}

// readPrivate reads a file of secrets, which nobody else may have been able to read;
// nil where there is none.
func (d *dataDir) readPrivate(name string) ([]byte, error) {
	info, err := os.Stat(d.file(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at %s: %w", d.file(name), err)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("read %s: others can read it (mode %04o) and may know what is in it; "+
			"delete it if that may be so, else take their rights away with chmod 600", d.file(name), info.Mode().Perm())
	case info.Size() > maxPrivateBytes:
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrDamaged, d.file(name), info.Size())
	}
	b, err := os.ReadFile(d.file(name))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.file(name), err)
	}
	return b, nil
}

// openCharter reads what this server knew of the charter when it stopped.
func (n *Node) openCharter(poolKeys [][]byte) error {
	key, err := n.dir.signingKey()
	if err != nil {
		return err
	}
	n.key = key
	n.charter = charter.New(charter.Config{
		Key: key, PoolKeys: poolKeys,
		Epoch: func() document.Epoch { return n.machine.View().Epoch() },
		Term:  func() uint64 { return n.raft.Status().Term },
	})
	saved, err := n.dir.readPrivate(fileCharter)
	if err != nil {
		return err
	}
	if err := n.charter.Load(saved); err != nil {
		return fmt.Errorf("%w: %s: %w; delete it, and the other servers tell this one anew what it held; "+
			"on the only server, the keys of gossip pools begin again with those that follow from gossip-key-file", ErrDamaged, n.dir.file(fileCharter), err)
	}
	return nil
}

// mayDeclare returns why this server may not vouch for anything: it is fenced off, or
// nobody would believe it.
func (n *Node) mayDeclare() error {
	if err := n.Serving(); err != nil {
		return err
	}
	if !n.charter.Signers().Has(n.key.ID()) {
		return api.Errorf(api.ReasonUnavailable, "the leader has not made this server's key known yet")
	}
	return nil
}

// Signers implements api.Fleet.
func (p *pools) Signers() []byte { return p.n.charter.Signers().Bytes() }

// SignHead implements api.Fleet.
func (p *pools) SignHead(namespace string, epoch document.Epoch, revision uint64, root document.Root) (*holdfastv1.SignedHead, error) {
	if err := p.n.mayDeclare(); err != nil {
		return nil, err
	}
	return trust.SignHead(p.n.key, trust.Head{
		Namespace: namespace, Epoch: epoch, Revision: revision, Root: root, StateTime: p.n.machine.View().Time(),
	}), nil
}

// stamp is what a Tick has made known: that a revision was the newest at a state time.
// It is part of the committed log, and so every server can vouch for it; one without
// quorum applies no Tick, and has nothing fresh to say.
type stamp struct {
	known atomic.Pointer[trust.Timestamp]

	mu     sync.Mutex // guards what is below
	of     trust.Timestamp
	signed *holdfastv1.SignedHead
}

// note takes what was true right after a Tick. It runs on the goroutine that applies,
// so that signing is left to whoever asks.
func (s *stamp) note(v *state.View) {
	s.known.Store(&trust.Timestamp{Epoch: v.Epoch(), Revision: v.Revision(), StateTime: v.Time()})
}

// sign returns the newest, signed; nil before there is one in this epoch.
func (s *stamp) sign(key *trust.Key, epoch document.Epoch) *holdfastv1.SignedHead {
	known := s.known.Load()
	if known == nil || known.Epoch != epoch {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.signed == nil || s.of != *known {
		s.of, s.signed = *known, trust.SignTimestamp(key, *known)
	}
	return s.signed
}

// Timestamp implements api.Fleet.
func (p *pools) Timestamp() *holdfastv1.SignedHead {
	if p.n.mayDeclare() != nil {
		return nil
	}
	return p.n.stamp.sign(p.n.key, p.n.machine.View().Epoch())
}

// certify certifies the key of an instance of a namespace.
func (p *pools) certify(namespace string, of api.Participant) (certificate []byte, renew time.Time, err error) {
	if err := p.n.mayDeclare(); err != nil {
		return nil, time.Time{}, err
	}
	if !p.n.clock.known() {
		// The estimate may be late by as long as this server was away.
		return nil, time.Time{}, api.Errorf(api.ReasonUnavailable, "this server does not know the time of the cluster yet")
	}
	certificate, err = trust.Certify(p.n.key, trust.Certificate{
		Namespace: namespace, ID: of.ID, Service: of.Service, Host: of.Host, Zone: of.Zone, PublicKey: of.PublicKey,
		NotAfter: p.n.clock.estimate().Add(trust.CertificateLife).UnixMilli(),
	})
	if err != nil {
		return nil, time.Time{}, api.Errorf(api.ReasonInvalidRequest, "%v", err)
	}
	return certificate, time.Now().Add(trust.CertificateLife / 2), nil
}
