package session

import (
	"errors"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/mirror"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// ErrConnected refuses what a peer has while a server answers.
var ErrConnected = errors.New("a server is connected: peers are not needed")

// Offer installs an update that a peer had, and that the servers have signed: the
// caller has checked that. It is taken in as one of a server is, with the source
// FromPeer, but for another lineage, which nobody but a server can bring. StateTime is
// one that is not in the future, in milliseconds since 1970; 0 if none is known. The
// errors are ErrConnected, and those of Mirror.Apply: what is held stays as it was.
func (s *Session) Offer(u mirror.Update, stateTime int64) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.Status().Connected {
		return ErrConnected
	}
	held := s.Mirror()
	next, err := held.Apply(u)
	if err != nil {
		return err //nolint:wrapcheck // says everything
	}
	mono := s.clock.Now()
	var clock mirror.Clock // another epoch has a time of its own
	if held.Position().Epoch == u.Epoch {
		clock = s.estimate()
	}
	if stateTime > 0 {
		clock = clock.AtLeast(stateTime, mono)
	}
	return contain(func() error {
		s.install(next, Change{Update: u, Source: FromPeer, StateTime: clock.At(mono)}, clock)
		return nil
	})
}

// NotBefore tells that the state time of an epoch is not before a moment, by the signed
// word of a server that came by way of a peer. While a server answers it is not needed.
func (s *Session) NotBefore(epoch document.Epoch, stateTime int64) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if st := s.Status(); st.Connected || st.Position.Epoch != epoch {
		return
	}
	mono, was := s.clock.Now(), s.estimate()
	is := was.AtLeast(stateTime, mono)
	if is.At(mono) == was.At(mono) {
		return
	}
	s.mu.Lock()
	s.time = is
	s.mu.Unlock()
	s.contained(func() { s.config.Handler.StateTime(is.At(mono)) })
}

// estimate returns the clock.
func (s *Session) estimate() mirror.Clock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time
}

// heads hands on what a message vouches for.
func (st *stream) heads(m *holdfastv1.ConnectResponse) {
	g := st.session.config.Gossip
	if g == nil || g.Head == nil || m.GetHead() == nil && m.GetTimestamp() == nil {
		return
	}
	g.Head(m.GetHead(), m.GetTimestamp())
}

// Trust returns what the disk knew of the servers and the pool when the session was
// opened.
func (s *Session) Trust() mirror.Trust { return s.trust }

// KeepTrust writes that to the disk, for the next start, if the disk is this
// process's. It does not wait for that.
func (s *Session) KeepTrust(t mirror.Trust) {
	if s.disk == nil {
		return
	}
	if err := s.disk.keepTrust(t); err != nil {
		s.config.Logger.Error("what is known of the pool is not kept", "error", err)
	}
}
